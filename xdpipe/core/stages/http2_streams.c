/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Http2 knows of a connection's streams: which are open at the most, how many were opened and reset,
 * and whether a client does more of that than may be.
 *
 * CVE-2023-44487, rapid reset: HEADERS and RST_STREAM at once, many times, so that a server does work for
 * more streams than it allows at a time. Each RST_STREAM of the client takes from what its connection has.
 * PING, SETTINGS and PRIORITY, which cost the server work too (CVE-2019-9512, -9515, -9513), take from
 * another such account; acknowledgements do not.
 */
#include "stages/http2_state.h"

/*
 * A token bucket, kept as the time at which it is full again (GCRA, ITU-T I.371): `due` goes on by an
 * interval with each one that conforms, and is not to be more than the tolerance ahead of the clock.
 * It cannot be further ahead than that and an interval, unless the clock was put back.
 */
static int exceeds(uint64_t *due_ns, struct xp_http2_limit limit, uint64_t now_ns)
{
	uint64_t last_ns = now_ns + limit.tolerance_ns + limit.interval_ns;

	if (!limit.interval_ns)
		return 0;
	if (*due_ns < now_ns)
		*due_ns = now_ns;
	if (*due_ns > last_ns)
		*due_ns = last_ns;
	if (*due_ns - now_ns > limit.tolerance_ns)
		return 1;
	*due_ns += limit.interval_ns;
	return 0;
}

/* The first bound that a client exceeds stands for all. */
void xp_http2_exceeded(const struct packet *k, uint8_t flood, uint32_t counter)
{
	if (k->c->flood || k->dir)
		return;
	k->c->flood = flood;
	k->n[counter]++;
}

void xp_http2_note_reset(const struct packet *k)
{
	k->c->n_reset[k->dir]++;
	k->n[N_CLIENT_RESETS + k->dir]++;
	if (k->dir == 0 &&
	    exceeds(&k->c->reset_due_ns, k->t->limits.resets, k->b->time_ns[k->i]))
		xp_http2_exceeded(k, XP_HTTP2_FLOOD_RESETS, N_RAPID_RESETS);
}

void xp_http2_note_control(const struct packet *k)
{
	if (k->dir == 0 && (k->d->type == PRIORITY || !(k->d->flags & ACK)) &&
	    exceeds(&k->c->control_due_ns, k->t->limits.control, k->b->time_ns[k->i]))
		xp_http2_exceeded(k, XP_HTTP2_FLOOD_CONTROL, N_CONTROL_FLOODS);
}

/* Was the stream opened, as far as can be said? Not where its opener is not seen, or not seen whole. */
static int is_idle(const struct packet *k, uint32_t stream)
{
	uint32_t opener = !(stream & 1);
	const struct http2_direction *d = opener == k->dir ? k->d : k->other;

	if (d->phase == OVER || d->has_gaps || !(k->c->seen & 1 << (opener ^ k->c->client)))
		return 0;
	return stream > d->highest;
}

/* What is wrong with the number of the stream of the frame under way; it opens a stream, where it does. */
uint8_t xp_http2_stream_fault(const struct packet *k)
{
	struct http2_direction *d = k->d;
	uint32_t stream = d->stream;

	switch (d->type) {
	case HEADERS:
		if (k->dir == 0 && stream % 2 == 0)
			return XP_HTTP2_MALFORMED_STREAM_PARITY;
		if (k->dir == 0 && stream > d->highest) {
			d->highest = stream;
			k->c->n_opened++;
			k->n[N_OPENED]++;
			return 0;
		}
		break;
	case DATA:
	case RST_STREAM:
	case WINDOW_UPDATE:
	case PUSH_PROMISE:
		break;
	default: /* PRIORITY may come before its stream */
		return 0;
	}
	return stream && is_idle(k, stream) ? XP_HTTP2_MALFORMED_STREAM_IDLE : 0;
}
