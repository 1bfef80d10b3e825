/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_MEASURE_H
#define XP_STAGE_MEASURE_H

#include "stages/action.h"

/* cdef begin */
enum xp_measure_layout {
	XP_MEASURE_LATENCY_BITS = 47, /* ages of stamps are below 2^47 ns */
	XP_MEASURE_SLOT_SHIFT = 20,   /* a slot of time is 2^20 ns (1 ms) at first */
};

/* What came in a span of time. */
struct xp_measure_slot {
	uint64_t packets;
	uint64_t bytes;
	uint64_t latency_sum; /* ns */
	uint64_t latency_max;
};

/* A run: all that came with its number. Of packets that came the first time, but for what is in streams. */
struct xp_measure_run {
	uint32_t run;
	uint32_t slot_shift; /* slots are 1 << slot_shift ns wide, */
	uint64_t slot_base;  /* and the first begins at slot_base << slot_shift */
	uint64_t packets;
	uint64_t bytes;
	uint64_t early; /* of these, stamped later than now: they are in no bin */
	uint64_t first_ns;
	uint64_t last_ns;
	uint64_t latency_sum;
	uint64_t least;
	uint64_t greatest;
	uint64_t *bins;
	struct xp_measure_slot *slots;
};

/* A stream of a run. */
struct xp_measure_stream {
	uint32_t tag; /* run << 8 | stream */
	uint32_t place; /* of its run */
	uint64_t next; /* one more than the highest number that came */
	uint64_t lowest;
	uint64_t in_order;
	uint64_t reordered;
	uint64_t duplicates;
	uint64_t too_late;
	uint64_t extent_sum;
	uint64_t extent_max;
	uint64_t *seen;	  /* bit n % window: number n came, of the `window` numbers below next */
	uint32_t *passed; /* [n % window], where n did not come: how many had when one above it came first */
};

struct xp_measure_state {
	uint64_t *counters;
	struct xp_action action; /* of stamped packets */
	uint32_t run;	      /* the one that is looked for, */
	uint32_t any_run;	      /* unless any is */
	uint32_t sub_bits;	      /* of the bins, see xp_log_bin */
	uint32_t window;	      /* a power of two, 64 or more */
	uint32_t n_slots;
	uint32_t n_runs;
	uint32_t n_streams;
	uint32_t runs_used;
	uint32_t streams_used;
	uint32_t latest; /* place of the stream that was found last */
	struct xp_measure_run *runs;
	struct xp_measure_stream *streams;
};
int xp_stage_measure(struct xp_batch *batch, void *state);
/* cdef end */

#endif
