/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_RECORD_H
#define XP_STAGE_RECORD_H

#include "xp_batch.h"

/* cdef begin */
struct xp_record_state {
	uint64_t *counters;
	struct xp_tap *tap; /* NULL: nothing is written */
};
int xp_stage_record(struct xp_batch *batch, void *state);
/* cdef end */

#endif
