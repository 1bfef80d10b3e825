/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Tls: records (RFC 8446, 5.1; RFC 5246, 6.2.1), hellos, alerts in the clear.
 *
 *   record     type 1, version 2, length 2, so many bytes
 *   handshake  type 1, length 3, so many bytes; over several records, or several in one
 *
 * A stream is TLS if it begins with a record; any port will do. Each direction follows its records to
 * their ends, wherever segments are cut, and reads the first handshake message if it is a hello; after a
 * HelloRetryRequest, the next one of both sides. A hello that is whole in a segment is read where it lies,
 * another one is put together in a buffer. Where bytes of a record are missing, the next one is found by
 * the length of this one; where a record's header is, the direction is given up.
 *
 * Left out: what is encrypted; SSL 2.0's hello; DTLS and QUIC; what begins in the clear (STARTTLS).
 */
#include "stages/buffers.h"
#include "stages/tls_ja4.h"

#define RECORD_HEADER 5
#define RECORD_MAX (16384 + 2048) /* RFC 5246, 6.2.3; TLS 1.3 has 256 instead of 2048 */
#define HANDSHAKE_HEADER 4
#define BUFFER 16384 /* bytes of a hello, with its header, at the most */

enum { TYPE_FIRST = 20, TYPE_ALERT = 21, TYPE_HANDSHAKE = 22, TYPE_LAST = 24 };

/* In the order of Tls.counters in xdpipe/stages/tls.py; behind malformed, one a reason. */
enum { N_STREAMS, N_NOT_TLS, N_RECORDS, N_CLIENT_HELLOS, N_SERVER_HELLOS, N_RETRIES, N_ALERTS,
       N_PUT_TOGETHER, N_GIVEN_UP, N_BUFFER_TAKEN_AWAY, N_NO_JA4, N_TEXTS_LOST, N_MALFORMED };

enum phase { BEGINS, RECORDS, OVER };

struct tls_direction {
	uint32_t id;        /* of its connection; another one there begins anew */
	uint8_t phase;
	uint8_t hello_done; /* no further hello is looked for */
	uint8_t again;      /* a ClientHello was read, another one may follow */
	uint8_t type;       /* of the record under way */
	uint8_t n_header;   /* bytes of a record's header that are there */
	uint8_t header[RECORD_HEADER];
	uint8_t alert;      /* first byte of one that is cut */
	uint16_t record_len;
	uint16_t remaining; /* bytes of the record that are still to come */
	uint32_t buffer;    /* where a hello is put together */
	uint32_t n_have;    /* bytes of it */
	uint32_t n_wanted;  /* bytes of it in all; 0: its header is not whole */
};

struct xp_tls {
	uint32_t n; /* directions */
	struct xp_buffers buffers;
	struct xp_ja4 ja4;
	struct tls_direction directions[];
};

struct packet {
	struct xp_batch *b;
	struct xp_tls *t;
	uint64_t *n;
	uint32_t i;
	struct tls_direction *d;
	uint32_t owner; /* number of the direction, from 1 */
};

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

uint64_t xp_tls_bytes(uint32_t n_connections, uint32_t n_buffers)
{
	return 64 + padded(sizeof(struct xp_tls) + 2 * (uint64_t)n_connections * sizeof(struct tls_direction)) +
	       xp_buffers_bytes(n_buffers, BUFFER);
}

/* Lay it out in a zeroed arena of xp_tls_bytes; sha256.init NULL: no fingerprints. */
struct xp_tls *xp_tls_init(void *arena, uint32_t n_connections, uint32_t n_buffers,
			   struct xp_sha256 sha256, uint64_t secret)
{
	uint8_t *at = (uint8_t *)(uintptr_t)padded((uintptr_t)arena);
	struct xp_tls *t = (struct xp_tls *)at;

	t->n = 2 * n_connections;
	t->ja4.sha256 = sha256;
	t->ja4.secret = secret;
	at += padded(sizeof(*t) + (uint64_t)t->n * sizeof(struct tls_direction));
	xp_buffers_init(&t->buffers, at, n_buffers, BUFFER);
	return t;
}

static void malformed(const struct packet *k, uint8_t reason)
{
	if (!k->b->tls_malformed[k->i])
		k->b->tls_malformed[k->i] = reason;
	k->n[N_MALFORMED]++;
	k->n[N_MALFORMED + reason]++;
}

static void give_buffer(const struct packet *k)
{
	if (k->d->buffer)
		xp_buffer_give(&k->t->buffers, k->d->buffer, k->owner);
	k->d->buffer = k->d->n_have = k->d->n_wanted = 0;
}

static void end(const struct packet *k)
{
	give_buffer(k);
	k->d->phase = OVER;
}

/* --- a hello that is whole --- */

static xp_text_t lower_case(struct xp_batch *b, struct xp_bytes text)
{
	uint8_t *room = xp_text_room(b, text.n);

	if (!room)
		return xp_keep_text(b, 0);
	for (uint32_t i = 0; i < text.n; i++)
		room[i] = text.p[i] >= 'A' && text.p[i] <= 'Z' ? text.p[i] | 32 : text.p[i];
	return xp_keep_text(b, text.n);
}

/* The protocols with commas between. */
static xp_text_t joined(struct xp_batch *b, struct xp_bytes alpn)
{
	uint8_t *room = alpn.n ? xp_text_room(b, alpn.n) : NULL;
	uint32_t n = 0;

	for (uint32_t at = 0; room && at < alpn.n; at += 1 + alpn.p[at]) {
		if (n)
			room[n++] = ',';
		memcpy(room + n, alpn.p + at + 1, alpn.p[at]);
		n += alpn.p[at];
	}
	return xp_keep_text(b, n);
}

static xp_text_t extension_types(struct xp_batch *b, const struct hello *h)
{
	uint8_t *room = xp_text_room(b, 2u * h->n_extensions);

	if (!room)
		return xp_keep_text(b, 0);
	for (uint32_t i = 0; i < h->n_extensions; i++)
		xp_put16(room + 2 * i, h->extensions[i]);
	return xp_keep_text(b, 2u * h->n_extensions);
}

static void put_columns(const struct packet *k, const struct hello *h)
{
	struct xp_batch *b = k->b;
	uint32_t i = k->i;
	uint8_t *room;

	b->tls_hello[i] = h->kind;
	b->tls_version[i] = h->version;
	b->tls_legacy_version[i] = h->legacy_version;
	b->tls_cipher[i] = h->cipher;
	b->tls_alpn[i] = joined(b, h->alpn);
	b->tls_extensions[i] = extension_types(b, h);
	k->n[N_TEXTS_LOST] += (uint64_t)(h->alpn.n && !b->tls_alpn[i].len) +
			      (b->tls_extensions[i].len < 2u * h->n_extensions);
	if (h->kind != XP_TLS_HELLO_CLIENT)
		return;
	b->tls_sni[i] = lower_case(b, h->sni);
	b->tls_ciphers[i] = xp_copy_text(b, h->ciphers.p, h->ciphers.n);
	k->n[N_TEXTS_LOST] += (uint64_t)(b->tls_sni[i].len < h->sni.n) + (b->tls_ciphers[i].len < h->ciphers.n);
	if (!k->t->ja4.sha256.init || h->malformed)
		return;
	room = xp_text_room(b, XP_JA4_SIZE);
	if (room && xp_tls_ja4(&k->t->ja4, h, room))
		b->tls_ja4[i] = xp_keep_text(b, XP_JA4_SIZE);
	else
		k->n[N_NO_JA4]++;
}

/* After a HelloRetryRequest the client sends another hello, and then the server. */
static void look_for_another(const struct packet *k)
{
	struct tls_direction *other = k->t->directions + ((k->owner - 1) ^ 1);

	k->d->hello_done = 0;
	if (other->id == k->d->id && other->phase == RECORDS)
		other->hello_done = 0;
}

static void read_hello(const struct packet *k, const uint8_t *message, uint32_t n)
{
	struct hello h;

	xp_tls_parse_hello(message[0], message + HANDSHAKE_HEADER, n - HANDSHAKE_HEADER, &h);
	k->d->hello_done = h.kind != XP_TLS_HELLO_CLIENT || k->d->again;
	k->d->again = h.kind == XP_TLS_HELLO_CLIENT;
	k->n[h.kind == XP_TLS_HELLO_CLIENT   ? N_CLIENT_HELLOS
	     : h.kind == XP_TLS_HELLO_SERVER ? N_SERVER_HELLOS
					     : N_RETRIES]++;
	if (!k->b->tls_hello[k->i])
		put_columns(k, &h);
	if (h.malformed)
		malformed(k, h.malformed);
	else if (h.kind == XP_TLS_HELLO_RETRY)
		look_for_another(k);
}

/* --- handshake bytes --- */

/* How long is the hello that begins here? 0: it is none, or longer than there is room for. */
static uint32_t hello_size(const struct packet *k, const uint8_t *message)
{
	uint32_t size = HANDSHAKE_HEADER + ((uint32_t)message[1] << 16 | xp_get16(message + 2));

	if (message[0] != 1 && message[0] != 2)
		return 0;
	if (size <= BUFFER)
		return size;
	malformed(k, XP_TLS_MALFORMED_HELLO_LONG);
	return 0;
}

/* Put n bytes to those that are there already; what is behind the hello is not wanted. */
static void put_together(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct tls_direction *d = k->d;
	uint8_t *message;

	if (!d->buffer) {
		int taken_away = 0;

		d->buffer = xp_buffer_take(&k->t->buffers, k->owner, &taken_away);
		k->n[N_BUFFER_TAKEN_AWAY] += (uint64_t)taken_away;
	}
	if (!xp_buffer_is_mine(&k->t->buffers, d->buffer, k->owner)) {
		d->hello_done = 1;
		d->buffer = d->n_have = d->n_wanted = 0;
		k->n[N_GIVEN_UP]++;
		return;
	}
	message = xp_buffer(&k->t->buffers, d->buffer);
	while (n && !d->hello_done) {
		uint32_t wanted = (d->n_wanted ? d->n_wanted : HANDSHAKE_HEADER) - d->n_have;
		uint32_t size = n < wanted ? n : wanted;

		memcpy(message + d->n_have, p, size);
		d->n_have += size;
		p += size;
		n -= size;
		if (size < wanted)
			return;
		if (!d->n_wanted) {
			d->n_wanted = hello_size(k, message);
			if (!d->n_wanted)
				d->hello_done = 1;
			else if (d->n_wanted > HANDSHAKE_HEADER)
				continue;
		}
		if (!d->hello_done) {
			k->n[N_PUT_TOGETHER]++;
			read_hello(k, message, d->n_wanted);
		}
		give_buffer(k);
		return;
	}
}

/*
 * Where only the client's packets come by, nobody tells of a HelloRetryRequest. So the handshake record
 * behind a ClientHello is looked at as well: is it one from its first byte to its last? What else it may be
 * is another message, in the clear or not.
 */
static int is_another(const struct packet *k, const uint8_t *p, uint32_t n)
{
	return k->d->remaining == k->d->record_len && n >= HANDSHAKE_HEADER && p[0] == 1 &&
	       HANDSHAKE_HEADER + ((uint32_t)p[1] << 16 | xp_get16(p + 2)) == k->d->record_len;
}

static void handshake_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	uint32_t size;

	if (k->d->again && k->d->n_have == 0 && !is_another(k, p, n)) {
		k->d->hello_done = 1;
		return;
	}
	if (k->d->n_have == 0 && n >= HANDSHAKE_HEADER) {
		size = hello_size(k, p);
		if (size == 0) {
			k->d->hello_done = 1;
			return;
		}
		if (size <= n) {
			read_hello(k, p, size);
			return;
		}
	}
	put_together(k, p, n);
}

/* --- records --- */

static void alert_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct tls_direction *d = k->d;
	uint32_t at = d->record_len - d->remaining;

	if (d->record_len != 2)
		return; /* encrypted */
	for (uint32_t i = 0; i < n; i++, at++) {
		if (at == 0) {
			d->alert = p[i];
		} else {
			k->b->tls_alert[k->i] = (uint16_t)(d->alert << 8 | p[i]);
			k->n[N_ALERTS]++;
		}
	}
}

/* A record's header is whole. */
static void begin_record(const struct packet *k)
{
	struct tls_direction *d = k->d;
	uint32_t length = xp_get16(d->header + 3);
	uint8_t type = d->header[0], fault = 0;
	uint32_t i = k->i;

	if (type < TYPE_FIRST || type > TYPE_LAST)
		fault = XP_TLS_MALFORMED_RECORD_TYPE;
	else if (d->header[1] != 3 || d->header[2] > 4)
		fault = XP_TLS_MALFORMED_RECORD_VERSION;
	else if (length > RECORD_MAX || (length == 0 && type == TYPE_HANDSHAKE))
		fault = XP_TLS_MALFORMED_RECORD_LEN;
	if (fault) {
		if (d->phase == BEGINS)
			k->n[N_NOT_TLS]++;
		else
			malformed(k, fault);
		end(k);
		return;
	}
	if (d->phase == BEGINS) {
		k->n[N_STREAMS]++;
		d->phase = RECORDS;
	}
	d->n_header = 0;
	d->type = type;
	d->record_len = d->remaining = (uint16_t)length;
	k->n[N_RECORDS]++;
	if (k->b->tls_n_records[i]++)
		return;
	k->b->tls_record_type[i] = type;
	k->b->tls_record_version[i] = xp_get16(d->header + 1);
	k->b->tls_record_len[i] = (uint16_t)length;
}

static void take_bytes(const struct packet *k, const uint8_t *p, uint32_t n)
{
	struct tls_direction *d = k->d;

	while (n && d->phase != OVER) {
		uint32_t size;

		if (d->remaining == 0) {
			/* what begins otherwise is none: the rest need not come first */
			if (d->phase == BEGINS && d->n_header == 0 &&
			    (p[0] < TYPE_FIRST || p[0] > TYPE_LAST)) {
				k->n[N_NOT_TLS]++;
				end(k);
				return;
			}
			size = n < RECORD_HEADER - (uint32_t)d->n_header ? n : RECORD_HEADER - (uint32_t)d->n_header;
			memcpy(d->header + d->n_header, p, size);
			d->n_header += (uint8_t)size;
			if (d->n_header == RECORD_HEADER)
				begin_record(k);
		} else {
			size = n < d->remaining ? n : d->remaining;
			if (d->type == TYPE_HANDSHAKE && !d->hello_done)
				handshake_bytes(k, p, size);
			else if (d->type == TYPE_ALERT)
				alert_bytes(k, p, size);
			d->remaining -= (uint16_t)size;
		}
		p += size;
		n -= size;
	}
}

/* So many bytes never came. Those of a record under way need not be known, but for a hello's. */
static void skip(const struct packet *k, uint32_t lost)
{
	struct tls_direction *d = k->d;

	if (d->phase == RECORDS && lost <= d->remaining && !d->n_have) {
		if (d->type == TYPE_HANDSHAKE)
			d->hello_done = 1;
		d->remaining -= (uint16_t)lost;
		return;
	}
	k->n[N_GIVEN_UP] += d->phase != OVER;
	end(k);
}

static void begin(struct xp_tls *t, uint32_t direction, uint32_t id)
{
	struct tls_direction *d = t->directions + direction;

	if (d->buffer)
		xp_buffer_give(&t->buffers, d->buffer, direction + 1);
	*d = (struct tls_direction){.id = id};
}

static void look_at(struct xp_batch *b, struct xp_tls *t, uint32_t i, uint64_t *n)
{
	uint32_t direction = 2 * (b->tcp_stream[i] - 1) + b->tcp_stream_dir[i];
	struct packet k = {b, t, n, i, NULL, direction + 1};
	const struct xp_piece *piece = b->pieces + b->tcp_pieces[i];

	if (direction >= t->n)
		return;
	k.d = t->directions + direction;
	if (k.d->id != b->tcp_stream_id[i]) {
		begin(t, direction, b->tcp_stream_id[i]);
		if (t->directions[direction ^ 1].id != b->tcp_stream_id[i])
			begin(t, direction ^ 1, b->tcp_stream_id[i]);
	}
	for (uint32_t p = 0; p < b->tcp_n_pieces[i] && k.d->phase != OVER; p++, piece++) {
		if (piece->lost)
			skip(&k, piece->lost);
		take_bytes(&k, piece->p, piece->n);
	}
	if (b->tcp_stream_told[i] & (XP_TCP_ENDS | XP_TCP_RESET))
		end(&k);
}

/* What the columns say of packets that there is nothing to say of; column by column, which is faster. */
static void clear(struct xp_batch *b)
{
	size_t n = b->n;

	memset(b->tls_record_type, 0, n * sizeof(*b->tls_record_type));
	memset(b->tls_record_version, 0, n * sizeof(*b->tls_record_version));
	memset(b->tls_record_len, 0, n * sizeof(*b->tls_record_len));
	memset(b->tls_n_records, 0, n * sizeof(*b->tls_n_records));
	memset(b->tls_alert, 0, n * sizeof(*b->tls_alert));
	memset(b->tls_hello, 0, n * sizeof(*b->tls_hello));
	memset(b->tls_malformed, 0, n * sizeof(*b->tls_malformed));
	memset(b->tls_version, 0, n * sizeof(*b->tls_version));
	memset(b->tls_legacy_version, 0, n * sizeof(*b->tls_legacy_version));
	memset(b->tls_cipher, 0, n * sizeof(*b->tls_cipher));
	memset(b->tls_sni, 0, n * sizeof(*b->tls_sni));
	memset(b->tls_alpn, 0, n * sizeof(*b->tls_alpn));
	memset(b->tls_ciphers, 0, n * sizeof(*b->tls_ciphers));
	memset(b->tls_extensions, 0, n * sizeof(*b->tls_extensions));
	memset(b->tls_ja4, 0, n * sizeof(*b->tls_ja4));
}

int xp_stage_tls(struct xp_batch *b, void *state)
{
	struct xp_tls_state *s = state;

	clear(b);
	for (uint32_t i = 0; i < b->n; i++)
		if (b->tcp_stream[i] &&
		    (b->tcp_n_pieces[i] || b->tcp_stream_told[i] & (XP_TCP_ENDS | XP_TCP_RESET)))
			look_at(b, s->tls, i, s->counters);
	return 0;
}
