/* SPDX-License-Identifier: Apache-2.0 */
/* The one call of bpf(2) that is made per batch of packets; the others are Python's (xdpipe/bpf.py). */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define BPF_PROG_TEST_RUN 10
#define BPF_F_TEST_XDP_LIVE_FRAMES (1u << 1)

/* The part of union bpf_attr for BPF_PROG_TEST_RUN, and struct xdp_md (linux/bpf.h) */
struct test_run {
	uint32_t prog_fd, retval, data_size_in, data_size_out;
	uint64_t data_in, data_out;
	uint32_t repeat, duration, ctx_size_in, ctx_size_out;
	uint64_t ctx_in, ctx_out;
	uint32_t flags, cpu, batch_size, unused;
};

struct context {
	uint32_t data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

int xp_live_run(int prog_fd, uint32_t ifindex, uint32_t n, uint32_t batch)
{
	static const uint8_t frame[XP_LIVE_FIRST_LEN];
	struct context context = {
		.data_end = XP_LIVE_FIRST_LEN,
		.ingress_ifindex = ifindex,
	};
	struct test_run attributes = {
		.prog_fd = (uint32_t)prog_fd,
		.data_size_in = XP_LIVE_FIRST_LEN,
		.data_in = (uint64_t)(uintptr_t)frame,
		.repeat = n,
		.ctx_size_in = sizeof(context),
		.ctx_in = (uint64_t)(uintptr_t)&context,
		.flags = BPF_F_TEST_XDP_LIVE_FRAMES,
		.batch_size = batch,
	};

	return syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)) < 0 ? -errno : 0;
}
