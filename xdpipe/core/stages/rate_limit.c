/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage RateLimit: a token bucket for each key, as RFC 2697 has it, but with one bucket.
 *
 * A bucket holds `burst` tokens at first and at the most; tokens come at the rate; a packet takes one, or one a
 * byte; one that finds too few takes none and has exceeded. All in whole numbers: tokens are counted in
 * units of which a nanosecond brings a whole number, so that nothing is ever rounded.
 *
 * A key whose bucket is full again is as one that was never seen: forgetting it changes nothing.
 * So where the table is full, its entry goes to the next key that needs one. A hand that goes round all
 * entries looks at HAND_LOOKS of them for one that is idle, each time one is wanted.
 */
#include "stages/rate_limit.h"

#define HAND_LOOKS 16
#define STEP_NS 1000000000ull /* a clock that goes back by so much has been set, less is disorder */

/* In the order of RateLimit.counters in xdpipe/stages/rate_limit.py. */
enum { N_CONFORMING, N_EXCEEDED, N_NO_ROOM, N_SKIPPED, N_KEYS };

/*
 * A time that never goes back. Packets that are out of order by less than a second come at the time of
 * the latest one before. A clock that was put back further goes on from there: otherwise nobody would get
 * tokens until it is past that time again.
 */
static uint64_t monotone(struct xp_rate_limit_state *s, uint64_t time_ns)
{
	uint64_t now = time_ns + s->put_back_ns;

	if ((int64_t)(now - s->now_ns) < 0) {
		uint64_t back = s->now_ns - now;

		if (back >= STEP_NS)
			s->put_back_ns += back;
		return s->now_ns;
	}
	s->now_ns = now;
	return now;
}

static struct xp_rate_limit_entry *entry_at(const struct xp_rate_limit_state *s, uint32_t number)
{
	return (struct xp_rate_limit_entry *)xp_table_entry(s->table, number);
}

/* What is in a bucket by now: it is never more than full, and the product less than full + a ns. */
static uint64_t level_at(const struct xp_rate_limit_state *s, const struct xp_rate_limit_entry *e,
			 uint64_t now)
{
	uint64_t passed = now - e->time_ns;
	uint64_t level;

	if (passed >= s->full_ns)
		return s->full;
	level = e->level + passed * s->units_a_ns;
	return level < s->full ? level : s->full;
}

/* An entry that is in use by no key, or by one whose bucket is full; 0: none was found. */
static uint32_t free_entry(struct xp_rate_limit_state *s, uint64_t now)
{
	struct xp_table *t = s->table;

	if (t->n_used < t->capacity) {
		s->counters[N_KEYS]++;
		return ++t->n_used;
	}
	for (uint32_t i = 0; i < HAND_LOOKS; i++) {
		uint32_t number = s->hand;

		s->hand = number == t->capacity ? 1 : number + 1;
		if (level_at(s, entry_at(s, number), now) == s->full) {
			xp_table_take_out(t, number);
			return number;
		}
	}
	return 0;
}

static void limit_packet(struct xp_rate_limit_state *s, const struct xp_batch *b, uint32_t i,
			 const uint64_t *words, uint32_t hash)
{
	uint64_t now = monotone(s, b->time_ns[i]);
	uint64_t tokens = s->by_bytes ? (uint64_t)b->len[i] : 1;
	struct xp_rate_limit_entry *e;
	int room;
	uint32_t number = xp_table_find(s->table, words, hash, &room);

	if (number) {
		e = entry_at(s, number);
		e->level = level_at(s, e, now);
	} else {
		number = room ? free_entry(s, now) : 0;
		if (!number) {
			s->counters[N_NO_ROOM]++;
			return;
		}
		xp_table_put(s->table, number, words, hash);
		e = entry_at(s, number);
		e->level = s->full;
		e->conforming = e->exceeded = 0;
	}
	e->time_ns = now;
	if (tokens <= s->burst && e->level >= tokens * s->token) {
		e->level -= tokens * s->token;
		e->conforming++;
		s->counters[N_CONFORMING]++;
	} else {
		e->exceeded++;
		s->counters[N_EXCEEDED]++;
		xp_act(b, i, s->exceeded);
	}
}

int xp_stage_rate_limit(struct xp_batch *b, void *state)
{
	struct xp_rate_limit_state *s = state;

	for (uint32_t from = 0; from < b->n; from += XP_KEYS) {
		uint32_t end = b->n - from < XP_KEYS ? b->n : from + XP_KEYS;
		struct xp_keys keys;

		keys.n = xp_select_undecided(b, s->only, from, end, keys.packets);
		s->counters[N_SKIPPED] += end - from - keys.n;
		xp_make_keys(s->key, b, s->table, &keys);
		for (uint32_t k = 0; k < keys.n; k++)
			limit_packet(s, b, keys.packets[k], keys.words + k * s->table->n_words,
				     keys.hashes[k]);
	}
	return 0;
}
