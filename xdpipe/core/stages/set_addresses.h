/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_SET_ADDRESSES_H
#define XP_STAGE_SET_ADDRESSES_H

#include "stages/action.h"
#include "stages/addresses.h"

/* cdef begin */
struct xp_set_addresses_state {
	uint64_t *counters; /* set, partly, left_alone */
	struct xp_only only;
	/* each by enum xp_end */
	uint32_t mac_wanted[2];
	uint8_t mac[2][6];
	struct xp_new_address ipv4[2];
	struct xp_new_address ipv6[2];
	uint32_t port_wanted[2];
	uint8_t port[2][2]; /* as in the packet */
};
int xp_stage_set_addresses(struct xp_batch *batch, void *state);
/* cdef end */

#endif
