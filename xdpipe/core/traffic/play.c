/* SPDX-License-Identifier: Apache-2.0 */
/* Lay packets ready, and send them when they are due. */
#define _GNU_SOURCE
#include <time.h>

#include "frames.h"
#include "stages/histogram.h"
#include "traffic/play.h"
#include "traffic/probe.h"

#define ALIGNMENT 64      /* of packets: a cache line */
#define SPIN_NS 80000     /* before a packet is due: sleeping may take so much longer than asked for */
#define SLEEP_MAX_NS 20000000 /* so that a stop is soon seen */

uint64_t xp_clock_ns(void)
{
	return now_ns(CLOCK_MONOTONIC);
}

static uint64_t padded(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* Where a packet of len bytes can lie, from `at` on. */
static uint64_t place_for(uint64_t at, uint32_t len)
{
	at = padded(at, ALIGNMENT);
	if (at % XP_LAY_PAGE + len > XP_LAY_PAGE)
		at = padded(at, XP_LAY_PAGE);
	return at;
}

/*
 * Copy into a block those packets of the batch whose verdict is not DROP and whose flow goes by this lane,
 * from lay->next on, until all are through or there is no room. Returns how many that is.
 */
uint32_t xp_lay(const struct xp_batch *b, struct xp_lay *lay, struct xp_lane *to, struct xp_laid *laid)
{
	uint32_t before = laid->n, i;

	for (i = lay->next; i < b->n; i++) {
		uint32_t len = (uint32_t)b->len[i];
		uint64_t at;

		if (b->verdict[i] == XP_DROP ||
		    (lay->n_lanes > 1 && b->flow_hash[i] % lay->n_lanes != lay->lane))
			continue;
		at = place_for(laid->used, len);
		if (laid->n == laid->room || at + len > laid->end)
			break;
		xp_batch_read(b, i, to->memory + at, len);
		laid->at[laid->n] = at;
		laid->len[laid->n] = len;
		laid->due_ns[laid->n] = lay->due_ns[i];
		laid->stamp_at[laid->n] = lay->stamp_at ? lay->stamp_at[i] : 0;
		laid->used = at + len;
		laid->n++;
	}
	lay->next = i;
	return laid->n - before;
}

/* How many of the block's packets, from play->at on and up to n, are due. */
static uint32_t n_due(const struct xp_play *p, const struct xp_laid *laid, uint32_t n, uint64_t now)
{
	const uint64_t *due = laid->due_ns + p->at;
	uint32_t low = 0, high = n; /* the first `low` are due, those from `high` on are not */

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (p->base_ns + due[middle] <= now)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void note_late(struct xp_play *p, uint64_t due, uint64_t now)
{
	uint64_t late = now - due;
	uint32_t bin = xp_histogram_bin(late);

	p->late[bin < XP_LATE_BINS ? bin : XP_LATE_BINS - 1]++;
	if (late > p->late_max)
		p->late_max = late;
	if (late > p->catch_up_ns)
		p->base_ns += late - p->catch_up_ns;
}

/* Wait for a time, on the clock; shorter than asked for where it is far away. */
static void wait_for(uint64_t when, uint64_t now)
{
	uint64_t sleep;
	struct timespec until;

	if (when <= now + SPIN_NS) {
		while (now < when) {
			relax();
			now = now_ns(CLOCK_MONOTONIC);
		}
		return;
	}
	sleep = when - SPIN_NS - now;
	sleep = now + (sleep < SLEEP_MAX_NS ? sleep : SLEEP_MAX_NS);
	until = (struct timespec){(time_t)(sleep / 1000000000), (long)(sleep % 1000000000)};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* Stamps are written over those of the round before: not while a NIC still reads these. */
static void wait_for_all(const struct xp_play *p)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + p->stall_ns;

	while (p->lane->done != p->lane->taken && !p->stop && !p->lane->error &&
	       now_ns(CLOCK_MONOTONIC) < end)
		p->lane->settle(p->lane);
}

static void next_block(struct xp_play *p)
{
	p->at = 0;
	if (++p->block < p->n_blocks)
		return;
	p->block = 0;
	p->base_ns += p->round_ns;
	if (p->stamps)
		wait_for_all(p);
}

/* Write number and time into the stamps of the next n packets. */
static void stamp(const struct xp_play *p, const struct xp_laid *laid, uint32_t n)
{
	uint64_t number = p->next_stamp, now = now_ns(CLOCK_REALTIME);

	for (uint32_t i = p->at; i < p->at + n; i++)
		if (laid->stamp_at[i])
			xp_probe_stamp(p->lane->memory + laid->at[i], laid->stamp_at[i], number++, now);
}

/* Of the next n packets, which were taken: what they were. */
static void note_taken(struct xp_play *p, const struct xp_laid *laid, uint32_t n)
{
	for (uint32_t i = p->at; i < p->at + n; i++)
		p->lane->bytes += laid->len[i];
	for (uint32_t i = p->at; p->stamps && i < p->at + n; i++)
		p->next_stamp += laid->stamp_at[i] != 0;
}

/*
 * Send until a time on CLOCK_MONOTONIC, or until all is handed over, or something ends it. To be called
 * again where it goes on.
 */
enum xp_played xp_play(struct xp_play *p, uint64_t until_ns)
{
	uint64_t now = now_ns(CLOCK_MONOTONIC);

	while (p->left) {
		const struct xp_laid *laid = p->blocks[p->block];
		uint32_t n = laid->n - p->at, taken;
		uint64_t due;

		if (p->stop)
			return XP_PLAY_STOPPED;
		if (now >= until_ns)
			return XP_PLAY_GOES_ON;
		if (n == 0) {
			next_block(p);
			continue;
		}
		n = n < p->chunk ? n : p->chunk;
		n = n < p->lane->n_max ? n : p->lane->n_max;
		n = n < p->left ? n : (uint32_t)p->left;
		due = p->base_ns + laid->due_ns[p->at];
		if (p->paced) {
			n = n_due(p, laid, n, now);
			if (n == 0) {
				wait_for(due < until_ns ? due : until_ns, now);
				now = now_ns(CLOCK_MONOTONIC);
				p->taken_ns = now;
				continue;
			}
		}
		if (p->stamps)
			stamp(p, laid, n);
		taken = p->lane->send(p->lane, laid, p->at, n);
		if (taken) {
			note_taken(p, laid, taken);
			if (p->paced)
				note_late(p, due, now);
			p->at += taken;
			p->left -= taken;
		}
		if (p->lane->error)
			return XP_PLAY_ERROR;
		now = now_ns(CLOCK_MONOTONIC);
		if (taken)
			p->taken_ns = now;
		else if (now - p->taken_ns > p->stall_ns)
			return XP_PLAY_STALLED;
	}
	return XP_PLAY_ALL;
}
