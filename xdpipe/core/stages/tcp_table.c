/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/tcp_table.h"

#define EVICT_LOOK_AT 8 /* connections of which the one seen longest ago makes room, */
#define HALF_OPEN_NS 30000000000 /* with one that was never answered so much older than it is */

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

static uint32_t n_buckets(uint32_t n)
{
	uint32_t size = 1;

	while (size < n)
		size *= 2;
	return size;
}

/* How large an arena xp_tcp_table_init wants. */
uint64_t xp_tcp_table_bytes(uint32_t n_connections, uint32_t n_chunks)
{
	return 64 + padded(sizeof(struct xp_tcp_table)) +
	       padded((uint64_t)n_buckets(n_connections) * sizeof(uint32_t)) +
	       padded((uint64_t)n_connections * sizeof(struct connection)) +
	       (uint64_t)n_chunks * sizeof(struct chunk);
}

/* Lay the table out in a zeroed arena. */
struct xp_tcp_table *xp_tcp_table_init(void *arena, uint32_t n_connections, uint32_t n_chunks,
				       uint64_t wait_ns, uint64_t idle_ns, uint64_t secret0,
				       uint64_t secret1)
{
	uint8_t *at = (uint8_t *)(uintptr_t)padded((uintptr_t)arena);
	struct xp_tcp_table *t = (struct xp_tcp_table *)at;

	at += padded(sizeof(*t));
	t->secret[0] = secret0;
	t->secret[1] = secret1;
	t->wait_ns = wait_ns;
	t->idle_ns = idle_ns;
	t->n_connections = n_connections;
	t->n_chunks = n_chunks;
	t->mask = n_buckets(n_connections) - 1;
	t->buckets = (uint32_t *)at;
	at += padded(((uint64_t)t->mask + 1) * sizeof(uint32_t));
	t->connections = (struct connection *)at;
	at += padded((uint64_t)n_connections * sizeof(struct connection));
	t->chunks = (struct chunk *)at;
	return t;
}

/* Chunks in use: kept, or handed on with the last batch. */
uint32_t xp_tcp_n_held(const struct xp_tcp_table *t)
{
	return t->n_held;
}

/* Connections in the table. */
uint32_t xp_tcp_n_connections(const struct xp_tcp_table *t)
{
	return t->n_touched;
}

/* --- the directions that have kept something, oldest first --- */

static struct direction *direction(const struct xp_tcp_table *t, uint32_t place)
{
	return &connection(t, place / 2)->from[place & 1];
}

void xp_tcp_begin_to_hold(struct xp_tcp_table *t, uint32_t place)
{
	struct direction *d = direction(t, place);

	d->older = t->holders.last;
	d->newer = 0;
	if (d->older)
		direction(t, d->older)->newer = place;
	else
		t->holders.first = place;
	t->holders.last = place;
}

void xp_tcp_hold_no_more(struct xp_tcp_table *t, struct direction *d)
{
	if (d->older)
		direction(t, d->older)->newer = d->newer;
	else
		t->holders.first = d->newer;
	if (d->newer)
		direction(t, d->newer)->older = d->older;
	else
		t->holders.last = d->older;
}

void xp_tcp_free_chunk(struct xp_tcp_table *t, uint32_t place)
{
	chunk(t, place)->next = t->free_chunks;
	t->free_chunks = place;
	t->n_held--;
}

/* Throw away what a direction has kept. */
void xp_tcp_throw_away(struct xp_tcp_table *t, struct direction *d, uint64_t *n)
{
	if (!d->held)
		return;
	while (d->held) {
		uint32_t place = d->held;

		d->held = chunk(t, place)->next;
		n[N_THROWN_AWAY_BYTES] += chunk(t, place)->n;
		xp_tcp_free_chunk(t, place);
	}
	d->n_held = 0;
	xp_tcp_hold_no_more(t, d);
}

/* A free chunk, at the cost of the direction that has kept something for longest; 0: only its own. */
uint32_t xp_tcp_take_chunk(struct xp_tcp_table *t, const struct direction *d, uint64_t *n)
{
	uint32_t place;

	if (!t->free_chunks && t->n_chunks_touched < t->n_chunks) {
		t->n_held++;
		return ++t->n_chunks_touched;
	}
	if (!t->free_chunks && t->holders.first && direction(t, t->holders.first) != d)
		xp_tcp_throw_away(t, direction(t, t->holders.first), n);
	place = t->free_chunks;
	if (place) {
		t->free_chunks = chunk(t, place)->next;
		t->n_held++;
	}
	return place;
}

/* --- connections --- */

static uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t mixed(const struct xp_tcp_table *t, const uint8_t *address, uint64_t port)
{
	uint64_t high, low;

	memcpy(&high, address, 8);
	memcpy(&low, address + 8, 8);
	return fold(high ^ t->secret[0], low ^ t->secret[1]) ^ fold(port ^ t->secret[1], t->secret[0]);
}

/* The same for both directions. */
uint32_t xp_tcp_hash(const struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i)
{
	uint64_t s = mixed(t, b->src + 16 * (size_t)i, b->l4_sport[i]);
	uint64_t d = mixed(t, b->dst + 16 * (size_t)i, b->l4_dport[i]);
	uint64_t h = fold(fold(s + d, t->secret[0]) ^ (s ^ d), t->secret[1]);

	return (uint32_t)(h ^ h >> 32);
}

static int is_end(const struct end *e, const uint8_t *address, uint16_t port)
{
	return e->port == port && memcmp(e->address, address, 16) == 0;
}

uint32_t xp_tcp_find(const struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i,
		     uint32_t hash, int end)
{
	uint32_t place = t->buckets[hash & t->mask];

	for (; place; place = connection(t, place)->chained) {
		const struct connection *c = connection(t, place);

		if (c->hash == hash &&
		    is_end(&c->ends[end], b->src + 16 * (size_t)i, b->l4_sport[i]) &&
		    is_end(&c->ends[!end], b->dst + 16 * (size_t)i, b->l4_dport[i]))
			return place;
	}
	return 0;
}

static void take_out(struct xp_tcp_table *t, uint32_t place, uint64_t *n)
{
	struct connection *c = connection(t, place);
	uint32_t *link = &t->buckets[c->hash & t->mask];

	while (*link != place)
		link = &connection(t, *link)->chained;
	*link = c->chained;
	xp_tcp_throw_away(t, &c->from[0], n);
	xp_tcp_throw_away(t, &c->from[1], n);
}

/* The first one that is over, if it still is; 0: none. */
static uint32_t one_that_is_over(struct xp_tcp_table *t)
{
	while (t->over.first) {
		uint32_t place = t->over.first;
		struct connection *c = connection(t, place);

		t->over.first = c->over_next;
		if (!t->over.first)
			t->over.last = 0;
		c->queued = 0;
		if (c->over)
			return place;
	}
	return 0;
}

/* A connection is over: it makes room before any other. */
void xp_tcp_over(struct xp_tcp_table *t, uint32_t place)
{
	struct connection *c = connection(t, place);

	c->over = 1;
	if (c->queued)
		return;
	c->queued = 1;
	c->over_next = 0;
	if (t->over.last)
		connection(t, t->over.last)->over_next = place;
	else
		t->over.first = place;
	t->over.last = place;
}

static uint64_t seems_seen(const struct connection *c)
{
	int answered = c->from[0].is & c->from[1].is & KNOWN;

	if (answered || c->seen_ns < HALF_OPEN_NS)
		return answered ? c->seen_ns : 0;
	return c->seen_ns - HALF_OPEN_NS;
}

/* Of the next few connections the one that was seen longest ago. */
static uint32_t one_to_evict(struct xp_tcp_table *t)
{
	uint32_t oldest = 0;

	for (uint32_t k = 0; k < EVICT_LOOK_AT; k++) {
		uint32_t place = t->hand + 1;

		t->hand = place < t->n_connections ? place : 0;
		if (!oldest || seems_seen(connection(t, place)) < seems_seen(connection(t, oldest)))
			oldest = place;
	}
	return oldest;
}

/* Take a place for the connection of packet i, at the cost of another one if need be. */
uint32_t xp_tcp_add(struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i, uint32_t hash,
		    int end, uint64_t *n)
{
	struct connection *c;
	uint32_t place;

	if (t->n_touched < t->n_connections) {
		place = ++t->n_touched;
	} else {
		place = one_that_is_over(t);
		if (!place) {
			place = one_to_evict(t);
			n[N_EVICTED]++;
		}
		take_out(t, place, n);
	}
	c = connection(t, place);
	memcpy(c->ends[end].address, b->src + 16 * (size_t)i, 16);
	memcpy(c->ends[!end].address, b->dst + 16 * (size_t)i, 16);
	c->ends[end].port = b->l4_sport[i];
	c->ends[!end].port = b->l4_dport[i];
	c->hash = hash;
	memset(c->from, 0, sizeof(c->from));
	c->chained = t->buckets[hash & t->mask];
	t->buckets[hash & t->mask] = place;
	return place;
}
