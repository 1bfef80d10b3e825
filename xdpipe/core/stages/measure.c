/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Measure: what became of stamped packets (traffic/probe.h) on their way here.
 *
 * Streams count from 0, and next is one more than the highest number that came (NextExp of RFC 4737, 3.3).
 *
 *         window          next
 *    |<-------------------->|
 *   -+----------------------+-----  numbers
 *    too late  seen / not      in order
 *
 *   - from next on: in order. Those that are left out are not seen, and it is noted how many packets had come
 *     by then.
 *   - in the window, seen: a duplicate. Not seen: reordered (RFC 4737, 3.3), by as many packets as have
 *     come since it was passed: its extent (4.2.2). Duplicates do not count there.
 *   - below the window: nobody knows which of the two; too late, and so lost to whoever waited for it.
 *
 * Latency is from the stamp to the batch's time of arrival: in the bins, and in slots of time of which there
 * are so many: where they do not suffice, two are made one, and all are twice as wide from then on.
 */
#include "stages/histogram.h"
#include "stages/measure.h"
#include "traffic/probe.h"

#define AT_ONCE 64

/* In the order of Measure.counters in xdpipe/stages/measure.py. */
enum { N_IN_ORDER, N_REORDERED, N_DUPLICATES, N_TOO_LATE, N_OTHER_RUN, N_NO_ROOM, N_UNSTAMPED, N_BYTES };

static int was_seen(const struct xp_measure_stream *st, uint64_t n, uint32_t window)
{
	return (int)(st->seen[(n & (window - 1)) / 64] >> (n % 64) & 1);
}

static void mark_seen(struct xp_measure_stream *st, uint64_t n, uint32_t window)
{
	st->seen[(n & (window - 1)) / 64] |= 1ull << (n % 64);
}

/* Numbers from next to n - 1 did not come: of the last ones, which the window holds, note when. */
static void pass_over(struct xp_measure_stream *st, uint64_t n, uint32_t window)
{
	uint64_t from = n - st->next > window ? n - window : st->next;
	uint32_t arrived = (uint32_t)(st->in_order + st->reordered);

	for (; from < n; from++) {
		st->seen[(from & (window - 1)) / 64] &= ~(1ull << (from % 64));
		st->passed[from & (window - 1)] = arrived;
	}
}

/* What number n is to its stream: which of the first four counters counts it. */
static int note_number(struct xp_measure_stream *st, uint64_t n, uint32_t window)
{
	uint64_t extent;

	if (n >= st->next) {
		pass_over(st, n, window);
		mark_seen(st, n, window);
		st->next = n + 1;
		st->in_order++;
		return N_IN_ORDER;
	}
	if (st->next - n > window) {
		st->too_late++;
		return N_TOO_LATE;
	}
	if (was_seen(st, n, window)) {
		st->duplicates++;
		return N_DUPLICATES;
	}
	mark_seen(st, n, window);
	extent = (uint32_t)(st->in_order + st->reordered) - st->passed[n & (window - 1)];
	st->extent_sum += extent;
	st->extent_max = extent > st->extent_max ? extent : st->extent_max;
	st->lowest = n < st->lowest ? n : st->lowest;
	st->reordered++;
	return N_REORDERED;
}

/* Make each two slots one. */
static void widen_slots(const struct xp_measure_state *s, struct xp_measure_run *r)
{
	uint64_t base = r->slot_base >> 1;

	for (uint32_t k = 1; k < s->n_slots; k++) {
		struct xp_measure_slot *from = r->slots + k;
		struct xp_measure_slot *to = r->slots + (((r->slot_base + k) >> 1) - base);

		if (to == from)
			continue;
		to->packets += from->packets;
		to->bytes += from->bytes;
		to->latency_sum += from->latency_sum;
		if (from->latency_max > to->latency_max)
			to->latency_max = from->latency_max;
		memset(from, 0, sizeof(*from));
	}
	r->slot_base = base;
	r->slot_shift++;
}

/* The slot of a time; what comes before the first packet's, by a clock that was put back, is in the first. */
static struct xp_measure_slot *slot_of(const struct xp_measure_state *s, struct xp_measure_run *r,
				       uint64_t now)
{
	uint64_t at = now >> r->slot_shift;

	if (at < r->slot_base)
		return r->slots;
	while (at - r->slot_base >= s->n_slots) {
		widen_slots(s, r);
		at = now >> r->slot_shift;
	}
	return r->slots + (at - r->slot_base);
}

/* A packet came for the first time, so many bytes long, `age` ns after it was stamped. */
static void note_arrival(const struct xp_measure_state *s, struct xp_measure_run *r, uint64_t now,
			 int64_t age, uint64_t bytes)
{
	struct xp_measure_slot *slot = slot_of(s, r, now);
	uint64_t latency = (uint64_t)age;

	r->packets++;
	r->bytes += bytes;
	r->last_ns = now > r->last_ns ? now : r->last_ns;
	slot->packets++;
	slot->bytes += bytes;
	if (age < 0) {
		r->early++;
		return;
	}
	r->bins[xp_log_bin(latency, s->sub_bits)]++;
	r->latency_sum += latency;
	r->least = latency < r->least ? latency : r->least;
	r->greatest = latency > r->greatest ? latency : r->greatest;
	slot->latency_sum += latency;
	slot->latency_max = latency > slot->latency_max ? latency : slot->latency_max;
}

/* The place of a run that is new at this time, or n_runs: there is no room for it. */
static uint32_t place_of_run(struct xp_measure_state *s, uint32_t run, uint64_t now)
{
	struct xp_measure_run *r;

	for (uint32_t k = 0; k < s->runs_used; k++)
		if (s->runs[k].run == run)
			return k;
	if (s->runs_used == s->n_runs)
		return s->n_runs;
	r = s->runs + s->runs_used;
	r->run = run;
	r->first_ns = r->last_ns = now;
	r->least = ~0ull;
	r->slot_shift = XP_MEASURE_SLOT_SHIFT;
	r->slot_base = now >> XP_MEASURE_SLOT_SHIFT;
	return s->runs_used++;
}

/* The stream of a stamp, which begins with it if it is new; NULL: there is no room for one more. */
static struct xp_measure_stream *find_stream(struct xp_measure_state *s, const struct xp_probe *p,
					     uint64_t now)
{
	uint32_t tag = (uint32_t)p->run << 8 | p->stream, place;
	struct xp_measure_stream *st = s->streams + s->latest;

	if (s->streams_used && st->tag == tag)
		return st;
	for (uint32_t k = 0; k < s->streams_used; k++) {
		if (s->streams[k].tag == tag) {
			s->latest = k;
			return s->streams + k;
		}
	}
	if (s->streams_used == s->n_streams)
		return NULL;
	place = place_of_run(s, p->run, now);
	if (place == s->n_runs)
		return NULL;
	s->latest = s->streams_used++;
	st = s->streams + s->latest;
	st->tag = tag;
	st->place = place;
	st->next = st->lowest = p->number;
	return st;
}

/* Returns which counter counts a stamped packet. */
static int take_stamp(struct xp_measure_state *s, const struct xp_probe *p, uint64_t now, uint64_t bytes)
{
	struct xp_measure_stream *st;
	int outcome;

	if (!s->any_run && p->run != s->run)
		return N_OTHER_RUN;
	st = find_stream(s, p, now);
	if (!st)
		return N_NO_ROOM;
	outcome = note_number(st, p->number, s->window);
	if (outcome == N_IN_ORDER || outcome == N_REORDERED) {
		note_arrival(s, s->runs + st->place, now, xp_probe_age(now, p->time), bytes);
		s->counters[N_BYTES] += bytes;
	}
	return outcome;
}

int xp_stage_measure(struct xp_batch *b, void *state)
{
	struct xp_measure_state *s = state;

	for (uint32_t from = 0; from < b->n; from += AT_ONCE) {
		uint32_t end = b->n - from < AT_ONCE ? b->n : from + AT_ONCE;
		uint32_t places[AT_ONCE], n = 0;

		for (uint32_t i = from; i < end; i++) { /* a packet's end is mostly in no cache yet */
			int32_t at = b->payload[i] + b->payload_len[i] - XP_PROBE_SIZE;

			if (b->payload_len[i] < XP_PROBE_SIZE || !xp_within(b, i, at, XP_PROBE_SIZE))
				continue;
			__builtin_prefetch(xp_packet(b, i) + at);
			places[n++] = i;
		}
		s->counters[N_UNSTAMPED] += end - from - n;
		for (uint32_t k = 0; k < n; k++) {
			uint32_t i = places[k];
			struct xp_probe probe;

			if (!xp_probe_read(xp_packet(b, i) + b->payload[i] + b->payload_len[i] -
						   XP_PROBE_SIZE,
					   &probe)) {
				s->counters[N_UNSTAMPED]++;
				continue;
			}
			s->counters[take_stamp(s, &probe, b->time_ns[i], (uint64_t)b->len[i])]++;
			xp_act(b, i, s->action);
		}
	}
	return 0;
}
