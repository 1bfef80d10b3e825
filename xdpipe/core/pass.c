/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets given back to the kernel: copied to where bpf/inject.c takes them, which the kernel then
 * runs, in the worker's own time and on its core, as it would have its receive work done there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "xp.h"
#include "inject.h"

#define BPF_PROG_TEST_RUN 10
#define BPF_F_TEST_XDP_LIVE_FRAMES (1u << 1)
#define FIRST_LEN 64 /* of a frame before the program sets its length; what it grows by is cleared */

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

uint64_t xp_inject_bytes(void)
{
	return sizeof(struct xp_inject);
}

/* What the program has given to the kernel, and what it refused. */
uint64_t xp_injected(const struct xp_pass *pass)
{
	return ((const volatile struct xp_inject *)pass->inject)->injected;
}

uint64_t xp_inject_refused(const struct xp_pass *pass)
{
	return ((const volatile struct xp_inject *)pass->inject)->refused;
}

/* Have the kernel run the program n times. 0 or -errno. */
static int run(const struct xp_pass *pass, uint32_t n)
{
	static const uint8_t frame[FIRST_LEN];
	struct context context = {
		.data_end = FIRST_LEN,
		.ingress_ifindex = pass->ifindex,
	};
	struct test_run attributes = {
		.prog_fd = (uint32_t)pass->prog_fd,
		.data_size_in = FIRST_LEN,
		.data_in = (uint64_t)(uintptr_t)frame,
		.repeat = n,
		.ctx_size_in = sizeof(context),
		.ctx_in = (uint64_t)(uintptr_t)&context,
		.flags = BPF_F_TEST_XDP_LIVE_FRAMES,
		.batch_size = n,
	};

	return syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)) < 0 ? -errno : 0;
}

/* Whether we may: 0 or -errno. The program finds nothing to take. */
int xp_pass_probe(struct xp_pass *pass)
{
	((struct xp_inject *)pass->inject)->next = XP_INJECT_MAX;
	return run(pass, 1);
}

/*
 * Give what is collected to the kernel. Where it fails, counted as failed is what the program did
 * not take; of what it took before, the kernel may have lost some for want of memory.
 */
void xp_pass_flush(struct xp_port *port)
{
	struct xp_pass *pass = port->pass;
	struct xp_counters *c = port->counters;
	struct xp_inject *in = pass->inject;
	uint32_t n = pass->n;
	int err;

	if (n == 0)
		return;
	__atomic_store_n(&in->next, 0, __ATOMIC_RELEASE);
	err = run(pass, n);
	if (err) {
		c->pass_errno = (uint64_t)-err;
		c->pass_failed += n - __atomic_load_n(&in->next, __ATOMIC_ACQUIRE);
	}
	c->passed = xp_injected(pass);
	c->pass_too_long = xp_inject_refused(pass);
	pass->n = pass->used = 0;
}

/* Collect packet i of the batch; its frames stay the batch's. */
void xp_pass_packet(struct xp_worker *w, uint32_t i)
{
	struct xp_batch *b = w->batch;
	struct xp_port *port = w->ports + b->port;
	struct xp_pass *pass = port->pass;
	struct xp_inject *in;
	uint32_t len;

	if (!pass) {
		port->counters->pass_failed++;
		return;
	}
	in = pass->inject;
	if (b->n_checksums_due && b->checksum_due[i])
		xp_finish_checksum(b, i, NULL);
	if (w->hints)
		xp_put_tag_back(b, i);
	len = (uint32_t)b->len[i];
	if (len > XP_INJECT_LONGEST) {
		port->counters->pass_too_long = ++in->refused; /* ours while the program does not run */
		return;
	}
	if (pass->n == XP_INJECT_MAX || pass->used + len > XP_INJECT_BYTES)
		xp_pass_flush(port);
	if (b->n_frames[i] == 1)
		memcpy(in->bytes + pass->used, xp_packet(b, i), len);
	else
		xp_batch_read(b, i, in->bytes + pass->used, len);
	in->packets[pass->n].at = pass->used;
	in->packets[pass->n].len = len;
	pass->used += (len + 7) & ~7u;
	pass->n++;
}
