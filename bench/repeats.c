/* SPDX-License-Identifier: Apache-2.0 */
/* The stage repeats of kinds.py in C. */
#include "xp_batch.h"

#define SLOTS 65536

struct table {
	int64_t n[SLOTS];
};

/* Drop what has sent the same first bytes from the same address too often. */
int repeats(struct xp_batch *b, struct xp_own *own)
{
	int64_t *n = own->state->n;

	for (uint32_t i = 0; i < b->n; i++) {
		int64_t hash = b->flow_hash[i];

		for (int32_t k = 0; k < 16; k++)
			hash = (hash * 31 + xp_u8(b, i, b->payload[i] + k)) & 0xffffffff;
		hash &= SLOTS - 1;
		n[hash]++;
		own->seen[i] = (uint32_t)n[hash];
		if (n[hash] > 1000)
			own->counters->hits += xp_drop(b, i);
	}
	return 0;
}
