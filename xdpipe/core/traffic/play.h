/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Send packets that lie ready, each when it is due, out of a lane: one way by which packets leave, of
 * whatever engine (engine_*.c).
 *
 *   batch -> xp_lay -> block in the lane's memory -> xp_play -> lane->send -> link
 *
 * A block's packets are laid once and sent as often as one likes: sending reads them only.
 */
#ifndef XP_TRAFFIC_PLAY_H
#define XP_TRAFFIC_PLAY_H

#include "xp_batch.h"

#define XP_LAY_PAGE 4096u /* no packet that is shorter lies across two of them */
#define XP_LATE_BINS 640  /* of xp_histogram_bin: up to some 16 s */

/* cdef begin */
/* Packets in the order in which they go, and the part of the lane's memory that they lie in. */
struct xp_laid {
	uint64_t *at;     /* where each begins: bytes from the lane's memory on */
	uint64_t *due_ns; /* when, counted from the first packet of all; not going back */
	uint32_t *len;
	uint32_t *stamp_at; /* offset in the packet of its stamp (probe.h); 0: it has none */
	uint32_t n, room; /* packets, and how many there is room for */
	uint64_t begin, end, used; /* bytes from the lane's memory on */
};

struct xp_lane;
typedef uint32_t xp_send_fn(struct xp_lane *lane, const struct xp_laid *laid, uint32_t first,
			    uint32_t n);
typedef void xp_settle_fn(struct xp_lane *lane);

struct xp_lane {
	xp_send_fn *send;     /* hand over up to n packets; how many were taken */
	xp_settle_fn *settle; /* look which of them are through */
	uint8_t *memory;
	uint64_t taken;
	uint64_t done;    /* of these: their bytes are not read any more */
	uint64_t refused; /* of those done: not sent */
	uint64_t bytes;   /* of those taken */
	uint32_t n_max;   /* packets that one call takes */
	int32_t error;    /* errno that ends it */
};

/* What is to be sent, how far it is, and how late packets were handed over. */
struct xp_play {
	struct xp_lane *lane;
	struct xp_laid **blocks;
	uint32_t n_blocks;
	uint32_t block, at; /* of the next packet */
	uint64_t left;      /* packets; when the blocks are through they begin again */
	uint64_t base_ns;   /* CLOCK_MONOTONIC at which what is due at 0 goes; moves on where lateness is
			     * not made up for, and with each round */
	uint64_t round_ns;  /* that a round of the blocks takes */
	uint64_t catch_up_ns; /* what is later than that is not made up for */
	uint64_t stall_ns;  /* a link that takes nothing for so long is given up */
	uint64_t taken_ns;  /* when it took something last, or nothing was due */
	uint32_t paced;     /* 0: everything is due at once */
	uint32_t chunk;     /* packets at once, at the most */
	uint64_t *late;     /* XP_LATE_BINS of xp_histogram_bin, nanoseconds; of the first of each chunk */
	uint64_t late_max;
	uint32_t stamps;    /* packets that have room for a stamp get one */
	uint64_t next_stamp; /* of the next: stream and number, see xp_probe_stamp */
	volatile uint32_t stop;
};

enum xp_played { XP_PLAY_GOES_ON, XP_PLAY_ALL, XP_PLAY_STOPPED, XP_PLAY_STALLED, XP_PLAY_ERROR };

struct xp_lay {
	const uint64_t *due_ns;   /* of each packet of the batch */
	const uint32_t *stamp_at; /* likewise; NULL: none has a stamp */
	uint32_t lane, n_lanes;   /* a flow goes by one of these */
	uint32_t next;            /* packet to begin with, and then the one where it stopped */
};
uint32_t xp_lay(const struct xp_batch *batch, struct xp_lay *lay, struct xp_lane *to, struct xp_laid *laid);
enum xp_played xp_play(struct xp_play *play, uint64_t until_ns);
uint64_t xp_clock_ns(void);
/* cdef end */

#endif
