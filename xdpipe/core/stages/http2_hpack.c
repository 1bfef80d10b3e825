/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header sections of Http2, decoded by libnghttp2 (RFC 7541), which is given their bytes as they come.
 *
 * A direction that sends header sections has a decoder: memory of a fixed size that holds the library's
 * state, from which alone it allocates (nghttp2_mem), and what is kept of the section under way. So
 * forgetting a decoder is all that it takes to end it. A pool holds them; when all are taken, the one
 * that was used longest ago is taken away. A direction without one cannot decode any later section
 * either, since each changes the table that the next one refers to.
 *
 * Left out: whether fields are those that there must be (RFC 9113, 8.3), and all but four of them.
 */
#include "stages/http2_heap.h"
#include "stages/http2_state.h"

#define DECODER 32768   /* bytes */
#define TABLE_MAX 8192  /* bytes of HPACK's table as RFC 7541, 4.1, counts them, up to which it is followed */
#define TABLE_FIRST 4096
#define NO_MEMORY (-901) /* NGHTTP2_ERR_NOMEM */
enum { IS_LAST = 1, IS_FIELD = 2 }; /* NGHTTP2_HD_INFLATE_FINAL, _EMIT */

/* nghttp2_mem and nghttp2_nv of nghttp2.h */
struct mem {
	void *heap;
	void *(*take)(size_t size, void *heap);
	void (*give)(void *p, void *heap);
	void *(*take_zeroed)(size_t n, size_t size, void *heap);
	void *(*resize)(void *p, size_t size, void *heap);
};

struct field {
	uint8_t *name, *value;
	size_t name_len, value_len;
	uint8_t flags;
};

struct decoder {
	struct mem mem;
	void *inflater;
	uint32_t table_max;
	uint16_t status;
	uint8_t has_method, has_status;
	uint32_t method_len, path_len, authority_len;
	uint8_t method[32], authority[256], path[2048];
	struct xp_heap heap;
};

uint32_t xp_http2_decoder_bytes(void)
{
	return DECODER;
}

/* Where the pool's memory for a decoder is not aligned. */
static struct decoder *decoder(const struct packet *k)
{
	uintptr_t at = (uintptr_t)xp_buffer(&k->t->decoders, k->d->decoder);

	return (struct decoder *)((at + 15) / 16 * 16);
}

void xp_http2_give_decoder(struct xp_http2 *t, struct http2_direction *d, uint32_t owner)
{
	if (d->decoder)
		xp_buffer_give(&t->decoders, d->decoder, owner);
	d->decoder = 0;
}

/* From here on nobody can say what the direction's header sections mean. */
void xp_http2_lose_hpack(const struct packet *k)
{
	if (k->d->hpack == HPACK_LOST || !k->t->hpack.create)
		return;
	k->n[N_HPACK_LOST]++;
	k->d->hpack = HPACK_LOST;
	xp_http2_give_decoder(k->t, k->d, k->owner);
}

static int make_decoder(const struct packet *k)
{
	int taken_away = 0;
	struct decoder *own;

	k->d->decoder = xp_buffer_take(&k->t->decoders, k->owner, &taken_away);
	k->n[N_DECODER_TAKEN_AWAY] += (uint64_t)taken_away;
	if (!k->d->decoder)
		return 0;
	own = decoder(k);
	memset(own, 0, sizeof(*own));
	xp_heap_init(&own->heap, DECODER - 16 - (uint32_t)sizeof(*own));
	own->mem = (struct mem){&own->heap, xp_heap_take, xp_heap_give, xp_heap_take_zeroed,
				xp_heap_resize};
	own->table_max = TABLE_FIRST;
	k->d->hpack = HPACK_KNOWN;
	return k->t->hpack.create(&own->inflater, &own->mem) == 0;
}

static int has_decoder(const struct packet *k)
{
	return k->d->hpack == HPACK_KNOWN &&
	       xp_buffer_is_mine(&k->t->decoders, k->d->decoder, k->owner);
}

void xp_http2_begin_section(const struct packet *k)
{
	struct decoder *own;
	uint32_t wanted;

	if (!k->t->hpack.create || k->d->hpack == HPACK_LOST)
		return;
	if (k->d->hpack == HPACK_FIRST ? !make_decoder(k) : !has_decoder(k)) {
		xp_http2_lose_hpack(k);
		return;
	}
	xp_buffer_touch(&k->t->decoders, k->d->decoder);
	own = decoder(k);
	own->status = 0;
	own->has_method = own->has_status = 0;
	own->method_len = own->path_len = own->authority_len = 0;
	/* a smaller table than announced does no harm: the sender says which size it has (RFC 7541, 4.2) */
	wanted = k->d->table_max < TABLE_MAX ? k->d->table_max : TABLE_MAX;
	if (wanted > own->table_max) {
		own->table_max = wanted;
		if (k->t->hpack.change_table_size(own->inflater, wanted))
			xp_http2_lose_hpack(k);
	}
}

static uint32_t keep(uint8_t *to, uint32_t max, const struct field *f)
{
	uint32_t n = f->value_len < max ? (uint32_t)f->value_len : max;

	memcpy(to, f->value, n);
	return n;
}

static uint16_t status_of(const struct field *f)
{
	const uint8_t *v = f->value;

	for (uint32_t i = 0; i < 3; i++)
		if (f->value_len != 3 || v[i] < '0' || v[i] > '9')
			return 0;
	return (uint16_t)(100 * (v[0] - '0') + 10 * (v[1] - '0') + v[2] - '0');
}

static int is_name(const struct field *f, const char *name, size_t n)
{
	return f->name_len == n && memcmp(f->name, name, n) == 0;
}

static void take_field(struct decoder *own, const struct field *f)
{
	if (f->name_len < 5 || f->name[0] != ':')
		return;
	if (is_name(f, ":method", 7)) {
		own->has_method = 1;
		own->method_len = keep(own->method, sizeof(own->method), f);
	} else if (is_name(f, ":path", 5)) {
		own->path_len = keep(own->path, sizeof(own->path), f);
	} else if (is_name(f, ":authority", 10)) {
		own->authority_len = f->value_len <= 255 ? keep(own->authority, 255, f) : 0;
	} else if (is_name(f, ":status", 7)) {
		own->has_status = 1;
		own->status = status_of(f);
	}
}

/* The section's next bytes. */
void xp_http2_section_bytes(const struct packet *k, const uint8_t *p, uint32_t n, int is_last)
{
	struct decoder *own;
	int told = 0;

	if (k->d->hpack != HPACK_KNOWN)
		return;
	if (!has_decoder(k)) {
		xp_http2_lose_hpack(k);
		return;
	}
	own = decoder(k);
	/* each turn but the last takes bytes or gives a field, for which bytes are due */
	do {
		struct field f;
		ssize_t size;

		told = 0;
		size = k->t->hpack.inflate(own->inflater, &f, &told, p, n, is_last);
		if (size < 0 || (size_t)size > n) {
			if (size != NO_MEMORY)
				xp_http2_malformed(k, XP_HTTP2_MALFORMED_HPACK);
			xp_http2_lose_hpack(k);
			return;
		}
		p += size;
		n -= (uint32_t)size;
		if (told & IS_FIELD)
			take_field(own, &f);
		else if (size == 0)
			return;
	} while (!(told & IS_LAST) && (told & IS_FIELD || n));
}

static xp_text_t lower_case(struct xp_batch *b, const uint8_t *p, uint32_t n)
{
	uint8_t *room = xp_text_room(b, n);

	if (!room)
		return xp_keep_text(b, 0);
	for (uint32_t i = 0; i < n; i++)
		room[i] = p[i] >= 'A' && p[i] <= 'Z' ? p[i] | 32 : p[i];
	return xp_keep_text(b, n);
}

static void put_message(const struct packet *k, const struct decoder *own)
{
	struct xp_batch *b = k->b;
	struct xp_http2 *t = k->t;
	uint32_t i = k->i;
	struct xp_http2_message m = {
		.packet = i, .stream = k->d->section_stream, .dir = (uint8_t)k->dir,
		.kind = k->d->in_section == PUSH_PROMISE ? XP_HTTP2_KIND_PUSH
			: own->has_method		 ? XP_HTTP2_KIND_REQUEST
			: own->has_status		 ? XP_HTTP2_KIND_RESPONSE
							 : XP_HTTP2_KIND_TRAILERS,
		.status = own->status};

	k->n[m.kind == XP_HTTP2_KIND_REQUEST	? N_REQUESTS
	     : m.kind == XP_HTTP2_KIND_RESPONSE ? N_RESPONSES
	     : m.kind == XP_HTTP2_KIND_TRAILERS ? N_TRAILERS
						: N_PUSHES]++;
	m.method = xp_copy_text(b, own->method, own->method_len);
	m.path = xp_copy_text(b, own->path, own->path_len);
	m.authority = lower_case(b, own->authority, own->authority_len);
	k->n[N_TEXTS_LOST] += m.method.len + m.path.len + m.authority.len !=
			      own->method_len + own->path_len + own->authority_len;
	if (t->n_messages < t->sizes.n_messages)
		t->messages[t->n_messages++] = m;
	else
		k->n[N_MESSAGES_LOST]++;
	if (b->http2_n_messages[i]++)
		return;
	b->http2_kind[i] = m.kind;
	b->http2_status[i] = m.status;
	b->http2_method[i] = m.method;
	b->http2_path[i] = m.path;
	b->http2_authority[i] = m.authority;
}

/* All its bytes have come. */
void xp_http2_end_section(const struct packet *k)
{
	static const uint8_t nothing;

	xp_http2_section_bytes(k, &nothing, 0, 1);
	if (k->d->hpack != HPACK_KNOWN)
		return;
	k->t->hpack.end_headers(decoder(k)->inflater);
	put_message(k, decoder(k));
}
