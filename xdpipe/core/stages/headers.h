/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_HEADERS_H
#define XP_STAGE_HEADERS_H

#include "xp_batch.h"

/* cdef begin */
int xp_stage_headers(struct xp_batch *batch, void *state); /* struct xp_counts_state */
/* cdef end */

uint32_t xp_flow_hash_anew(const struct xp_batch *b, uint32_t i);

#endif
