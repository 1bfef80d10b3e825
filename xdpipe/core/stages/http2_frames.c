/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One frame of Http2 (RFC 9113, 4.1 and 6): its header, the fields before its contents, and what is wrong with
 * them. Each kind of contents is taken as it comes; only SETTINGS says anything about later frames.
 */
#include "stages/http2_state.h"

#define FRAME_MOST 16777215
#define STREAM_MASK 0x7fffffff

/* RFC 9113, 6.5.2 */
enum { SETTING_TABLE_SIZE = 1, SETTING_ENABLE_PUSH, SETTING_MAX_STREAMS, SETTING_WINDOW,
       SETTING_FRAME_MAX };

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
void xp_http2_begin_frame(const struct packet *k)
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

/* Bytes of the frame under way; returns how many were taken. */
uint32_t xp_http2_frame_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http2_direction *d = k->d;
	uint32_t size = n < d->remaining ? n : d->remaining;

	if (d->n_wanted) {
		size = xp_http2_collect(d, p, size);
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

/* So many bytes of the frame under way never came: they need not be known to find the next one. */
void xp_http2_skip(const struct packet *k, uint32_t lost)
{
	struct http2_direction *d = k->d;

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
