/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_HTTP1_H
#define XP_STAGE_HTTP1_H

#include "xp_batch.h"

/* cdef begin */
/* One message of the batch. */
struct xp_http1_message {
	uint32_t packet; /* in which its header section ended */
	uint8_t kind;
	uint8_t version;
	uint16_t status;
	int64_t content_length;
	xp_text_t method, target, host;
};

struct xp_http1;
struct xp_http1_state {
	uint64_t *counters;
	struct xp_http1 *http;
};
uint64_t xp_http1_bytes(uint32_t n_connections, uint32_t n_buffers, uint32_t n_messages);
struct xp_http1 *xp_http1_init(void *arena, uint32_t n_connections, uint32_t n_buffers,
			       uint32_t n_messages);
const struct xp_http1_message *xp_http1_messages(const struct xp_http1 *http, uint32_t *n);
int xp_stage_http1(struct xp_batch *batch, void *state);
/* cdef end */

#endif
