// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Give packets back to the kernel, as if the interface had received them just now.
 *
 * A worker calls BPF_PROG_TEST_RUN in live frames mode (Documentation/bpf/bpf_prog_run.rst, Linux
 * 5.18) with one repetition a packet. The kernel makes a frame, runs this on it, and does what it
 * returns: XDP_PASS hands it to the network stack. The packets lie in a map that the worker has
 * mapped (inject.h). The worker runs without privilege (since Linux 5.19 who holds a program's
 * descriptor may run it), so what it writes there is looked at here, once, and the program serves
 * the one interface that it was made for.
 *
 * xdpipe/inject.py puts before this file: XP_IFINDEX.
 */
#include "inject.h"

BPF_F_TABLE("array", u32, struct xp_inject, inject, 1, 1024 /* BPF_F_MMAPABLE */);

#define XP_ETH_HLEN 14

static long (*xp_store_bytes)(struct xdp_md *ctx, u64 offset, void *from, u64 len) = (void *)190;

int inject_packet(struct xdp_md *ctx)
{
	struct xp_inject *in;
	u64 at, len, have; /* as wide as registers, so that what was compared is what is used */
	u32 i;
	int zero = 0;

	in = inject.lookup(&zero);
	if (!in || ctx->ingress_ifindex != XP_IFINDEX)
		return XDP_DROP;
	i = in->next;
	if (i >= XP_INJECT_MAX)
		return XDP_DROP;
	in->next = i + 1;
	at = in->packets[i].at;
	len = in->packets[i].len;
	/*
	 * Read once: what is looked at is what is used, whatever the worker writes meanwhile. And so
	 * that the verifier sees that, too, clang must not make one comparison of two with a number
	 * that it computes of len (it knows of no more after that than before).
	 */
	asm volatile("" : "+r"(at), "+r"(len));
	if (len < XP_ETH_HLEN)
		goto refused;
	asm volatile("" : "+r"(len));
	if (len > XP_INJECT_LONGEST || at > XP_INJECT_BYTES)
		goto refused;
	have = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	asm volatile("" : "+r"(have)); /* else clang subtracts data_end from len, a pointer */
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)have) ||
	    xp_store_bytes(ctx, 0, in->bytes + at, len))
		goto refused;
	in->injected++;
	return XDP_PASS;

refused:
	in->refused++;
	return XDP_DROP;
}
