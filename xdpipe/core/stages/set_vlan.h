/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_SET_VLAN_H
#define XP_STAGE_SET_VLAN_H

#include "stages/action.h"

/* cdef begin */
enum xp_set_vlan_deed { XP_SET_VLAN_SET, XP_SET_VLAN_PUSH, XP_SET_VLAN_POP, XP_SET_VLAN_PUT };

struct xp_set_vlan_state {
	uint64_t *counters; /* changed, left_alone, no_room */
	struct xp_only only;
	uint32_t deed;      /* enum xp_set_vlan_deed */
	uint16_t tpid;      /* of a tag that is pushed */
	uint16_t keep, set; /* tag control: (what it was & keep) | set */
};
int xp_stage_set_vlan(struct xp_batch *batch, void *state);
/* cdef end */

#endif
