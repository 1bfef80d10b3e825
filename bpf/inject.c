// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Give packets back to the kernel, as if the interface had received them just now.
 *
 * A worker calls BPF_PROG_TEST_RUN in live frames mode (Documentation/bpf/bpf_prog_run.rst, Linux
 * 5.18) with one repetition a packet. The kernel makes a frame, runs this on it, and does what it
 * returns: XDP_PASS hands it to the network stack. The packets lie in a map that the worker has
 * mapped (inject.h). The worker runs without privilege (since Linux 5.19 who holds a program's
 * descriptor may run it), so what it writes there is looked at here, once, and the program serves
 * one interface, which stands in a map that the worker has not.
 */
#include "inject.h"

#include "frame.h"

BPF_F_TABLE("array", u32, struct xp_inject, inject, 1, 1024 /* BPF_F_MMAPABLE */);
BPF_ARRAY(only, u32, 1); /* the number of the interface */

int inject_packet(struct xdp_md *ctx)
{
	struct xp_inject *in;
	u32 i, *ifindex;
	int zero = 0;

	in = inject.lookup(&zero);
	ifindex = only.lookup(&zero);
	if (!in || !ifindex || ctx->ingress_ifindex != *ifindex)
		return XDP_DROP;
	i = in->next;
	if (i >= XP_INJECT_MAX)
		return XDP_DROP;
	in->next = i + 1;
	if (!xp_make_frame(ctx, in->bytes, in->packets[i].at, in->packets[i].len, XP_INJECT_LONGEST,
			   XP_INJECT_BYTES)) {
		in->refused++;
		return XDP_DROP;
	}
	in->injected++;
	return XDP_PASS;
}
