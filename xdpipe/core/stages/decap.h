/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_DECAP_H
#define XP_STAGE_DECAP_H

#include "xp_batch.h"

/* cdef begin */
struct xp_decap_state {
	uint64_t *counters;
	uint32_t kinds; /* bit k: enter tunnels of kind k, enum xp_tunnel */
	uint32_t depth; /* 1 to 4 */
	uint16_t vxlan_port, geneve_port, gtpu_port;
};
int xp_stage_decap(struct xp_batch *batch, void *state); /* struct xp_decap_state */
/* cdef end */

#endif
