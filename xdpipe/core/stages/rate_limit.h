/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_RATE_LIMIT_H
#define XP_STAGE_RATE_LIMIT_H

#include "stages/action.h"
#include "stages/key.h"

/* cdef begin */
struct xp_rate_limit_entry { /* behind it the key */
	struct xp_entry entry;
	uint64_t level;	  /* tokens in the bucket, in units, */
	uint64_t time_ns; /* at that time */
	uint64_t conforming;
	uint64_t exceeded;
};
struct xp_rate_limit_state {
	uint64_t *counters;
	struct xp_only only;
	const struct xp_key *key;
	struct xp_table *table;
	uint64_t token;	     /* units of one token; 10^9 times the denominator of the rate */
	uint64_t units_a_ns; /* the numerator of the rate: tokens a second */
	uint64_t burst;	     /* tokens of a full bucket, */
	uint64_t full;	     /* and units */
	uint64_t full_ns;    /* in so many an empty bucket is full */
	uint64_t now_ns;     /* the time of the packet before; it never goes back */
	uint64_t put_back_ns; /* by so much has the clock been put back */
	uint32_t by_bytes;
	uint32_t hand;	     /* the entry that is looked at next for one that is idle */
	struct xp_action exceeded;
};
int xp_stage_rate_limit(struct xp_batch *batch, void *state);
/* cdef end */

#endif
