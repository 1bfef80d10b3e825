/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_DECREMENT_TTL_H
#define XP_STAGE_DECREMENT_TTL_H

#include "stages/action.h"

/* cdef begin */
struct xp_decrement_ttl_state {
	uint64_t *counters; /* decremented, expired, left_alone */
	struct xp_only only;
	uint8_t by;
	uint8_t expired; /* verdict of packets whose TTL does not suffice; XP_UNDECIDED: none */
};
int xp_stage_decrement_ttl(struct xp_batch *batch, void *state);
/* cdef end */

#endif
