/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections that TcpStreams follows, and the chunks in which it keeps what came too early.
 *
 * All memory is the table's. Who sends packets cannot make many connections fall on one place of it,
 * since the hash has a secret key. Places count from 1, so that zeroed memory is an empty table.
 */
#ifndef XP_TCP_TABLE_H
#define XP_TCP_TABLE_H

#include "stages/tcp_streams.h"

#define CHUNK 2036 /* bytes in a chunk, which is 2048 */

/* In the order of TcpStreams.counters in xdpipe/stages/tcp_streams.py. */
enum { N_CONNECTIONS, N_MIDDLE, N_ENDED, N_RESET, N_EVICTED, N_BYTES, N_AGAIN, N_EARLY, N_GAPS,
       N_LOST_BYTES, N_THROWN_AWAY_BYTES, N_OUTSIDE, N_FRAGMENTS };

enum { KNOWN = 1, ACKED = 2, ENDS = 4, ENDED = 8 };

struct end {
	uint8_t address[16];
	uint16_t port;
};

struct direction {
	uint8_t is;            /* bits: KNOWN, ... */
	uint8_t n_held;        /* chunks */
	uint8_t n_outside;     /* segments in a row */
	uint32_t next;         /* sequence number of the byte that comes next; if KNOWN */
	uint32_t first;        /* of the first byte */
	uint32_t acked;        /* what the other side has acknowledged; if ACKED */
	uint32_t last;         /* where the stream ends; if ENDS */
	uint32_t lost;         /* bytes before `next` that were given up, not told yet */
	uint32_t held;         /* first chunk of what came early, in the order of the stream */
	uint32_t older, newer; /* directions that have chunks, by when they began to */
	uint64_t held_since_ns;
};

struct connection {
	struct end ends[2];       /* the lesser one first */
	uint8_t opener;           /* which of them opened it */
	uint8_t over;
	uint8_t queued;           /* in the list of those that are over */
	uint32_t hash;
	uint32_t id;              /* 0: never used */
	uint32_t chained;         /* next one of the same bucket */
	uint32_t over_next;
	uint64_t seen_ns;
	struct direction from[2]; /* by end */
};

struct chunk {
	uint32_t seq;
	uint32_t n;
	uint32_t next;
	uint8_t bytes[CHUNK];
};

struct list {
	uint32_t first, last;
};

struct xp_tcp_table {
	uint64_t secret[2];
	uint64_t wait_ns, idle_ns;
	uint32_t n_connections, n_chunks, mask;
	uint32_t n_touched;        /* connections that were ever used, */
	uint32_t n_chunks_touched; /* and chunks */
	uint32_t n_begun;
	uint32_t hand;             /* where the search for one to make room goes on */
	uint32_t n_held;
	uint32_t free_chunks;
	uint32_t handed_on;        /* chunks whose bytes the batch refers to */
	struct list over;
	struct list holders;       /* directions that have chunks: 2 * connection + end; oldest first */
	uint32_t *buckets;
	struct connection *connections;
	struct chunk *chunks;
};

static inline struct connection *connection(const struct xp_tcp_table *t, uint32_t place)
{
	return t->connections + place - 1;
}

static inline struct chunk *chunk(const struct xp_tcp_table *t, uint32_t place)
{
	return t->chunks + place - 1;
}

uint32_t xp_tcp_hash(const struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i);
uint32_t xp_tcp_find(const struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i,
		     uint32_t hash, int end);
uint32_t xp_tcp_add(struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i, uint32_t hash,
		    int end, uint64_t *n);
void xp_tcp_over(struct xp_tcp_table *t, uint32_t place);
uint32_t xp_tcp_take_chunk(struct xp_tcp_table *t, const struct direction *d, uint64_t *n);
void xp_tcp_free_chunk(struct xp_tcp_table *t, uint32_t place);
void xp_tcp_begin_to_hold(struct xp_tcp_table *t, uint32_t direction_place);
void xp_tcp_hold_no_more(struct xp_tcp_table *t, struct direction *d);
void xp_tcp_throw_away(struct xp_tcp_table *t, struct direction *d, uint64_t *n);

#endif
