/* SPDX-License-Identifier: Apache-2.0 */
/* The ways by which packets leave: lanes of play.h, each a struct that begins with one. */
#ifndef XP_TRAFFIC_ENGINES_H
#define XP_TRAFFIC_ENGINES_H

#include "traffic/play.h"
#include "xp.h"

/* cdef begin */
/* AF_XDP TX: descriptors that point to where packets lie in the UMEM, which is the lane's memory. */
struct xp_xdp_lane {
	struct xp_lane lane;
	struct xp_worker *worker; /* of one port, and no frames */
	uint8_t *is_last;         /* of the descriptors under way, by their number */
	uint32_t mask;            /* of that list, whose length is a power of two */
	uint32_t chunk;           /* bytes of the UMEM's chunks */
	uint64_t n_submitted, n_completed; /* descriptors */
	uint64_t n_not_sent;      /* of the worker's tx_dropped, those told already */
};
void xp_xdp_lane_init(struct xp_xdp_lane *lane);

/* Live frames: packets that the kernel makes, fills from a map and puts on a link or into its stack. */
struct xp_live_lane {
	struct xp_lane lane;
	struct xp_emit *emit; /* the map's value; the lane's memory lies in it */
	int32_t prog_fd;
	uint32_t ifindex; /* of the link; it seems to have received them as well */
	uint32_t batch;   /* packets that the kernel hands on at once */
};
void xp_live_lane_init(struct xp_live_lane *lane, int into_stack);
uint64_t xp_emit_bytes(void);
uint64_t xp_emit_memory_size(void);

/* A packet socket: anywhere, one copy and one allocation a packet. */
struct xp_socket_lane {
	struct xp_lane lane;
	int32_t fd;
};
void xp_socket_lane_init(struct xp_socket_lane *lane);
/* cdef end */

#endif
