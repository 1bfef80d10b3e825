/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stages give to packets, a verdict and a mark, and which packets they look at by their mark.
 */
#ifndef XP_STAGE_ACTION_H
#define XP_STAGE_ACTION_H

#include "xp_batch.h"

/* cdef begin */
struct xp_action {
	uint32_t mark;
	uint8_t sets_mark; /* 0: the mark stays */
	uint8_t verdict;   /* XP_UNDECIDED: the verdict stays; else that of packets that have none yet */
};

/* Packets of one mark, or all. */
struct xp_only {
	uint32_t mark;
	uint32_t all; /* not 0: whatever their mark */
};
/* cdef end */

static inline void xp_act(const struct xp_batch *b, uint32_t i, struct xp_action action)
{
	uint8_t verdict = b->verdict[i];

	b->verdict[i] = verdict == XP_UNDECIDED ? action.verdict : verdict;
	if (action.sets_mark)
		b->mark[i] = action.mark;
}

/* Is packet i undecided, and one that is looked at? */
static inline int xp_is_chosen(const struct xp_batch *b, uint32_t i, struct xp_only only)
{
	return b->verdict[i] == XP_UNDECIDED && (only.all || b->mark[i] == only.mark);
}

/* Write the places of those of packets from to end - 1 that are looked at; return how many. */
static inline uint32_t xp_select(const struct xp_batch *b, struct xp_only only, uint32_t from,
				 uint32_t end, uint32_t *places)
{
	uint32_t n = 0;

	for (uint32_t i = from; i < end; i++) {
		places[n] = i;
		n += only.all || b->mark[i] == only.mark;
	}
	return n;
}

/* The same of undecided packets. */
static inline uint32_t xp_select_undecided(const struct xp_batch *b, struct xp_only only,
					   uint32_t from, uint32_t end, uint32_t *places)
{
	uint32_t n = 0;

	for (uint32_t i = from; i < end; i++) {
		places[n] = i;
		n += (uint32_t)xp_is_chosen(b, i, only);
	}
	return n;
}

#endif
