/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_TOP_H
#define XP_STAGE_TOP_H

#include "stages/action.h"
#include "stages/key.h"

/* cdef begin */
struct xp_top_entry { /* behind it the key */
	struct xp_entry entry;
	uint64_t error;   /* by so much at the most is its count too high */
	uint64_t packets; /* since it has the entry */
	uint64_t bytes;
};
/* A place of the heap: the count of an entry. */
struct xp_top_place {
	uint64_t count;
	uint64_t entry;
};
struct xp_top_state {
	uint64_t *counters;
	struct xp_only only;
	const struct xp_key *key;
	struct xp_table *table;
	/* Places of which each has a count no higher than those of its children; places 0 to 2 are
	 * nobody's, the root is 3, and the children of place p are the 4 from 4 * p - 8 on. Behind the
	 * last one there are 3 more, with the greatest count that there is. */
	struct xp_top_place *heap;
	uint32_t *places; /* of the entries in the heap, by their numbers */
	uint32_t by_bytes;
};
int xp_stage_top(struct xp_batch *batch, void *state);
/* cdef end */

#endif
