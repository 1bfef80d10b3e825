/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Http1: where messages of HTTP/1 begin and end (RFC 9112, 6 and 7), and what their heads
 * say (http1_head.c).
 *
 * A direction whose first bytes are a start line is followed, by whatever port. A head that is whole in a
 * segment is read where it lies, another one is put together in a buffer. Bodies are not read but counted
 * off: by Content-Length, chunk by chunk, or to the end of the connection. A response needs to know what
 * it answers: HEAD has no body, CONNECT ends HTTP; so each connection has a queue of methods.
 *
 * What contradicts itself, as in request smuggling, ends the reading of its direction, since nobody can
 * say where the next message begins. Left out: bodies, trailers, chunk extensions; what follows an
 * Upgrade or CONNECT.
 */
#include "stages/buffers.h"
#include "stages/http1_head.h"

#define BUFFER 16384
#define TARGET_MAX 2048
#define METHOD_MAX 24 /* bytes of a start line before its first space; longer ones are not HTTP */
#define ASKED_MAX 32  /* requests under way whose methods are known */

/* In the order of Http1.counters in xdpipe/stages/http1.py; behind malformed, one a reason. */
enum { N_REQUESTS, N_RESPONSES, N_NOT_HTTP, N_PUT_TOGETHER, N_GIVEN_UP,
       N_BUFFER_TAKEN_AWAY, N_MESSAGES_LOST, N_TEXTS_LOST, N_MALFORMED };

enum phase { FIRST, HEAD, BODY, TO_THE_END, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_DATA_END, TRAILERS,
	     OVER };

enum asked { ASKED_OTHER, ASKED_HEAD, ASKED_CONNECT };

struct http_direction {
	uint32_t id;
	uint8_t phase;
	uint8_t digits;     /* of a chunk's size */
	uint16_t line;      /* bytes of the line under way, CR not counted, 3 at the most */
	uint32_t buffer;
	uint32_t n_have;
	uint64_t remaining; /* bytes of the body or chunk */
};

struct http_connection {
	struct http_direction directions[2];
	uint64_t asked; /* two bits a request, the next to be answered lowest */
	uint32_t n_asked;
};

struct xp_http1 {
	uint32_t n;
	uint32_t n_messages, messages_max;
	struct xp_buffers buffers;
	struct xp_http1_message *messages;
	struct http_connection connections[];
};

struct packet {
	struct xp_batch *b;
	struct xp_http1 *t;
	uint64_t *n;
	uint32_t i;
	struct http_connection *c;
	struct http_direction *d;
	uint32_t owner;
};

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

uint64_t xp_http1_bytes(uint32_t n_connections, uint32_t n_buffers, uint32_t n_messages)
{
	return 64 + padded(sizeof(struct xp_http1) + (uint64_t)n_connections * sizeof(struct http_connection)) +
	       padded((uint64_t)n_messages * sizeof(struct xp_http1_message)) +
	       xp_buffers_bytes(n_buffers, BUFFER);
}

/* Lay it out in a zeroed arena of xp_http1_bytes. */
struct xp_http1 *xp_http1_init(void *arena, uint32_t n_connections, uint32_t n_buffers,
			       uint32_t n_messages)
{
	uint8_t *at = (uint8_t *)(uintptr_t)padded((uintptr_t)arena);
	struct xp_http1 *t = (struct xp_http1 *)at;

	t->n = n_connections;
	t->messages_max = n_messages;
	at += padded(sizeof(*t) + (uint64_t)n_connections * sizeof(struct http_connection));
	t->messages = (struct xp_http1_message *)at;
	at += padded((uint64_t)n_messages * sizeof(struct xp_http1_message));
	xp_buffers_init(&t->buffers, at, n_buffers, BUFFER);
	return t;
}

/* The messages of the last batch; they refer to its texts. */
const struct xp_http1_message *xp_http1_messages(const struct xp_http1 *t, uint32_t *n)
{
	*n = t->n_messages;
	return t->messages;
}

static void give_buffer(const struct packet *k)
{
	if (k->d->buffer)
		xp_buffer_give(&k->t->buffers, k->d->buffer, k->owner);
	k->d->buffer = k->d->n_have = 0;
}

static void end(const struct packet *k)
{
	give_buffer(k);
	k->d->phase = OVER;
}

static void malformed(const struct packet *k, uint8_t reason)
{
	if (!k->b->http_malformed[k->i])
		k->b->http_malformed[k->i] = reason;
	k->n[N_MALFORMED]++;
	k->n[N_MALFORMED + reason]++;
	end(k);
}

/* --- what was asked, so that answers are understood --- */

static void note_asked(struct http_connection *c, const struct head *h)
{
	uint64_t asked = ASKED_OTHER;

	if (h->method.n == 4 && memcmp(h->method.p, "HEAD", 4) == 0)
		asked = ASKED_HEAD;
	else if (h->method.n == 7 && memcmp(h->method.p, "CONNECT", 7) == 0)
		asked = ASKED_CONNECT;
	if (c->n_asked < ASKED_MAX)
		c->asked |= asked << 2 * c->n_asked;
	c->n_asked++;
}

static enum asked take_asked(struct http_connection *c)
{
	enum asked asked = (enum asked)(c->asked & 3);

	if (c->n_asked) {
		c->n_asked--;
		c->asked >>= 2;
	}
	return asked;
}

/* --- a head that is whole --- */

static xp_text_t lower_case(struct xp_batch *b, struct text_at text)
{
	uint8_t *room = text.n <= 255 ? xp_text_room(b, text.n) : NULL;

	if (!room)
		return xp_keep_text(b, 0);
	for (uint32_t i = 0; i < text.n; i++)
		room[i] = text.p[i] >= 'A' && text.p[i] <= 'Z' ? text.p[i] | 32 : text.p[i];
	return xp_keep_text(b, text.n);
}

static void put_message(const struct packet *k, const struct head *h)
{
	struct xp_batch *b = k->b;
	struct xp_http1 *t = k->t;
	uint32_t i = k->i;
	uint32_t target = h->target.n < TARGET_MAX ? h->target.n : TARGET_MAX;
	struct xp_http1_message m = {
		.packet = i, .kind = h->kind, .version = h->version, .status = h->status,
		.content_length = h->content_length};

	if (h->kind == XP_HTTP1_KIND_REQUEST) {
		m.method = xp_copy_text(b, h->method.p, h->method.n);
		m.target = xp_copy_text(b, h->target.p, target);
		m.host = lower_case(b, h->host);
		k->n[N_TEXTS_LOST] += (uint64_t)(m.method.len < h->method.n) + (m.target.len < target) +
				      (m.host.len < h->host.n);
	}
	if (t->n_messages < t->messages_max)
		t->messages[t->n_messages++] = m;
	else
		k->n[N_MESSAGES_LOST]++;
	if (b->http_n_messages[i]++)
		return;
	b->http_kind[i] = m.kind;
	b->http_version[i] = m.version;
	b->http_status[i] = m.status;
	b->http_content_length[i] = m.content_length;
	b->http_method[i] = m.method;
	b->http_target[i] = m.target;
	b->http_host[i] = m.host;
}

/* What comes behind the head (RFC 9112, 6.3). */
static void begin_body(const struct packet *k, const struct head *h)
{
	struct http_direction *d = k->d;
	int is_response = h->kind == XP_HTTP1_KIND_RESPONSE;

	d->phase = HEAD;
	if (is_response) {
		enum asked asked;

		if (h->status == 101) {
			end(k); /* another protocol from here on, in both directions */
			return;
		}
		if (h->status < 200)
			return; /* the answer itself is still to come */
		asked = take_asked(k->c);
		if (asked == ASKED_CONNECT && h->status < 300) {
			end(k);
			return;
		}
		if (asked == ASKED_HEAD || h->status == 204 || h->status == 304)
			return;
	} else {
		note_asked(k->c, h);
	}
	if (h->chunked) {
		d->phase = CHUNK_SIZE;
		d->digits = 0;
		d->remaining = 0;
	} else if (h->content_length > 0) {
		d->phase = BODY;
		d->remaining = (uint64_t)h->content_length;
	} else if (is_response && h->content_length < 0) {
		d->phase = TO_THE_END;
	}
}

static void read_head(const struct packet *k, const uint8_t *p, uint32_t n)
{
	int is_first = k->d->phase == FIRST;
	struct head h;

	xp_http1_parse_head(p, n, &h);
	if (h.kind == XP_HTTP1_KIND_NONE) {
		if (is_first) {
			k->n[N_NOT_HTTP]++;
			end(k);
		} else {
			malformed(k, XP_HTTP1_MALFORMED_START_LINE);
		}
		return;
	}
	k->n[h.kind == XP_HTTP1_KIND_REQUEST ? N_REQUESTS : N_RESPONSES]++;
	put_message(k, &h);
	if (h.malformed)
		malformed(k, h.malformed);
	else
		begin_body(k, &h);
}

/*
 * How many of n bytes belong to the head, up to and with its empty line; 0: that is still to come. The
 * direction keeps how long the line under way is.
 */
static uint32_t head_size(struct http_direction *d, const uint8_t *p, uint32_t n)
{
	uint32_t at = 0;

	while (at < n) {
		const uint8_t *end = memchr(p + at, '\n', n - at);
		uint32_t stop = end ? (uint32_t)(end - p) : n;
		uint32_t size = stop - at;

		if (size == 1 && p[at] == '\r')
			size = 0;
		size += d->line;
		if (!end) {
			d->line = (uint16_t)(size < 3 ? size : 3);
			return 0;
		}
		d->line = 0;
		at = stop + 1;
		if (size == 0)
			return at;
	}
	return 0;
}

/* Can a start line begin like this? What is before the first space tells. */
static int may_be_start_line(const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n && i < METHOD_MAX; i++) {
		if (p[i] == ' ')
			return i > 0;
		if (p[i] <= ' ' || p[i] > '~')
			return 0;
	}
	return n < METHOD_MAX;
}

/* Keep n bytes of a head that is not whole; 0: that is not possible. */
static int keep(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http_direction *d = k->d;

	if (!d->buffer) {
		int taken_away = 0;

		d->buffer = xp_buffer_take(&k->t->buffers, k->owner, &taken_away);
		k->n[N_BUFFER_TAKEN_AWAY] += (uint64_t)taken_away;
	}
	if (!xp_buffer_is_mine(&k->t->buffers, d->buffer, k->owner)) {
		k->n[N_GIVEN_UP]++;
		end(k);
		return 0;
	}
	if (n > BUFFER - d->n_have) {
		if (d->phase == FIRST) {
			k->n[N_NOT_HTTP]++;
			end(k);
		} else {
			malformed(k, XP_HTTP1_MALFORMED_SECTION_LONG);
		}
		return 0;
	}
	memcpy(xp_buffer(&k->t->buffers, d->buffer) + d->n_have, p, n);
	d->n_have += n;
	return 1;
}

/* Returns how many bytes were of the head. */
static uint32_t head_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http_direction *d = k->d;
	uint32_t size;

	if (d->n_have == 0 && (p[0] == '\r' || p[0] == '\n'))
		return 1; /* RFC 9112, 2.2: empty lines before a start line are to be ignored */
	if (d->n_have == 0 && !may_be_start_line(p, n)) {
		if (d->phase == FIRST) {
			k->n[N_NOT_HTTP]++;
			end(k);
		} else {
			malformed(k, XP_HTTP1_MALFORMED_START_LINE);
		}
		return n;
	}
	size = head_size(d, p, n);
	if (size && d->n_have == 0) {
		read_head(k, p, size);
		return size;
	}
	if (!keep(k, p, size ? size : n))
		return n;
	if (!size)
		return n;
	k->n[N_PUT_TOGETHER]++;
	read_head(k, xp_buffer(&k->t->buffers, d->buffer), d->n_have);
	give_buffer(k);
	return size;
}

/* --- bodies --- */

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void end_message(const struct packet *k)
{
	k->d->phase = HEAD;
	k->d->line = 0;
}

/* One byte of a chunk's size, or of what stands behind it up to the line's end (RFC 9112, 7.1). */
static void chunk_size_byte(const struct packet *k, uint8_t c)
{
	struct http_direction *d = k->d;
	int digit = d->phase == CHUNK_SIZE ? hex_digit(c) : -1;

	if (digit >= 0 && d->digits < 15) {
		d->remaining = d->remaining << 4 | (uint64_t)digit;
		d->digits++;
	} else if (digit >= 0 || d->digits == 0) {
		malformed(k, XP_HTTP1_MALFORMED_CHUNK);
	} else if (c == '\n') {
		d->phase = d->remaining ? CHUNK_DATA : TRAILERS;
		d->line = 0;
	} else if (d->phase == CHUNK_SIZE && c != '\r' && c != ';' && c != ' ' && c != '\t') {
		malformed(k, XP_HTTP1_MALFORMED_CHUNK);
	} else {
		d->phase = CHUNK_EXTENSION;
	}
}

static uint32_t chunked_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http_direction *d = k->d;
	uint32_t size = 1;

	switch (d->phase) {
	case CHUNK_SIZE:
	case CHUNK_EXTENSION:
		chunk_size_byte(k, p[0]);
		break;
	case CHUNK_DATA:
		size = n < d->remaining ? n : (uint32_t)d->remaining;
		d->remaining -= size;
		if (d->remaining == 0) {
			d->phase = CHUNK_DATA_END;
			d->digits = 0;
		}
		break;
	case CHUNK_DATA_END:
		if (p[0] == '\n')
			d->phase = CHUNK_SIZE;
		else if (p[0] != '\r')
			malformed(k, XP_HTTP1_MALFORMED_CHUNK);
		break;
	case TRAILERS:
		size = head_size(d, p, n);
		if (size)
			end_message(k);
		else
			size = n;
		break;
	}
	return size;
}

static void take_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct http_direction *d = k->d;

	while (n && d->phase != OVER) {
		uint32_t size = n;

		switch (d->phase) {
		case FIRST:
		case HEAD:
			size = head_bytes(k, p, n);
			break;
		case BODY:
			size = n < d->remaining ? n : (uint32_t)d->remaining;
			d->remaining -= size;
			if (d->remaining == 0)
				end_message(k);
			break;
		case TO_THE_END:
			break;
		default:
			size = chunked_bytes(k, p, n);
		}
		p += size;
		n -= size;
	}
}

/* So many bytes never came: those of a body need not be known. */
static void skip(const struct packet *k, uint32_t lost)
{
	struct http_direction *d = k->d;
	int in_body = d->phase == BODY || d->phase == CHUNK_DATA;

	if (d->phase == TO_THE_END || (in_body && lost < d->remaining)) {
		d->remaining -= in_body ? lost : 0;
		return;
	}
	k->n[N_GIVEN_UP] += d->phase != OVER;
	end(k);
}

static void begin(struct xp_http1 *t, uint32_t place, uint32_t id)
{
	struct http_connection *c = t->connections + place;

	for (uint32_t dir = 0; dir < 2; dir++)
		if (c->directions[dir].buffer)
			xp_buffer_give(&t->buffers, c->directions[dir].buffer, 2 * place + dir + 1);
	memset(c, 0, sizeof(*c));
	c->directions[0].id = c->directions[1].id = id;
}

static void look_at(struct xp_batch *b, struct xp_http1 *t, uint32_t i, uint64_t *n)
{
	uint32_t place = b->tcp_stream[i] - 1, dir = b->tcp_stream_dir[i];
	struct packet k = {b, t, n, i, NULL, NULL, 2 * place + dir + 1};
	const struct xp_piece *piece = b->pieces + b->tcp_pieces[i];

	if (place >= t->n)
		return;
	k.c = t->connections + place;
	k.d = k.c->directions + dir;
	if (k.d->id != b->tcp_stream_id[i])
		begin(t, place, b->tcp_stream_id[i]);
	for (uint32_t p = 0; p < b->tcp_n_pieces[i] && k.d->phase != OVER; p++, piece++) {
		if (piece->lost)
			skip(&k, piece->lost);
		take_bytes(&k, piece->p, piece->n);
	}
	if (b->tcp_stream_told[i] & (XP_TCP_ENDS | XP_TCP_RESET))
		end(&k);
}

int xp_stage_http1(struct xp_batch *b, void *state)
{
	struct xp_http1_state *s = state;
	const xp_text_t none = {0, 0};

	s->http->n_messages = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		b->http_kind[i] = b->http_malformed[i] = b->http_version[i] = 0;
		b->http_n_messages[i] = b->http_status[i] = 0;
		b->http_content_length[i] = -1;
		b->http_method[i] = b->http_target[i] = b->http_host[i] = none;
		if (b->tcp_stream[i] &&
		    (b->tcp_n_pieces[i] || b->tcp_stream_told[i] & (XP_TCP_ENDS | XP_TCP_RESET)))
			look_at(b, s->http, i, s->counters);
	}
	return 0;
}
