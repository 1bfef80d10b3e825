/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Top: heavy hitters by space-saving (Metwally, Agrawal, El Abbadi, "Efficient
 * Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005).
 *
 * Each of n entries counts for one key. A packet whose key has none takes over the entry with the least
 * count, and goes on from there: that count is by how much the new key's may be too high. The counts
 * sum up to the total N of all packets, so the least one is at most N / n; a key that has more is in,
 * since it is not thrown out below that. This holds for weights (bytes) as for packets.
 *
 * The entries' counts are in a heap with the least on top. Each place has four children, which share a
 * cache line: half as many levels as with two. A count only ever grows, which moves it away from
 * the top: where the traffic is made of few keys, it stays where it is.
 */
#include "stages/top.h"

#define ROOT 3u

/* In the order of Top.counters in xdpipe/stages/top.py. */
enum { N_COUNTED, N_BYTES, N_NO_ROOM, N_SKIPPED, N_KEYS, N_REPLACED };

static struct xp_top_entry *entry_at(const struct xp_top_state *s, uint64_t number)
{
	return (struct xp_top_entry *)xp_table_entry(s->table, (uint32_t)number);
}

static void put_at(struct xp_top_state *s, uint32_t place, struct xp_top_place what)
{
	s->heap[place] = what;
	s->places[what.entry] = place;
}

/* Without a branch: which one it is cannot be foretold. */
static inline uint32_t least_of(const struct xp_top_place *heap, uint32_t a, uint32_t b)
{
	return a + (b - a) * (heap[b].count < heap[a].count);
}

/* Put what has a higher count than before where it belongs: at `place` or further from the root. */
static void sift_down(struct xp_top_state *s, uint32_t place, struct xp_top_place what)
{
	const struct xp_top_place *heap = s->heap;
	uint32_t end = ROOT + s->table->n_used;

	for (;;) {
		uint32_t first = 4 * place - 8;
		uint32_t least;

		if (first >= end)
			break;
		least = least_of(heap, least_of(heap, first, first + 1),
				 least_of(heap, first + 2, first + 3));
		if (heap[least].count >= what.count)
			break;
		put_at(s, place, heap[least]);
		place = least;
	}
	put_at(s, place, what);
}

/* Put what is new at `place`, the heap's last, where it belongs. */
static void sift_up(struct xp_top_state *s, uint32_t place, struct xp_top_place what)
{
	while (place > ROOT) {
		uint32_t parent = place / 4 + 2;

		if (s->heap[parent].count <= what.count)
			break;
		put_at(s, place, s->heap[parent]);
		place = parent;
	}
	put_at(s, place, what);
}

static void count_packet(struct xp_top_state *s, uint64_t len, const uint64_t *words, uint32_t hash)
{
	struct xp_table *t = s->table;
	uint64_t weight = s->by_bytes ? len : 1;
	struct xp_top_entry *e;
	int room;
	uint32_t number = xp_table_find(t, words, hash, &room);

	if (!number && !room) {
		s->counters[N_NO_ROOM]++;
		return;
	}
	s->counters[N_COUNTED]++;
	s->counters[N_BYTES] += len;
	if (number) {
		uint32_t place = s->places[number];

		e = entry_at(s, number);
		e->packets++;
		e->bytes += len;
		sift_down(s, place, (struct xp_top_place){s->heap[place].count + weight, number});
	} else if (t->n_used < t->capacity) {
		number = ++t->n_used;
		s->counters[N_KEYS]++;
		xp_table_put(t, number, words, hash);
		e = entry_at(s, number);
		e->packets = 1;
		e->bytes = len;
		sift_up(s, ROOT + number - 1, (struct xp_top_place){weight, number});
	} else {
		struct xp_top_place least = s->heap[ROOT];

		s->counters[N_REPLACED]++;
		xp_table_take_out(t, (uint32_t)least.entry);
		xp_table_put(t, (uint32_t)least.entry, words, hash);
		e = entry_at(s, least.entry);
		e->error = least.count;
		e->packets = 1;
		e->bytes = len;
		least.count += weight;
		sift_down(s, ROOT, least);
	}
}

int xp_stage_top(struct xp_batch *b, void *state)
{
	struct xp_top_state *s = state;

	for (uint32_t from = 0; from < b->n; from += XP_KEYS) {
		uint32_t end = b->n - from < XP_KEYS ? b->n : from + XP_KEYS;
		struct xp_keys keys;

		keys.n = xp_select(b, s->only, from, end, keys.packets);
		s->counters[N_SKIPPED] += end - from - keys.n;
		xp_make_keys(s->key, b, s->table, &keys);
		for (uint32_t k = 0; k < keys.n; k++)
			count_packet(s, (uint64_t)b->len[keys.packets[k]],
				     keys.words + k * s->table->n_words, keys.hashes[k]);
	}
	return 0;
}
