/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_TCP_STREAMS_H
#define XP_STAGE_TCP_STREAMS_H

#include "xp_batch.h"

/* cdef begin */
struct xp_tcp_table;
struct xp_tcp_streams_state {
	uint64_t *counters;
	struct xp_tcp_table *table;
};
uint64_t xp_tcp_table_bytes(uint32_t n_connections, uint32_t n_chunks);
struct xp_tcp_table *xp_tcp_table_init(void *arena, uint32_t n_connections, uint32_t n_chunks,
				       uint64_t wait_ns, uint64_t idle_ns, uint64_t secret0,
				       uint64_t secret1);
uint32_t xp_tcp_n_connections(const struct xp_tcp_table *table);
uint32_t xp_tcp_n_held(const struct xp_tcp_table *table);
int xp_stage_tcp_streams(struct xp_batch *batch, void *state);
/* cdef end */

#endif
