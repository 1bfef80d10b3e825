/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_COUNT_H
#define XP_STAGE_COUNT_H

#include "stages/action.h"
#include "stages/key.h"

/* cdef begin */
struct xp_count_entry { /* behind it the key */
	struct xp_entry entry;
	uint64_t packets;
	uint64_t bytes;
};
struct xp_count_state {
	uint64_t *counters;
	struct xp_only only;
	const struct xp_key *key; /* NULL: there is none, only the counters */
	struct xp_table *table;
};
int xp_stage_count(struct xp_batch *batch, void *state);
/* cdef end */

#endif
