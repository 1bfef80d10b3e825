/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Http2: frames of HTTP/2 in the clear (RFC 9113, 3.4, 4 and 6).
 *
 *   preface    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", from the client alone
 *   frame      length 3, type 1, flags 1, stream 4 (its highest bit is reserved and ignored), and so many
 *              bytes as length says
 *
 * A connection is HTTP/2 if one direction begins with the preface, or with a SETTINGS frame, as a server may
 * that speaks first; any port will do. Each direction follows its frames to their ends, wherever segments
 * are cut (http2_frames.c). Nothing of a frame is put together but its header and the few bytes before its
 * contents: HPACK is given the bytes of header sections as they come (http2_hpack.c), others are counted off.
 *
 * What contradicts itself is flagged and the frames behind it are read, since each says how long it is; but a
 * direction that does not begin with SETTINGS is none of HTTP/2 and is read no further. Where bytes of
 * a frame's contents are missing, the next frame is found by the length of this one; where a frame's header
 * is missing, the direction is given up.
 *
 * Left out: what is inside TLS; HTTP/1.1's Upgrade to h2c, which RFC 9113 has taken out; states of single
 * streams and windows, so a frame of a stream that is closed is not noticed; contents of DATA.
 */
#include "stages/http2_state.h"

#define PREFACE_LEN 24
#define TABLE_SIZE 4096
#define PREFETCH_AHEAD 8

enum { BY_PREFACE = 1, BY_SETTINGS = 2 }; /* is_http2 */

static const uint8_t preface[PREFACE_LEN + 1] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

static uint64_t own_bytes(struct xp_http2_sizes s)
{
	return padded(sizeof(struct xp_http2) +
		      (uint64_t)s.n_connections * sizeof(struct http2_connection));
}

static uint64_t decoders_bytes(struct xp_http2_sizes s)
{
	return xp_buffers_bytes(s.n_decoders, xp_http2_decoder_bytes());
}

uint64_t xp_http2_bytes(struct xp_http2_sizes s)
{
	return 64 + own_bytes(s) + padded((uint64_t)s.n_frames * sizeof(struct xp_http2_frame)) +
	       padded((uint64_t)s.n_frames * sizeof(struct xp_http2_setting)) +
	       padded((uint64_t)s.n_messages * sizeof(struct xp_http2_message)) + decoders_bytes(s);
}

/* Lay it out in a zeroed arena of xp_http2_bytes; hpack.create NULL: header sections are not decoded. */
struct xp_http2 *xp_http2_init(void *arena, struct xp_http2_sizes s, struct xp_hpack hpack,
			       struct xp_http2_limits limits)
{
	uint8_t *at = (uint8_t *)(uintptr_t)padded((uintptr_t)arena);
	struct xp_http2 *t = (struct xp_http2 *)at;

	t->sizes = s;
	t->hpack = hpack;
	t->limits = limits;
	at += own_bytes(s);
	t->frames = (struct xp_http2_frame *)at;
	at += padded((uint64_t)s.n_frames * sizeof(struct xp_http2_frame));
	t->settings = (struct xp_http2_setting *)at;
	at += padded((uint64_t)s.n_frames * sizeof(struct xp_http2_setting));
	t->messages = (struct xp_http2_message *)at;
	at += padded((uint64_t)s.n_messages * sizeof(struct xp_http2_message));
	xp_buffers_init(&t->decoders, at, s.n_decoders, xp_http2_decoder_bytes());
	return t;
}

/* Those of the last batch. */
const struct xp_http2_frame *xp_http2_frames(const struct xp_http2 *t, uint32_t *n)
{
	*n = t->n_frames;
	return t->frames;
}

const struct xp_http2_setting *xp_http2_settings(const struct xp_http2 *t, uint32_t *n)
{
	*n = t->n_settings;
	return t->settings;
}

/* They refer to the batch's texts. */
const struct xp_http2_message *xp_http2_messages(const struct xp_http2 *t, uint32_t *n)
{
	*n = t->n_messages;
	return t->messages;
}

static void end(struct xp_http2 *t, struct http2_direction *d, uint32_t owner)
{
	xp_http2_give_decoder(t, d, owner);
	d->phase = OVER;
}

static void end_both(const struct packet *k)
{
	end(k->t, k->d, k->owner);
	end(k->t, k->other, ((k->owner - 1) ^ 1) + 1);
}

static void is_not_http2(const struct packet *k)
{
	k->n[N_NOT_HTTP2]++;
	k->c->is_http2 = 0;
	end_both(k);
}

static void begin_frames(struct packet *k, uint8_t by, uint32_t dir)
{
	struct http2_connection *c = k->c;

	k->n[N_CONNECTIONS] += !c->is_http2;
	c->is_http2 |= by;
	c->client ^= (uint8_t)(k->dir != dir);
	k->dir = dir;
	k->d->phase = HEADER;
	k->d->is_first = by == BY_PREFACE;
}

static uint32_t preface_bytes(struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http2_direction *d = k->d;
	uint32_t wanted = PREFACE_LEN - (uint32_t)d->n_have;
	uint32_t size = n < wanted ? n : wanted;

	if (memcmp(preface + d->n_have, p, size) != 0) {
		is_not_http2(k);
		return n;
	}
	d->n_have += (uint8_t)size;
	if (d->n_have == PREFACE_LEN) {
		begin_frames(k, BY_PREFACE, 0);
		d->n_have = 0;
	}
	return size;
}

/* What would a frame's header be, but is not SETTINGS without ACK, ends the direction. */
static int begins_with_settings(struct packet *k)
{
	const uint8_t *h = k->d->bytes;

	if (h[3] == SETTINGS && !(h[4] & ACK))
		return 1;
	xp_http2_malformed(k, XP_HTTP2_MALFORMED_FIRST_FRAME);
	end(k->t, k->d, k->owner);
	return 0;
}

static uint32_t first_bytes(struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http2_direction *d = k->d;
	const uint8_t *h = d->bytes;
	uint32_t size;

	if (!(k->c->is_http2 & BY_PREFACE)) {
		if (d->n_have == 0 && p[0] == preface[0]) {
			d->phase = PREFACE;
			return 0;
		}
		/* a server that speaks first, or none: what begins otherwise need not be waited for */
		if (k->c->is_http2 || (d->n_have == 0 && p[0])) {
			is_not_http2(k);
			return n;
		}
	}
	size = xp_http2_collect(d, p, n);
	if (d->n_have < FRAME_HEADER)
		return size;
	if (k->c->is_http2) {
		if (begins_with_settings(k))
			begin_frames(k, BY_SETTINGS, 1);
	} else if (h[3] == SETTINGS && h[4] == 0 && xp_get32(h + 5) == 0 && xp_get16(h + 1) % 6 == 0 &&
		   h[0] == 0 && xp_get16(h + 1) <= FRAME_MAX) {
		begin_frames(k, BY_SETTINGS, 1);
	} else {
		is_not_http2(k);
	}
	if (d->phase == HEADER)
		xp_http2_begin_frame(k);
	return size;
}

static uint32_t header_bytes(struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http2_direction *d = k->d;
	uint32_t size = xp_http2_collect(d, p, n);

	if (d->n_have == FRAME_HEADER) {
		if (d->is_first && !begins_with_settings(k))
			return n;
		d->is_first = 0;
		xp_http2_begin_frame(k);
	}
	return size;
}

static void take_bytes(struct packet *k, const uint8_t *p, uint32_t n)
{
	while (n && k->d->phase != OVER) {
		uint32_t size = n;

		switch (k->d->phase) {
		case PAYLOAD:
			size = xp_http2_frame_bytes(k, p, n);
			break;
		case HEADER:
			size = header_bytes(k, p, n);
			break;
		case PREFACE:
			size = preface_bytes(k, p, n);
			break;
		case FIRST:
			size = first_bytes(k, p, n);
			break;
		}
		p += size;
		n -= size;
	}
}

/* So many bytes never came. */
static void skip(const struct packet *k, uint32_t lost)
{
	struct http2_direction *d = k->d;

	if (d->phase == OVER)
		return;
	if (d->phase != PAYLOAD || lost > d->remaining) {
		if (k->c->is_http2) {
			k->n[N_GIVEN_UP]++;
			end(k->t, d, k->owner);
		} else {
			is_not_http2(k);
		}
		return;
	}
	xp_http2_skip(k, lost);
}

static void begin(struct xp_http2 *t, uint32_t place, uint32_t id)
{
	struct http2_connection *c = t->connections + place;

	for (uint32_t dir = 0; dir < 2; dir++)
		xp_http2_give_decoder(t, c->directions + dir, 2 * place + dir + 1);
	memset(c, 0, sizeof(*c));
	c->id = id;
	for (uint32_t dir = 0; dir < 2; dir++) {
		struct http2_direction *d = c->directions + dir;

		d->n_wanted = FRAME_HEADER;
		d->is_first = 1;
		d->frame_max = FRAME_MAX;
		d->table_max = TABLE_SIZE;
	}
}

static void look_at(struct xp_batch *b, struct xp_http2 *t, uint32_t i, uint64_t *n)
{
	uint32_t place = b->tcp_stream[i] - 1, dir = b->tcp_stream_dir[i];
	const struct xp_piece *piece = b->pieces + b->tcp_pieces[i];
	struct http2_connection *c = t->connections + place;
	struct packet k;

	if (place >= t->sizes.n_connections)
		return;
	if (c->id != b->tcp_stream_id[i])
		begin(t, place, b->tcp_stream_id[i]);
	c->seen |= (uint8_t)(1 << dir);
	k = (struct packet){b, t, n, i, c, c->directions + dir, c->directions + (dir ^ 1),
			    dir ^ c->client, 2 * place + dir + 1};
	for (uint32_t p = 0; p < b->tcp_n_pieces[i] && k.d->phase != OVER; p++, piece++) {
		if (piece->lost)
			skip(&k, piece->lost);
		take_bytes(&k, piece->p, piece->n);
	}
	if (b->tcp_stream_told[i] & XP_TCP_RESET)
		end_both(&k);
	else if (b->tcp_stream_told[i] & XP_TCP_ENDS)
		end(t, k.d, k.owner);
	if (!c->is_http2)
		return;
	b->http2_n_opened[i] = c->n_opened;
	b->http2_n_reset[i] = c->n_reset[0];
	b->http2_n_server_reset[i] = c->n_reset[1];
	if (!c->flood || k.dir)
		return;
	b->http2_flood[i] = c->flood;
	n[N_FLOOD_PACKETS]++;
	/* that the client is gone the server is to know */
	if (!(b->tcp_stream_told[i] & XP_TCP_RESET))
		xp_act(b, i, t->limits.exceeded);
}

int xp_stage_http2(struct xp_batch *b, void *state)
{
	struct xp_http2_state *s = state;
	struct xp_http2 *t = s->http;
	const xp_text_t none = {0, 0};

	t->n_frames = t->n_settings = t->n_messages = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		if (i + PREFETCH_AHEAD < b->n && b->tcp_stream[i + PREFETCH_AHEAD])
			__builtin_prefetch(t->connections + b->tcp_stream[i + PREFETCH_AHEAD] - 1);
		b->http2_n_frames[i] = b->http2_n_messages[i] = b->http2_status[i] = 0;
		b->http2_frame_type[i] = b->http2_frame_flags[i] = 0;
		b->http2_frame_len[i] = b->http2_stream_id[i] = 0;
		b->http2_n_opened[i] = b->http2_n_reset[i] = b->http2_n_server_reset[i] = 0;
		b->http2_flood[i] = b->http2_malformed[i] = b->http2_kind[i] = 0;
		b->http2_method[i] = b->http2_path[i] = b->http2_authority[i] = none;
		if (b->tcp_stream[i])
			look_at(b, t, i, s->counters);
	}
	return 0;
}
