/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_SWAP_ADDRESSES_H
#define XP_STAGE_SWAP_ADDRESSES_H

#include "stages/action.h"

/* cdef begin */
struct xp_swap_addresses_state {
	uint64_t *counters; /* swapped, left_alone */
	struct xp_only only;
};
int xp_stage_swap_addresses(struct xp_batch *batch, void *state);
/* cdef end */

#endif
