/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_FIT_MTU_H
#define XP_STAGE_FIT_MTU_H

#include "stages/action.h"

/* cdef begin */
struct xp_fit_mtu_state {
	uint64_t *counters; /* fits, truncated, left_out */
	struct xp_only only;
	int32_t mtu; /* bytes behind Ethernet header and VLAN tags */
	uint32_t truncate;
};
int xp_stage_fit_mtu(struct xp_batch *batch, void *state);
/* cdef end */

#endif
