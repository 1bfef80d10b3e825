// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Put packets on a link, or into the kernel's stack: run by BPF_PROG_TEST_RUN in live frames mode, once
 * a packet (xdpipe/core/traffic/engine_live.c). The packets lie in a map that is mapped there.
 *
 * What a link takes of it the kernel tells at a tracepoint only. That tells of all the machine: links of
 * other network namespaces, which have the same numbers, and of other programs. Ours are those that this
 * processor has emitted and not handed to a link yet, and which go out of the link that they came by. The
 * kernel does both in one go (xdp_test_run_batch in net/bpf/test_run.c), with softirqs off, so that
 * nobody else's come between.
 */
#include "emit.h"

#include "frame.h"

BPF_F_TABLE("array", u32, struct xp_emit, emit, 1, 1024 /* BPF_F_MMAPABLE */);

struct xp_handed {
	u64 under_way; /* emitted, and not at the tracepoint yet */
	u64 taken;     /* by the link */
};
BPF_PERCPU_ARRAY(handed, struct xp_handed, 1);

int emit_packet(struct xdp_md *ctx)
{
	struct xp_handed *h;
	struct xp_emit *e;
	u32 i;
	int zero = 0;

	e = emit.lookup(&zero);
	h = handed.lookup(&zero);
	if (!e || !h)
		return XDP_DROP;
	i = e->next;
	if (i == 0)
		h->under_way = 0; /* of the call before: those that came to no link, which is down, say */
	if (i >= XP_EMIT_MAX)
		return XDP_DROP;
	e->next = i + 1;
	if (!xp_make_frame(ctx, e->bytes, e->packets[i].at, e->packets[i].len, XP_EMIT_LONGEST,
			   XP_EMIT_BYTES)) {
		e->refused++;
		return XDP_DROP;
	}
	e->emitted++;
	if (!e->ifindex)
		return XDP_PASS;
	h->under_way++;
	return bpf_redirect(e->ifindex, 0);
}

/* Raw tracepoint xdp_devmap_xmit: from_dev, to_dev, sent, drops, err (include/trace/events/xdp.h). */
int count_taken(struct bpf_raw_tracepoint_args *ctx)
{
	u64 from = ctx->args[0], to = ctx->args[1];
	u64 sent = (u32)ctx->args[2], n = sent + (u32)ctx->args[3];
	struct xp_handed *h;
	int zero = 0;

	h = handed.lookup(&zero);
	if (!h || from != to || n > h->under_way)
		return 0;
	h->under_way -= n;
	h->taken += sent;
	return 0;
}
