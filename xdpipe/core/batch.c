/* SPDX-License-Identifier: Apache-2.0 */
/* The batch's columns, and what array stages do with whole columns: load, store, decide. */
#include <string.h>

#include "xp.h"
#include "xp_packet.h"

#define ALIGN 64u /* a cache line, so that columns share none */
#define MORE 4    /* further frames that a batch holds, for each packet of its capacity, */
#define MORE_MIN 64 /* and at the least: one packet has fewer (MAX_SKB_FRAGS) */
#define SENT 8 /* times of sending that a batch tells, for each packet of its capacity */

const struct xp_column xp_columns[] = {
#define X(name, type, width, writable, by, doc)                                                    \
	{#name, #type, width, sizeof(type), writable, offsetof(struct xp_batch, name), by, doc},
	XP_COLUMNS(X)
#undef X
};
const uint32_t xp_n_columns = sizeof(xp_columns) / sizeof(*xp_columns);

const struct xp_name xp_counter_names[] = {
#define X(name, doc) {#name, doc, offsetof(struct xp_counters, name) / sizeof(uint64_t)},
	XP_COUNTERS(X)
#undef X
};
const uint32_t xp_n_counters = sizeof(xp_counter_names) / sizeof(*xp_counter_names);

#define X(name, value, doc) {#name, doc, value},
#define E(column, list) static const struct xp_name column##_names[] = {list(X)};
XP_BITS(E)
#undef X
#define X(name, doc) {#name, doc, 0},
XP_ENUMERATIONS(E)
#undef X
#undef E
const struct xp_enum xp_enums[] = {
#define E(column, list) {#column, column##_names, sizeof(column##_names) / sizeof(*column##_names)},
	XP_BITS(E) XP_ENUMERATIONS(E)
#undef E
};
const uint32_t xp_n_enums = sizeof(xp_enums) / sizeof(*xp_enums);

static uint64_t padded(uint64_t bytes)
{
	return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static uint32_t more_capacity(uint32_t capacity)
{
	return capacity * MORE < MORE_MIN ? MORE_MIN : capacity * MORE;
}

/* Each frame can be one, and so can what TcpStreams has kept. */
static uint64_t n_pieces(uint32_t capacity)
{
	return (uint64_t)XP_PIECES_KEPT * capacity + capacity + more_capacity(capacity);
}

/* How large an arena xp_batch_init wants. */
uint64_t xp_batch_bytes(uint32_t capacity)
{
	uint64_t n_more = more_capacity(capacity);
	uint64_t bytes = padded(sizeof(struct xp_batch)) + ALIGN +
			 padded(n_more * sizeof(uint64_t)) + padded(n_more * sizeof(int32_t)) +
			 2 * padded((uint64_t)SENT * capacity * sizeof(uint64_t)) +
			 padded((uint64_t)XP_TEXT_ROOM * capacity) +
			 padded(n_pieces(capacity) * sizeof(struct xp_piece));

	for (uint32_t i = 0; i < xp_n_columns; i++)
		bytes += padded((uint64_t)xp_columns[i].item_size * xp_columns[i].width * capacity);
	return bytes;
}

/* Lay a batch out in an arena of xp_batch_bytes(capacity), zeroed; packets lie at base. */
struct xp_batch *xp_batch_init(void *arena, uint32_t capacity, uint8_t *base, uint64_t size)
{
	uint8_t *at = (uint8_t *)(uintptr_t)padded((uintptr_t)arena);
	struct xp_batch *b = (struct xp_batch *)at;

	b->n = b->port = 0;
	b->now_ns = 0;
	b->capacity = capacity;
	b->base = base;
	b->size = size;
	at += padded(sizeof(*b));
	for (uint32_t i = 0; i < xp_n_columns; i++) {
		memcpy((uint8_t *)b + xp_columns[i].field, &at, sizeof(at));
		at += padded((uint64_t)xp_columns[i].item_size * xp_columns[i].width * capacity);
	}
	b->n_more = b->n_checksums_due = b->partial_checksums = 0;
	b->n_sent = b->n_tx_times_due = b->tx_times = b->tx_times_wanted = 0;
	b->taps = NULL;
	b->more_capacity = more_capacity(capacity);
	b->more_addr = (uint64_t *)at;
	at += padded(b->more_capacity * sizeof(uint64_t));
	b->more_len = (int32_t *)at;
	at += padded(b->more_capacity * sizeof(int32_t));
	b->sent_capacity = SENT * capacity;
	b->sent_tag = (uint64_t *)at;
	at += padded(b->sent_capacity * sizeof(uint64_t));
	b->sent_time_ns = (uint64_t *)at;
	at += padded(b->sent_capacity * sizeof(uint64_t));
	b->pieces = (struct xp_piece *)at;
	b->n_pieces = 0;
	at += padded(n_pieces(capacity) * sizeof(struct xp_piece));
	b->texts = at;
	b->n_text = 0;
	b->text_capacity = XP_TEXT_ROOM * capacity;
	return b;
}

/* Say of all packets of the batch that they lie in one piece. */
void xp_batch_whole(struct xp_batch *b)
{
	b->n_more = b->n_text = 0;
	xp_forget_checksums(b);
	xp_forget_tx_times(b);
	for (uint32_t i = 0; i < b->n; i++) {
		b->head_len[i] = b->len[i];
		b->n_frames[i] = 1;
		b->mark[i] = 0;
	}
}

/* From now on packets may come with checksums that nobody filled in. */
void xp_batch_may_be_partial(struct xp_batch *b)
{
	b->partial_checksums = 1;
}

/* From now on it is told when packets leave. */
void xp_batch_tells_tx_times(struct xp_batch *b)
{
	b->tx_times = 1;
}

uint32_t xp_batch_n_sent(const struct xp_batch *b)
{
	return b->n_sent;
}

uint64_t *xp_batch_sent_tag(struct xp_batch *b)
{
	return b->sent_tag;
}

uint64_t *xp_batch_sent_time_ns(struct xp_batch *b)
{
	return b->sent_time_ns;
}

/* Copy the first n bytes of a packet, which has them, from whichever frames it lies in. */
void xp_batch_read(const struct xp_batch *b, uint32_t packet, uint8_t *out, uint32_t n)
{
	xp_gather(b, packet, 0, out, n);
}

/* From now on these taps look on; NULL: none. */
void xp_batch_set_taps(struct xp_batch *b, struct xp_taps *taps)
{
	b->taps = taps;
}

uint32_t xp_batch_n(const struct xp_batch *b)
{
	return b->n;
}

const uint8_t *xp_batch_texts(const struct xp_batch *b)
{
	return b->texts;
}

uint32_t xp_batch_n_text(const struct xp_batch *b)
{
	return b->n_text;
}

const struct xp_piece *xp_batch_pieces(const struct xp_batch *b)
{
	return b->pieces;
}

uint32_t xp_batch_port(const struct xp_batch *b)
{
	return b->port;
}

/* Its packets came by this port of so many, and FORWARD sends them out of the next. */
void xp_batch_set_port(struct xp_batch *b, uint32_t port, uint32_t n_ports)
{
	b->port = port;
	memset(b->out_port, (int)((port + 1) % n_ports), b->n);
}

void xp_batch_set_n(struct xp_batch *b, uint32_t n)
{
	b->n = n < b->capacity ? n : b->capacity;
}

/* Make it a batch without packets: none came until now. */
void xp_batch_none(struct xp_batch *b, uint64_t now_ns)
{
	b->n = b->n_more = b->n_text = 0;
	b->now_ns = now_ns;
}

void *xp_batch_column(struct xp_batch *b, uint32_t column)
{
	void *at;

	memcpy(&at, (uint8_t *)b + xp_columns[column].field, sizeof(at));
	return at;
}

/*
 * Big-endian loads of 1, 2, 4 or 8 bytes at an offset per packet (step 1) or at one offset for
 * all (step 0). out is uint8_t, uint16_t, uint32_t or uint64_t, n values in host order. Where the
 * value does not lie wholly within the packet, `missing`.
 */
void xp_load(const struct xp_batch *b, const int32_t *offsets, uint32_t step, void *out,
	     uint32_t width, uint64_t missing)
{
#define LOAD(type, read)                                                                           \
	for (uint32_t i = 0; i < b->n; i++) {                                                      \
		uint8_t copy[8];                                                                   \
		const uint8_t *p = xp_readable(b, i, offsets[i * step], sizeof(type), copy);       \
		((type *)out)[i] = p ? (type)read(p) : (type)missing;                              \
	}
	switch (width) {
	case 1:
		LOAD(uint8_t, *)
		break;
	case 2:
		LOAD(uint16_t, xp_get16)
		break;
	case 4:
		LOAD(uint32_t, xp_get32)
		break;
	case 8:
		LOAD(uint64_t, xp_get64)
		break;
	}
#undef LOAD
}

/* out: n rows of `width` bytes as they stand in the packet; bytes beyond its end are 0. */
void xp_load_bytes(const struct xp_batch *b, const int32_t *offsets, uint32_t step, uint8_t *out,
		   uint32_t width)
{
	for (uint32_t i = 0; i < b->n; i++, out += width) {
		int32_t at = offsets[i * step];
		uint32_t there = 0;

		if (at >= 0 && at < b->len[i]) {
			there = (uint32_t)(b->len[i] - at);
			if (there > width)
				there = width;
			xp_gather(b, i, at, out, there);
		}
		memset(out + there, 0, width - there);
	}
}

/*
 * Big-endian stores of 1, 2, 4 or 8 bytes, in packets where `where` is not 0 (NULL: all), and
 * only where the value lies wholly within the packet. fix_checksum: bring the checksum of TCP,
 * UDP, ICMP or ICMPv6 up to date; needs the columns of Headers. Returns how many were written.
 */
uint32_t xp_store(struct xp_batch *b, const int32_t *offsets, uint32_t step,
		  const uint64_t *values, uint32_t value_step, const uint8_t *where,
		  uint32_t width, int fix_checksum)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++)
		if (!where || where[i])
			n += xp_put(b, i, offsets[i * step], values[i * value_step], width,
				    fix_checksum);
	return n;
}

/* Give the undecided packets where `where` is not 0 this verdict. Returns how many. */
uint32_t xp_decide(struct xp_batch *b, const uint8_t *where, uint32_t verdict)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t hit = where[i] && b->verdict[i] == XP_UNDECIDED;

		b->verdict[i] = hit ? (uint8_t)verdict : b->verdict[i];
		n += hit;
	}
	return n;
}

/* Have the undecided packets where `where` is not 0 go out of a port. Returns how many. */
uint32_t xp_forward(struct xp_batch *b, const uint8_t *where, uint32_t port)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (!where[i] || b->verdict[i] != XP_UNDECIDED)
			continue;
		b->verdict[i] = XP_FORWARD;
		b->out_port[i] = (uint8_t)port;
		n++;
	}
	return n;
}

/* Does nothing: a native chain that is empty but for the cost of being one. */
int xp_stage_nothing(struct xp_batch *batch, void *state)
{
	(void)batch;
	(void)state;
	return 0;
}
