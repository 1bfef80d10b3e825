/* SPDX-License-Identifier: Apache-2.0 */
/* What Http2 knows of connections, and what its parts take turns at. */
#ifndef XP_HTTP2_STATE_H
#define XP_HTTP2_STATE_H

#include "stages/buffers.h"
#include "stages/http2.h"

/* RFC 9113, 6. Whatever is not among them is to be ignored (5.5). */
enum frame_type { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY,
		  WINDOW_UPDATE, CONTINUATION, OTHER_TYPE };
enum frame_flags { ACK = 0x01, END_HEADERS = 0x04, PADDED = 0x08, HAS_PRIORITY = 0x20 };

/* In the order of Http2.counters in xdpipe/stages/http2.py; N_FRAMES_DATA and behind, one a type; behind
 * malformed, one a reason. */
enum { N_CONNECTIONS, N_NOT_HTTP2, N_FRAMES, N_FRAMES_DATA,
       N_OPENED = N_FRAMES_DATA + OTHER_TYPE + 1, N_CLIENT_RESETS, N_SERVER_RESETS, N_REQUESTS,
       N_RESPONSES, N_TRAILERS, N_PUSHES, N_GIVEN_UP, N_HPACK_LOST, N_DECODER_TAKEN_AWAY,
       N_FRAMES_LOST, N_SETTINGS_LOST, N_MESSAGES_LOST, N_TEXTS_LOST, N_RAPID_RESETS, N_CONTINUATION_FLOODS,
       N_CONTROL_FLOODS, N_FLOOD_PACKETS, N_MALFORMED };

enum phase { FIRST, PREFACE, HEADER, PAYLOAD, OVER };
enum hpack_phase { HPACK_FIRST, HPACK_KNOWN, HPACK_LOST };

#define FRAME_HEADER 9
#define FRAME_MAX 16384 /* unless the other end says more (RFC 9113, 4.2) */

struct http2_direction {
	uint8_t phase;
	uint8_t n_have;     /* bytes of `bytes`, or of the preface */
	uint8_t n_wanted;   /* so many are to be there before anything can be said */
	uint8_t bytes[FRAME_HEADER]; /* of a frame's header, or of the fields before its contents */
	uint8_t type;       /* of the frame under way, and so on */
	uint8_t flags;
	uint8_t in_section; /* a header section is not at its end: HEADERS or PUSH_PROMISE */
	uint8_t hpack;
	uint8_t has_gaps;   /* bytes were missed */
	uint8_t is_first;   /* its first frame has not come */
	uint32_t stream, length;
	uint32_t remaining; /* bytes of the frame that are still to come, */
	uint32_t fragment;  /* and of them those of the header section */
	uint32_t highest;   /* stream that it has opened */
	uint32_t section_frame_stream, section_stream; /* differ for PUSH_PROMISE */
	uint32_t section_len, n_continuations;
	uint32_t decoder;
	uint32_t frame_max; /* what the other end has said of frames, */
	uint32_t table_max; /* and of HPACK's table */
};

struct http2_connection {
	uint32_t id;
	uint8_t is_http2;
	uint8_t client; /* dir of TcpStreams that is the client's */
	uint8_t flood;
	uint8_t seen;   /* bits: directions of which packets come by here */
	uint32_t n_opened;
	uint32_t n_reset[2];
	uint64_t reset_due_ns, control_due_ns; /* see xp_http2_exceeds */
	struct http2_direction directions[2];  /* as TcpStreams has them */
};

struct xp_http2 {
	struct xp_http2_sizes sizes;
	struct xp_hpack hpack;
	struct xp_http2_limits limits;
	struct xp_buffers decoders;
	struct xp_http2_frame *frames;
	struct xp_http2_setting *settings;
	struct xp_http2_message *messages;
	uint32_t n_frames, n_settings, n_messages;
	struct http2_connection connections[];
};

/* A packet of a connection. */
struct packet {
	struct xp_batch *b;
	struct xp_http2 *t;
	uint64_t *n;
	uint32_t i;
	struct http2_connection *c;
	struct http2_direction *d, *other;
	uint32_t dir;   /* 0: from the client; as long as that is not known, as TcpStreams has it */
	uint32_t owner; /* number of the direction, from 1 on */
};

static inline void xp_http2_malformed(const struct packet *k, uint8_t reason)
{
	if (!k->b->http2_malformed[k->i])
		k->b->http2_malformed[k->i] = reason;
	k->n[N_MALFORMED]++;
	k->n[N_MALFORMED + reason]++;
}

/* Take what is still wanted of the few bytes that are put together. */
static inline uint32_t xp_http2_collect(struct http2_direction *d, const uint8_t *p, uint32_t n)
{
	uint32_t wanted = (uint32_t)d->n_wanted - d->n_have;
	uint32_t size = n < wanted ? n : wanted;

	memcpy(d->bytes + d->n_have, p, size);
	d->n_have += (uint8_t)size;
	return size;
}

void xp_http2_begin_frame(const struct packet *k);
uint32_t xp_http2_frame_bytes(const struct packet *k, const uint8_t *p, uint32_t n);
void xp_http2_skip(const struct packet *k, uint32_t lost);

uint8_t xp_http2_stream_fault(const struct packet *k);
void xp_http2_note_reset(const struct packet *k);
void xp_http2_note_control(const struct packet *k);
void xp_http2_exceeded(const struct packet *k, uint8_t flood, uint32_t counter);

uint32_t xp_http2_decoder_bytes(void);
void xp_http2_begin_section(const struct packet *k);
void xp_http2_section_bytes(const struct packet *k, const uint8_t *p, uint32_t n, int is_last);
void xp_http2_end_section(const struct packet *k);
void xp_http2_lose_hpack(const struct packet *k);
void xp_http2_give_decoder(struct xp_http2 *t, struct http2_direction *d, uint32_t owner);

#endif
