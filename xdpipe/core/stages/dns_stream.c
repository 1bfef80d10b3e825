/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS over TCP: messages, each behind its length in two bytes (RFC 1035, 4.2.2; RFC 7766, 8).
 *
 *   length 2, message, length 2, message, ...
 *
 * A message that lies in one piece of the stream is told where it lies. One that comes in several is
 * copied into a buffer of a fixed pool (buffers.h). When all are taken, the one that has been for longest
 * is taken away from its message: a connection that ends without a word, or never goes on, cannot keep
 * one for good.
 *
 * Lengths are all that says where a message begins. Who comes in the middle of a stream, or lost
 * bytes across the end of a message, is out of step, and passes over everything until a piece is
 * made up of whole messages from its first byte to its last, as most segments with DNS are.
 */
#include "stages/buffers.h"
#include "stages/dns_stream.h"

#define HEADER 12 /* a message has no less; what has is no sign of being in step */

uint64_t xp_dns_pool_bytes(uint32_t n_buffers)
{
	return sizeof(struct xp_buffers) + xp_buffers_bytes(n_buffers, XP_DNS_BUFFER);
}

/* Lay a pool out in zeroed memory of xp_dns_pool_bytes. */
struct xp_buffers *xp_dns_pool_init(void *memory, uint32_t n_buffers)
{
	struct xp_buffers *pool = memory;

	xp_buffers_init(pool, pool + 1, n_buffers, XP_DNS_BUFFER);
	return pool;
}

/* Messages of which a beginning is kept. */
uint32_t xp_dns_n_held(const struct xp_dns_streams *s)
{
	return s->pool->n_taken;
}

static void release(struct xp_dns_streams *s, uint32_t direction)
{
	struct xp_dns_direction *d = &s->directions[direction];

	if (d->buffer)
		xp_buffer_give(s->pool, d->buffer, direction + 1);
	d->buffer = 0;
}

/* Who had a buffer that was taken away, which is counted by then, passes over its message. */
static void notice(struct xp_dns_streams *s, uint32_t direction)
{
	struct xp_dns_direction *d = &s->directions[direction];

	if (!d->buffer || xp_buffer_is_mine(s->pool, d->buffer, direction + 1))
		return;
	d->buffer = 0;
	d->step = XP_DNS_SKIPPING;
}

/* A buffer for a message that begins; 0: there are none at all. */
static int take_buffer(struct xp_dns_streams *s, uint32_t direction)
{
	int taken_away = 0;
	uint32_t buffer = xp_buffer_take(s->pool, direction + 1, &taken_away);

	s->directions[direction].buffer = buffer;
	s->counters[DNS_TCP_NO_BUFFER] += taken_away || !buffer;
	return buffer != 0;
}

/* No more bytes of the direction will come. */
void xp_dns_end(struct xp_dns_streams *s, uint32_t direction)
{
	struct xp_dns_direction *d = &s->directions[direction];

	notice(s, direction);
	release(s, direction);
	s->counters[DNS_TCP_CUT] += d->step == XP_DNS_IN_LENGTH || d->step == XP_DNS_IN_MESSAGE;
	d->step = XP_DNS_OUT_OF_STEP;
}

/* A direction of connection `id` takes the place of another; `middle`: not from its start on. */
void xp_dns_begin(struct xp_dns_streams *s, uint32_t direction, uint32_t id, int middle)
{
	struct xp_dns_direction *d = &s->directions[direction];

	xp_dns_end(s, direction);
	d->id = id;
	d->step = middle ? XP_DNS_OUT_OF_STEP : XP_DNS_BETWEEN;
	s->counters[DNS_TCP_OUT_OF_STEP] += middle != 0;
}

/* Are these bytes messages from the first to the last? */
static int are_messages(const uint8_t *p, uint32_t n)
{
	while (n >= 2 + HEADER) {
		uint32_t length = xp_get16(p);

		if (length < HEADER || length > n - 2)
			return 0;
		p += 2 + length;
		n -= 2 + length;
		if (n == 0)
			return 1;
	}
	return 0;
}

/*
 * The next bytes of a direction, of which those up to the end of a message are taken. Returns how
 * many. Where a message ended, `whole` has it, in these bytes or in a buffer, until the next call.
 */
uint32_t xp_dns_feed(struct xp_dns_streams *s, uint32_t direction, const uint8_t *p, uint32_t n,
		     struct xp_dns_whole *whole)
{
	struct xp_dns_direction *d = &s->directions[direction];
	uint32_t used = 0, left, k;

	whole->p = NULL;
	whole->n = 0;
	if (n == 0)
		return 0;
	notice(s, direction);
	if (d->step == XP_DNS_OUT_OF_STEP) {
		if (!are_messages(p, n))
			return n;
		d->step = XP_DNS_BETWEEN;
	}
	if (d->step == XP_DNS_BETWEEN) {
		d->high = p[used++];
		d->step = XP_DNS_IN_LENGTH;
		if (used == n)
			return used;
	}
	if (d->step == XP_DNS_IN_LENGTH) {
		d->length = (uint16_t)(d->high << 8 | p[used++]);
		d->have = 0;
		d->step = XP_DNS_IN_MESSAGE;
	}
	left = (uint32_t)d->length - d->have;
	k = n - used < left ? n - used : left;
	if (d->step == XP_DNS_IN_MESSAGE) {
		if (d->have == 0 && k == left) {
			whole->p = p + used;
			whole->n = k;
		} else if (k) {
			if (d->buffer || take_buffer(s, direction))
				memcpy(xp_buffer(s->pool, d->buffer) + d->have, p + used, k);
			else
				d->step = XP_DNS_SKIPPING;
		}
	}
	d->have = (uint16_t)(d->have + k);
	if (k == left) {
		if (d->buffer) {
			whole->p = xp_buffer(s->pool, d->buffer);
			whole->n = d->length;
			release(s, direction);
		}
		d->step = XP_DNS_BETWEEN;
	}
	return used + k;
}

/* The next n bytes of a direction never came. */
void xp_dns_lose(struct xp_dns_streams *s, uint32_t direction, uint32_t n)
{
	struct xp_dns_direction *d = &s->directions[direction];

	if (n == 0 || d->step == XP_DNS_OUT_OF_STEP)
		return;
	notice(s, direction);
	release(s, direction);
	s->counters[DNS_TCP_LOST] += d->step == XP_DNS_IN_LENGTH || d->step == XP_DNS_IN_MESSAGE;
	if ((d->step == XP_DNS_IN_MESSAGE || d->step == XP_DNS_SKIPPING) &&
	    n <= (uint32_t)d->length - d->have) {
		d->have = (uint16_t)(d->have + n);
		d->step = d->have < d->length ? XP_DNS_SKIPPING : XP_DNS_BETWEEN;
		return;
	}
	d->step = XP_DNS_OUT_OF_STEP;
	s->counters[DNS_TCP_OUT_OF_STEP]++;
}
