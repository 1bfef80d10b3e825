/* SPDX-License-Identifier: Apache-2.0 */
/* The stage of test_stage_kinds.py, in C. */
#include "xp_batch.h"

int judge(struct xp_batch *b, struct xp_own *own)
{
	for (uint32_t i = 0; i < b->n; i++) {
		int32_t at = b->payload[i];
		uint32_t flags = b->flags[i];

		if (b->verdict[i] != XP_UNDECIDED)
			continue;
		own->score[i] = (float)(b->len[i] * 0.5 + b->ip_ttl[i]);
		b->mark[i] = xp_u16(b, i, at) + xp_u8(b, i, at + 40) + b->dst[16 * i + 15];
		if ((flags & XP_FLAG_TCP) && b->payload_len[i] > 0)
			own->counters->rewritten +=
				xp_put(b, i, at, xp_u8(b, i, at) ^ 0x20u, 1, 1);
		if ((flags & XP_FLAG_UDP) && (b->l4_sport[i] == 53 || b->l4_dport[i] == 53))
			own->counters->dns += xp_tx(b, i);
		else if ((flags & XP_FLAG_TCP) && xp_u16(b, i, at) == 0x3603)
			own->counters->tls += xp_pass(b, i);
		else if (own->score[i] > 300)
			own->counters->large += xp_drop(b, i);
		if (xp_u32(b, i, b->l3[i] + 12) == 0x0a000001)
			own->counters->from_one += xp_drop(b, i);
	}
	return 0;
}
