/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_FIX_CHECKSUMS_H
#define XP_STAGE_FIX_CHECKSUMS_H

#include "stages/action.h"

/* cdef begin */
struct xp_fix_checksums_state {
	uint64_t *counters; /* fixed, right, left_alone */
	struct xp_only only;
};
int xp_stage_fix_checksums(struct xp_batch *batch, void *state);
/* cdef end */

#endif
