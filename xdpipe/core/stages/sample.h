/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_SAMPLE_H
#define XP_STAGE_SAMPLE_H

#include "stages/action.h"

/* cdef begin */
struct xp_sample_state {
	uint64_t *counters;
	uint64_t secret[2]; /* of what chance there is */
	uint64_t n;	    /* one in n */
	uint64_t n_drawn;   /* random numbers so far */
	uint64_t skip;	    /* packets before the next one */
	uint32_t acts_on_others;
	struct xp_action sampled;
	struct xp_action other;
};
int xp_stage_sample_packets(struct xp_batch *batch, void *state);
int xp_stage_sample_flows(struct xp_batch *batch, void *state);
/* cdef end */

#endif
