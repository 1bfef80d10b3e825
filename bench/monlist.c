/* SPDX-License-Identifier: Apache-2.0 */
/* The stage monlist of kinds.py in C. */
#include "xp_batch.h"

/* Drop NTP mode 7 (private) with request code 42, MON_GETLIST_1. */
int monlist(struct xp_batch *b, struct xp_own *own)
{
	for (uint32_t i = 0; i < b->n; i++) {
		int32_t at = b->payload[i];

		if ((xp_u8(b, i, at) & 7) == 7 && xp_u8(b, i, at + 3) == 42)
			own->counters->hits += xp_drop(b, i);
	}
	return 0;
}
