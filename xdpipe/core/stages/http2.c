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
 * are cut. Nothing of a frame is put together but its header and the few bytes before its contents:
 * HPACK is given the bytes of header sections as they come (http2_hpack.c), others are counted off.
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
#define FRAME_MAX 16384 /* unless the other end says more (RFC 9113, 4.2) */
#define FRAME_MOST 16777215
#define TABLE_SIZE 4096
#define STREAM_MASK 0x7fffffff
#define PREFETCH_AHEAD 8

/* RFC 9113, 6.5.2 */
enum { SETTING_TABLE_SIZE = 1, SETTING_ENABLE_PUSH, SETTING_MAX_STREAMS, SETTING_WINDOW,
       SETTING_FRAME_MAX };

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

/* --- frames --- */

static int has_section(uint8_t type)
{
	return type == HEADERS || type == CONTINUATION || type == PUSH_PROMISE;
}

/* Frames with a value are told when that has come. */
static int has_value(uint8_t type)
{
	return type == RST_STREAM || type == WINDOW_UPDATE || type == GOAWAY || type == PUSH_PROMISE;
}

static void tell_frame(const struct packet *k, uint32_t value)
{
	struct xp_http2 *t = k->t;
	const struct http2_direction *d = k->d;
	uint32_t i = k->i;

	if (t->n_frames < t->sizes.n_frames)
		t->frames[t->n_frames++] = (struct xp_http2_frame){
			.packet = i, .stream = d->stream, .length = d->length, .value = value,
			.dir = (uint8_t)k->dir, .type = d->type, .flags = d->flags};
	else
		k->n[N_FRAMES_LOST]++;
	if (k->b->http2_n_frames[i]++)
		return;
	k->b->http2_frame_type[i] = d->type;
	k->b->http2_frame_flags[i] = d->flags;
	k->b->http2_frame_len[i] = d->length;
	k->b->http2_stream_id[i] = d->stream;
}

static void take_setting(const struct packet *k)
{
	struct xp_http2 *t = k->t;
	struct http2_direction *other = k->other;
	uint16_t id = xp_get16(k->d->bytes);
	uint32_t value = xp_get32(k->d->bytes + 2);
	int fault = 0;

	if (t->n_settings < t->sizes.n_frames)
		t->settings[t->n_settings++] = (struct xp_http2_setting){
			.packet = k->i, .id = id, .value = value, .dir = (uint8_t)k->dir};
	else
		k->n[N_SETTINGS_LOST]++;
	switch (id) {
	case SETTING_TABLE_SIZE:
		if (value > other->table_max)
			other->table_max = value;
		break;
	case SETTING_ENABLE_PUSH:
		fault = value > 1 || (value && k->dir);
		break;
	case SETTING_WINDOW:
		fault = value > STREAM_MASK;
		break;
	case SETTING_FRAME_MAX:
		fault = value < FRAME_MAX || value > FRAME_MOST;
		/* until the other end has heard of less, it may send as long ones as before */
		if (!fault && value > other->frame_max)
			other->frame_max = value;
		break;
	}
	if (fault)
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_SETTING);
}

static void take_promise(const struct packet *k, uint32_t stream)
{
	struct http2_direction *d = k->d;

	if (stream == 0 || stream & 1)
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_STREAM_PARITY);
	else if (stream > d->highest)
		d->highest = stream;
	d->section_stream = stream;
}

/* How long the fields before the contents of the frame under way are. */
static uint8_t fields_len(const struct http2_direction *d)
{
	uint8_t padding = !!(d->flags & PADDED);

	switch (d->type) {
	case DATA:
		return padding;
	case HEADERS:
		return (uint8_t)(padding + (d->flags & HAS_PRIORITY ? 5 : 0));
	case PUSH_PROMISE:
		return (uint8_t)(padding + 4);
	case RST_STREAM:
	case WINDOW_UPDATE:
		return 4;
	case GOAWAY:
		return 8;
	case SETTINGS:
		return d->length ? 6 : 0;
	}
	return 0;
}

/* The fields before the contents are there. */
static void read_fields(const struct packet *k)
{
	struct http2_direction *d = k->d;
	const uint8_t *fields = d->bytes;
	uint32_t rest = d->length - d->n_wanted, value = 0;
	uint32_t padding = 0;

	d->n_have = 0;
	if (d->type == SETTINGS) {
		take_setting(k);
		return; /* another one, or the end */
	}
	d->n_wanted = 0;
	if (d->flags & PADDED && (d->type == DATA || d->type == HEADERS || d->type == PUSH_PROMISE))
		padding = *fields++;
	if (padding > rest)
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_PADDING);
	switch (d->type) {
	case RST_STREAM:
		value = xp_get32(fields);
		xp_http2_note_reset(k);
		break;
	case WINDOW_UPDATE:
		value = xp_get32(fields) & STREAM_MASK;
		if (!value)
			xp_http2_malformed(k, XP_HTTP2_MALFORMED_WINDOW_ZERO);
		break;
	case GOAWAY:
		value = xp_get32(fields + 4);
		break;
	case PUSH_PROMISE:
		value = xp_get32(fields) & STREAM_MASK;
		take_promise(k, value);
		break;
	}
	if (has_value(d->type))
		tell_frame(k, value);
	if (d->type != HEADERS && d->type != PUSH_PROMISE)
		return;
	if (padding > rest)
		xp_http2_lose_hpack(k);
	else
		d->fragment = rest - padding;
}

static void end_frame(const struct packet *k)
{
	struct http2_direction *d = k->d;

	d->phase = HEADER;
	d->n_have = 0;
	d->n_wanted = FRAME_HEADER;
	if (!d->in_section || !has_section(d->type) || !(d->flags & END_HEADERS))
		return;
	xp_http2_end_section(k);
	d->in_section = 0;
}

static uint8_t size_fault(const struct http2_direction *d)
{
	uint32_t n = d->length;
	int fault = 0;

	switch (d->type) {
	case PRIORITY:
		fault = n != 5;
		break;
	case RST_STREAM:
	case WINDOW_UPDATE:
		fault = n != 4;
		break;
	case PING:
		fault = n != 8;
		break;
	case SETTINGS:
		fault = d->flags & ACK ? n != 0 : n % 6 != 0;
		break;
	default:
		fault = n < fields_len(d);
	}
	return fault ? XP_HTTP2_MALFORMED_FRAME_SIZE : 0;
}

static uint8_t stream_fault(const struct packet *k)
{
	const struct http2_direction *d = k->d;

	switch (d->type) {
	case SETTINGS:
	case PING:
	case GOAWAY:
		return d->stream ? XP_HTTP2_MALFORMED_STREAM_NOT_ZERO : 0;
	case WINDOW_UPDATE:
		break;
	default:
		if (d->type < OTHER_TYPE && !d->stream)
			return XP_HTTP2_MALFORMED_STREAM_ZERO;
	}
	return xp_http2_stream_fault(k);
}

/* Header sections are HEADERS or PUSH_PROMISE, CONTINUATION, ..., with nothing between (RFC 9113, 6.10). */
static void follow_section(const struct packet *k)
{
	struct http2_direction *d = k->d;
	const struct xp_http2_limits *limits = &k->t->limits;

	if (d->in_section &&
	    (d->type != CONTINUATION || d->stream != d->section_frame_stream)) {
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_CONTINUATION);
		xp_http2_lose_hpack(k);
		d->in_section = 0;
	} else if (!d->in_section && d->type == CONTINUATION) {
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_CONTINUATION);
		xp_http2_lose_hpack(k);
	}
	if (d->type == HEADERS || d->type == PUSH_PROMISE) {
		d->in_section = d->type;
		d->section_frame_stream = d->section_stream = d->stream;
		d->section_len = d->n_continuations = 0;
		xp_http2_begin_section(k);
	}
	if (!d->in_section)
		return;
	if (d->section_len <= limits->section_len)
		d->section_len += d->length;
	d->n_continuations += d->type == CONTINUATION;
	if (d->section_len > limits->section_len || d->n_continuations > limits->n_continuations) {
		xp_http2_exceeded(k, XP_HTTP2_FLOOD_CONTINUATION, N_CONTINUATION_FLOODS);
		xp_http2_lose_hpack(k);
	}
}

/* A frame's header is whole. */
static void begin_frame(const struct packet *k)
{
	struct http2_direction *d = k->d;
	const uint8_t *h = d->bytes;
	uint8_t wrong_size, wrong_stream;

	d->length = d->remaining = (uint32_t)h[0] << 16 | xp_get16(h + 1);
	d->type = h[3];
	d->flags = h[4];
	d->stream = xp_get32(h + 5) & STREAM_MASK;
	d->n_have = d->n_wanted = 0;
	d->fragment = 0;
	d->phase = PAYLOAD;
	k->n[N_FRAMES]++;
	k->n[N_FRAMES_DATA + (d->type < OTHER_TYPE ? d->type : OTHER_TYPE)]++;
	if (d->length > d->frame_max && k->c->seen == 3)
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_FRAME_LONG);
	wrong_size = size_fault(d);
	wrong_stream = stream_fault(k);
	if (wrong_size || wrong_stream)
		xp_http2_malformed(k, wrong_size ? wrong_size : wrong_stream);
	else if (d->type == PUSH_PROMISE && k->dir == 0)
		xp_http2_malformed(k, XP_HTTP2_MALFORMED_PUSH);
	if (d->in_section || has_section(d->type))
		follow_section(k);
	if (wrong_size && has_section(d->type))
		xp_http2_lose_hpack(k);
	if (!wrong_size)
		d->n_wanted = fields_len(d);
	if (has_section(d->type) && d->n_wanted == 0 && d->in_section)
		d->fragment = d->length;
	if (!has_value(d->type) || wrong_size)
		tell_frame(k, 0);
	if (d->type == PING || d->type == SETTINGS || d->type == PRIORITY)
		xp_http2_note_control(k);
	if (d->remaining == 0)
		end_frame(k);
}

/* Take what is still wanted of the few bytes that are put together. */
static uint32_t collect(struct http2_direction *d, const uint8_t *p, uint32_t n)
{
	uint32_t wanted = (uint32_t)d->n_wanted - d->n_have;
	uint32_t size = n < wanted ? n : wanted;

	memcpy(d->bytes + d->n_have, p, size);
	d->n_have += (uint8_t)size;
	return size;
}

/* Bytes of the frame under way; returns how many were taken. */
static uint32_t frame_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http2_direction *d = k->d;
	uint32_t size = n < d->remaining ? n : d->remaining;

	if (d->n_wanted) {
		size = collect(d, p, size);
		if (d->n_have == d->n_wanted)
			read_fields(k);
	} else if (d->fragment) {
		size = size < d->fragment ? size : d->fragment;
		xp_http2_section_bytes(k, p, size, 0);
		d->fragment -= size;
	}
	d->remaining -= size;
	if (d->remaining == 0)
		end_frame(k);
	return size;
}

/* --- how a direction begins --- */

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
	size = collect(d, p, n);
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
		begin_frame(k);
	return size;
}

static uint32_t header_bytes(struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http2_direction *d = k->d;
	uint32_t size = collect(d, p, n);

	if (d->n_have == FRAME_HEADER) {
		if (d->is_first && !begins_with_settings(k))
			return n;
		d->is_first = 0;
		begin_frame(k);
	}
	return size;
}

static void take_bytes(struct packet *k, const uint8_t *p, uint32_t n)
{
	while (n && k->d->phase != OVER) {
		uint32_t size = n;

		switch (k->d->phase) {
		case PAYLOAD:
			size = frame_bytes(k, p, n);
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

/* So many bytes never came. Those of a frame under way need not be known to find the next one. */
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
	if (has_section(d->type) && (d->n_wanted || d->fragment))
		xp_http2_lose_hpack(k);
	if (has_value(d->type) && d->n_wanted) {
		tell_frame(k, 0);
		if (d->type == RST_STREAM)
			xp_http2_note_reset(k);
	}
	d->has_gaps = 1;
	d->n_have = d->n_wanted = 0;
	d->fragment = 0;
	d->remaining -= lost;
	if (d->remaining == 0)
		end_frame(k);
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
