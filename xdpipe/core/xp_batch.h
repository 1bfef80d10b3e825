/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch of packets, as stages see it: what a stage written in C needs, and all that it needs. The
 * part between the cdef marks is also what cffi reads (build.py).
 *
 *   int run(struct xp_batch *b, void *state)
 *
 * looks at packets 0 to b->n - 1, reads columns as b->name[i], decides by b->verdict[i], and returns 0,
 * or a negative number that is counted as an error. It allocates nothing, blocks on nothing, and reads
 * and writes of a packet only what xp_within or xp_within_any say is there. xp_packet.h has functions
 * that see to it: xp_u16(b, i, at) loads, xp_put stores, xp_drop(b, i) and its kin decide.
 *
 * A stage of a user's in C (CStage) is
 *
 *   int NAME(struct xp_batch *b, struct xp_own *own)
 *
 * where struct xp_own is made of what the stage declares: own->counters->NAME, own->state, and by their
 * names the columns of users' stages, its own and those that it requires. Rows of its own columns are 0
 * as it begins, unless a stage before it declares them, too; the state is 0 at first and kept from batch
 * to batch. Other memory there is none; static variables would be shared by all chains of a process.
 */
#ifndef XP_BATCH_H
#define XP_BATCH_H

#include <stdint.h>
#include <string.h>

#include "columns.h"

struct xp_batch;

/* cdef begin */
enum xp_verdict { XP_UNDECIDED, XP_DROP, XP_TX, XP_PASS, XP_FORWARD };

/* A text: b->texts[at] to b->texts[at + len - 1]. */
typedef struct xp_text {
	uint32_t at;
	uint32_t len;
} xp_text_t;

/* Where in the packet something is: it moves with the headers when a VLAN tag comes or goes
 * (stages/set_vlan.c). */
typedef int32_t xp_offset_t;

typedef int xp_stage_fn(struct xp_batch *batch, void *state);

/* Bytes of a TCP stream that come next in it, in a packet or kept from an earlier one. */
struct xp_piece {
	const uint8_t *p;
	uint32_t n;
	uint32_t lost; /* bytes before them that never came */
};
/* cdef end */

#define XP_ABSENT 0x40000000
#define XP_HEADROOM 64 /* bytes that are left free before each packet of a capture */
#define XP_PIECES_KEPT 3 /* pieces from earlier packets in a batch, for each packet of its capacity */
#define XP_TEXT_ROOM 4096 /* bytes of texts that a batch has, for each packet of its capacity */

/*
 * Packets by column. Allocated once; columns hold `capacity` entries of which the first n are
 * valid. The batch owns the frames of its packets from xp_receive to xp_dispatch.
 */
struct xp_batch {
	uint32_t n;
	uint32_t capacity;
	uint32_t port; /* number of the port that its packets came by */
	uint64_t now_ns; /* of a batch without packets: when none came; CLOCK_REALTIME, or 0 */
	uint8_t *base; /* packet i begins with base[addr[i]] .. base[addr[i] + head_len[i] - 1] */
	uint64_t size; /* bytes at base */
	/* The further frames of packets that came in several: those of packet i are more[i] ..
	 * more[i] + n_frames[i] - 2. */
	uint64_t *more_addr;
	int32_t *more_len;
	uint32_t n_more;
	uint32_t more_capacity;
	uint32_t n_checksums_due;
	uint32_t partial_checksums; /* packets may come with checksums that nobody filled in */
	/* Packets that have left since the batch before, of those whose time was wanted. */
	uint64_t *sent_tag;
	uint64_t *sent_time_ns;
	uint32_t n_sent;
	uint32_t sent_capacity;
	uint32_t n_tx_times_due;
	uint32_t tx_times;        /* NIC or kernel tell when a packet leaves, */
	uint32_t tx_times_wanted; /* and a stage has asked at least once */
	struct xp_taps *taps;     /* that look on; NULL: none */
	/* The bytes of columns of type xp_text_t, one behind the other; forgotten as the next batch is
	 * received. */
	uint8_t *texts;
	uint32_t n_text;
	uint32_t text_capacity;
	/* Of packet i: pieces[tcp_pieces[i]] to pieces[tcp_pieces[i] + tcp_n_pieces[i] - 1]. */
	struct xp_piece *pieces;
	uint32_t n_pieces;
#define X(name, type, width, writable, by, doc) type *name;
	XP_COLUMNS(X)
#undef X
};

/*
 * A packet grows at its start, into the headroom[i] bytes before it, which are nobody's: what takes n
 * of them takes them from addr[i] and headroom[i] and adds them to len[i] and head_len[i], and moves
 * what is in columns of xp_offset_t (stages/set_vlan.c). In a frame of the UMEM that is what the
 * kernel keeps before a packet, but for the bytes that xdpipe uses itself (frames.h); captures and
 * Batch.load leave XP_HEADROOM; elsewhere, where the bytes before a packet may be another's, it is 0.
 */
static inline uint8_t *xp_packet(const struct xp_batch *b, uint32_t i)
{
	return b->base + b->addr[i];
}

/* Do the `size` bytes at offset `at` lie within the first frame of packet i, which is all of most
 * packets? Then they are at xp_packet(b, i) + at. */
static inline int xp_within(const struct xp_batch *b, uint32_t i, int32_t at, uint32_t size)
{
	return at >= 0 && (int64_t)at + size <= b->head_len[i];
}

/* Do they lie within packet i, in whichever of its frames? Then each is at xp_byte. */
static inline int xp_within_any(const struct xp_batch *b, uint32_t i, int32_t at, uint32_t size)
{
	return at >= 0 && (int64_t)at + size <= b->len[i];
}

/* The byte at offset `at` of packet i, which lies within it; *run is how many follow in a row. */
static inline uint8_t *xp_byte(const struct xp_batch *b, uint32_t i, int32_t at, int32_t *run)
{
	uint32_t k = b->more[i];

	if (at < b->head_len[i]) {
		*run = b->head_len[i] - at;
		return xp_packet(b, i) + at;
	}
	for (at -= b->head_len[i]; at >= b->more_len[k]; k++)
		at -= b->more_len[k];
	*run = b->more_len[k] - at;
	return b->base + b->more_addr[k] + at;
}

static inline uint16_t xp_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t xp_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	return v;
}

static inline uint64_t xp_get64(const uint8_t *p)
{
	return (uint64_t)xp_get32(p) << 32 | xp_get32(p + 4);
}

/*
 * Room for a text of so many bytes; NULL: there is none left. What is written there becomes a column's
 * value by xp_keep_text.
 */
static inline uint8_t *xp_text_room(const struct xp_batch *b, uint32_t size)
{
	return b->text_capacity - b->n_text >= size ? b->texts + b->n_text : NULL;
}

/* Keep the first n bytes of the room that was asked for. */
static inline xp_text_t xp_keep_text(struct xp_batch *b, uint32_t n)
{
	xp_text_t text = {b->n_text, n};

	b->n_text += n;
	return text;
}

/* Keep a copy of n bytes; an empty text where there is no room. */
static inline xp_text_t xp_copy_text(struct xp_batch *b, const uint8_t *p, uint32_t n)
{
	uint8_t *room = xp_text_room(b, n);

	if (!room)
		n = 0;
	else
		memcpy(room, p, n);
	return xp_keep_text(b, n);
}

static inline void xp_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

#endif
