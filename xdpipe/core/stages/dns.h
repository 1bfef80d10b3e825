/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_DNS_H
#define XP_STAGE_DNS_H

#include "xp_batch.h"

/* cdef begin */
struct xp_dns_streams;
struct xp_dns_state {
	uint64_t *counters;
	struct xp_dns_streams *streams; /* NULL: no TcpStreams stands before it */
	uint16_t ports[8]; /* XP_DNS_PORTS; those that are not needed repeat another */
	uint8_t scratch[1024]; /* XP_DNS_TEXT_ROOM; where a batch has no room for a text */
};
int xp_stage_dns(struct xp_batch *batch, void *state);
/* cdef end */

#define XP_DNS_PORTS 8

#endif
