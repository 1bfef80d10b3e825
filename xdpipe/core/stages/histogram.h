/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_HISTOGRAM_H
#define XP_STAGE_HISTOGRAM_H

#include "stages/action.h"

#define XP_HISTOGRAM_SUB_BITS 5
#define XP_HISTOGRAM_BINS ((64 - XP_HISTOGRAM_SUB_BITS + 1) << XP_HISTOGRAM_SUB_BITS)

/* cdef begin */
enum xp_histogram_kind {
	XP_HISTOGRAM_U8,
	XP_HISTOGRAM_U16,
	XP_HISTOGRAM_U32,
	XP_HISTOGRAM_U64,
	XP_HISTOGRAM_I32,
};
struct xp_histogram_state {
	uint64_t *counters;
	struct xp_only only;
	uint32_t column; /* number in xp_columns */
	uint32_t kind;   /* of its values: enum xp_histogram_kind */
	/* Bin k counts values from edges[k] on, below edges[k + 1]; behind the edges comes the highest
	 * number that there is, up to a power of two. NULL: bins of a width that grows with the value,
	 * see xp_histogram_bin. */
	const uint64_t *edges;
	uint32_t n_edges;
	uint32_t n_steps; /* 1 << n_steps is that power */
	uint64_t *bins;
	uint64_t least; /* of all values, those above and below the edges as well; */
	uint64_t greatest;
	uint64_t sum_low; /* and their sum, 128 bits */
	uint64_t sum_high;
};
uint32_t xp_histogram_bin(uint64_t value);
int xp_stage_histogram(struct xp_batch *batch, void *state);
/* cdef end */

/*
 * Which bin a value is in, as HdrHistogram (Tene) has them: 2^sub_bits of equal width for each power of two. Its
 * sub_bits bits behind the first, and how many follow.
 */
static inline uint32_t xp_log_bin(uint64_t value, uint32_t sub_bits)
{
	uint32_t shift;

	if (value < 1u << sub_bits)
		return (uint32_t)value;
	shift = 63 - sub_bits - (uint32_t)__builtin_clzll(value);
	return (shift << sub_bits) + (uint32_t)(value >> shift);
}

#endif
