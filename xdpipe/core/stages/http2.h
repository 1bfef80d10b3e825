/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_HTTP2_H
#define XP_STAGE_HTTP2_H

#include <sys/types.h>

#include "stages/action.h"

/* cdef begin */
/* HPACK by libnghttp2: nghttp2_hd_inflate_new2, _change_table_size, _hd2 and _end_headers. */
struct xp_hpack {
	int (*create)(void **inflater, void *mem);
	int (*change_table_size)(void *inflater, size_t size);
	ssize_t (*inflate)(void *inflater, void *field, int *told, const uint8_t *in, size_t n,
			   int is_last);
	int (*end_headers)(void *inflater);
};

/* One comes each `interval_ns`, and as many at once as that is in tolerance_ns, and one; 0: no bound. */
struct xp_http2_limit {
	uint64_t interval_ns;
	uint64_t tolerance_ns;
};

struct xp_http2_limits {
	struct xp_http2_limit resets, control;
	uint32_t n_continuations; /* in a header section, at the most */
	uint32_t section_len;     /* bytes of one, at the most */
	struct xp_action exceeded;
};

/* One frame of the batch. */
struct xp_http2_frame {
	uint32_t packet;
	uint32_t stream;
	uint32_t length;
	uint32_t value;
	uint8_t dir; /* 0: from the client */
	uint8_t type;
	uint8_t flags;
	uint8_t zero;
};

/* One setting of a SETTINGS frame of the batch. */
struct xp_http2_setting {
	uint32_t packet;
	uint32_t value;
	uint16_t id;
	uint8_t dir;
	uint8_t zero;
};

/* One header section of the batch. */
struct xp_http2_message {
	uint32_t packet; /* in which it ended */
	uint32_t stream;
	uint8_t kind;
	uint8_t dir;
	uint16_t status;
	xp_text_t method, path, authority;
};

/* How many there is room for. */
struct xp_http2_sizes {
	uint32_t n_connections, n_decoders, n_frames, n_messages;
};

struct xp_http2;
struct xp_http2_state {
	uint64_t *counters;
	struct xp_http2 *http;
};
uint64_t xp_http2_bytes(struct xp_http2_sizes sizes);
struct xp_http2 *xp_http2_init(void *arena, struct xp_http2_sizes sizes, struct xp_hpack hpack,
			       struct xp_http2_limits limits);
const struct xp_http2_frame *xp_http2_frames(const struct xp_http2 *http, uint32_t *n);
const struct xp_http2_setting *xp_http2_settings(const struct xp_http2 *http, uint32_t *n);
const struct xp_http2_message *xp_http2_messages(const struct xp_http2 *http, uint32_t *n);
int xp_stage_http2(struct xp_batch *batch, void *state);
/* cdef end */

#endif
