// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Put packets on a link, or into the kernel's stack: run by BPF_PROG_TEST_RUN in live frames mode, once
 * a packet (xdpipe/core/traffic/engine_live.c). The packets lie in a map that is mapped there.
 *
 * What a link takes of it the kernel tells at a tracepoint only.
 *
 * xdpipe/traffic/engine_live.py puts before this file: XP_OUT_IFINDEX, 0 for the stack, and
 * XP_IFINDEX_AT, where a struct net_device has its number.
 */
#include "emit.h"

BPF_F_TABLE("array", u32, struct xp_emit, emit, 1, 1024 /* BPF_F_MMAPABLE */);
BPF_PERCPU_ARRAY(taken, u64, 1); /* by the link */

#define XP_ETH_HLEN 14

static long (*xp_store_bytes)(struct xdp_md *ctx, u64 offset, void *from, u64 len) = (void *)190;

int emit_packet(struct xdp_md *ctx)
{
	struct xp_emit *e;
	u64 at, len, have; /* as wide as registers, so that what was compared is what is used */
	u32 i;
	int zero = 0;

	e = emit.lookup(&zero);
	if (!e)
		return XDP_DROP;
	i = e->next;
	if (i >= XP_EMIT_MAX)
		return XDP_DROP;
	e->next = i + 1;
	at = e->packets[i].at;
	len = e->packets[i].len;
	/* for the verifier: see inject.c */
	asm volatile("" : "+r"(at), "+r"(len));
	if (len < XP_ETH_HLEN)
		goto refused;
	asm volatile("" : "+r"(len));
	if (len > XP_EMIT_LONGEST || at > XP_EMIT_BYTES)
		goto refused;
	have = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	asm volatile("" : "+r"(have));
	if (have != len && bpf_xdp_adjust_tail(ctx, (int)len - (int)have))
		goto refused;
	if (xp_store_bytes(ctx, 0, e->bytes + at, len))
		goto refused;
	e->emitted++;
#if XP_OUT_IFINDEX
	return bpf_redirect(XP_OUT_IFINDEX, 0);
#else
	return XDP_PASS;
#endif

refused:
	e->refused++;
	return XDP_DROP;
}

#if XP_IFINDEX_AT
/* Raw tracepoint xdp_devmap_xmit: from_dev, to_dev, sent, drops, err (include/trace/events/xdp.h). */
int count_taken(struct bpf_raw_tracepoint_args *ctx)
{
	const void *to = (const void *)ctx->args[1];
	int sent = ctx->args[2], ifindex = 0, zero = 0;
	u64 *n;

	bpf_probe_read_kernel(&ifindex, sizeof(ifindex), to + XP_IFINDEX_AT);
	n = taken.lookup(&zero);
	if (n && sent > 0 && ifindex == XP_OUT_IFINDEX)
		*n += sent;
	return 0;
}
#endif
