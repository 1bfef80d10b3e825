/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Where: what becomes of packets that a tcpdump filter takes. libpcap's interpreter runs it
 * over the packet's first frame; a load beyond that ends it with "no", as for a packet that was cut
 * short. Its `len` is the whole packet's.
 */
#include "stages/where.h"

#define PREFETCH_AHEAD 6

/* In the order of Where.counters in xdpipe/stages/where.py. */
enum { N_MATCHED, N_OTHER };

int xp_stage_where(struct xp_batch *b, void *state)
{
	const struct xp_where_state *s = state;
	uint32_t n_matched = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		int matches;

		if (i + PREFETCH_AHEAD < b->n)
			__builtin_prefetch(xp_packet(b, i + PREFETCH_AHEAD));
		matches = s->run_program(s->program, xp_packet(b, i), (uint32_t)b->len[i],
					 (uint32_t)b->head_len[i]) != 0;
		n_matched += (uint32_t)matches;
		xp_act(b, i, matches ? s->matched : s->other);
	}
	s->counters[N_MATCHED] += n_matched;
	s->counters[N_OTHER] += b->n - n_matched;
	return 0;
}
