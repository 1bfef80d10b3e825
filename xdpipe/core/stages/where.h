/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_WHERE_H
#define XP_STAGE_WHERE_H

#include "stages/action.h"
#include "xp.h"

/* cdef begin */
struct xp_where_state {
	uint64_t *counters;
	const void *program;	       /* struct bpf_insn * */
	xp_bpf_filter_fn *run_program; /* libpcap's bpf_filter */
	struct xp_action matched;
	struct xp_action other;
};
int xp_stage_where(struct xp_batch *batch, void *state);
/* cdef end */

#endif
