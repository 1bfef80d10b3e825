/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_MAP_ADDRESSES_H
#define XP_STAGE_MAP_ADDRESSES_H

#include "stages/action.h"
#include "stages/addresses.h"

/* cdef begin */
/* Addresses that are `from` where `care` has bits, and what becomes of them. Of IPv4 the first 4
 * bytes. */
struct xp_ip_map {
	uint8_t from[16];
	uint8_t care[16];
	struct xp_new_address to;
};

struct xp_mac_map {
	uint8_t from[6];
	uint8_t to[6];
};

/* Ports first to last; they become to, to + step, to + 2 step, ... */
struct xp_port_map {
	uint16_t first, last, to;
	uint16_t step; /* 1, or 0: all become one */
};

/* The first one of a list that fits counts. */
struct xp_map_addresses_state {
	uint64_t *counters; /* mapped, unmatched, left_alone */
	struct xp_only only;
	uint32_t n_ipv4, n_ipv6, n_macs, n_ports;
	struct xp_ip_map ipv4[64];
	struct xp_ip_map ipv6[64];
	struct xp_mac_map macs[64];
	struct xp_port_map ports[64];
};
int xp_stage_map_addresses(struct xp_batch *batch, void *state);
/* cdef end */

#endif
