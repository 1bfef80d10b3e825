/* SPDX-License-Identifier: Apache-2.0 */
/* The native stage Count: packets and bytes by key. */
#include "stages/count.h"

/* In the order of Count.counters in xdpipe/stages/count.py. */
enum { N_COUNTED, N_BYTES, N_NO_ROOM, N_NO_ROOM_BYTES, N_SKIPPED, N_KEYS };

static void count_packet(struct xp_count_state *s, uint64_t len, const uint64_t *words, uint32_t hash)
{
	struct xp_table *t = s->table;
	struct xp_count_entry *e;
	int room;
	uint32_t number = xp_table_find(t, words, hash, &room);

	if (!number) {
		if (!room || t->n_used == t->capacity) {
			s->counters[N_NO_ROOM]++;
			s->counters[N_NO_ROOM_BYTES] += len;
			return;
		}
		number = ++t->n_used;
		s->counters[N_KEYS]++;
		xp_table_put(t, number, words, hash);
	}
	e = (struct xp_count_entry *)xp_table_entry(t, number);
	e->packets++;
	e->bytes += len;
	s->counters[N_COUNTED]++;
	s->counters[N_BYTES] += len;
}

int xp_stage_count(struct xp_batch *b, void *state)
{
	struct xp_count_state *s = state;

	for (uint32_t from = 0; from < b->n; from += XP_KEYS) {
		uint32_t end = b->n - from < XP_KEYS ? b->n : from + XP_KEYS;
		struct xp_keys keys;

		keys.n = xp_select(b, s->only, from, end, keys.packets);
		s->counters[N_SKIPPED] += end - from - keys.n;
		if (!s->key) {
			for (uint32_t k = 0; k < keys.n; k++)
				s->counters[N_BYTES] += (uint64_t)b->len[keys.packets[k]];
			s->counters[N_COUNTED] += keys.n;
			continue;
		}
		xp_make_keys(s->key, b, s->table, &keys);
		for (uint32_t k = 0; k < keys.n; k++)
			count_packet(s, (uint64_t)b->len[keys.packets[k]],
				     keys.words + k * s->table->n_words, keys.hashes[k]);
	}
	return 0;
}
