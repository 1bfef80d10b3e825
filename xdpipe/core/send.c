/* SPDX-License-Identifier: Apache-2.0 */
/* Out of the batch by verdict, to the tx ring, and back from the completion ring. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "frames.h"
#include "stages/headers.h"

#define SEND_CALLS_MAX 64 /* in a row, so that a tx ring that does not drain holds nobody up */

/* Ask the kernel to send. Copy mode sends within the call, a budget of packets at a time. */
void xp_kick_tx(const struct xp_worker *w, struct xp_port *out)
{
	struct xp_counters *c = out->counters;
	struct xp_ring *tx = &out->xsk->tx;
	uint32_t before = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE);

	for (int i = 0; i < SEND_CALLS_MAX; i++) {
		uint32_t after;

		if (before == tx->cached_producer)
			return;
		if (!ring_needs_wakeup(tx) && !w->always_wake && !w->busy_poll)
			return;
		c->wakeups++;
		if (sendto(out->xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0) {
			if (errno == EBUSY) { /* completed, but the device dropped it */
				c->tx_dropped++;
			} else if (errno != EAGAIN && errno != ENOBUFS) {
				c->tx_errors++;
				c->tx_errno = (uint64_t)errno;
				return;
			}
		}
		after = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE);
		if (after == before) /* no room on completion, or the device is full: later */
			return;
		before = after;
	}
}

static void take_back(struct xp_worker *w, struct xp_port *out)
{
	struct xp_counters *c = out->counters;
	struct xp_umem *umem = w->umem;
	struct xp_ring *completion = &out->xsk->completion;
	uint32_t first = completion->cached_consumer;
	uint32_t n = ring_peek(completion, completion->size), n_packets = n;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t addr = xp_desc_addr(*ring_addr(completion, first + i));
		uint64_t frame = frame_of(umem, addr);

		if (w->multi_buffer)
			n_packets -= !*is_last(umem, frame);
		if (w->batch && w->batch->tx_times_wanted) /* replay has none */
			xp_has_left(w, addr);
		umem->free[umem->n_free++] = frame;
	}
	if (w->multi_buffer)
		announce(&c->next_tx_completed, c->tx_completed + n_packets,
			 c->tx_completed_more + n - n_packets);
	ring_release(completion, n);
	c->tx_completed += n_packets;
	c->tx_completed_more += n - n_packets;
}

/* Take frames that were sent from the completion rings to the free list. */
void xp_take_back(struct xp_worker *w)
{
	for (uint32_t p = 0; p < w->n_ports; p++)
		take_back(w, w->ports + p);
}

/* Options of the first descriptor of packet i, which leaves. */
static uint32_t leaving(const struct xp_worker *w, const struct xp_port *out, uint32_t i)
{
	const struct xp_batch *b = w->batch;

	return b->n_checksums_due || b->tx_times_wanted || w->hints ? xp_leaving(w, out, i) : 0;
}

/* Write packet i of the batch to a tx ring, from index `at` on; there is room. */
static void write_tx(const struct xp_worker *w, const struct xp_port *out, uint32_t i, uint32_t at)
{
	const struct xp_batch *b = w->batch;
	uint32_t n_frames = b->n_frames[i], more = b->more[i];

	for (uint32_t k = 0; k < n_frames; k++) {
		struct xdp_desc *d = ring_desc(&out->xsk->tx, at + k);
		int last = k + 1 == n_frames;

		d->options = (last ? 0 : XDP_PKT_CONTD) | (k ? 0 : leaving(w, out, i));
		d->addr = k ? b->more_addr[more + k - 1] : b->addr[i];
		d->len = (uint32_t)(k ? b->more_len[more + k - 1] : b->head_len[i]);
		*is_last(w->umem, frame_of(w->umem, d->addr)) = (uint8_t)last;
	}
}

/*
 * On a tx ring are `sent` more packets, in n descriptors, of n_tx that were to be sent: count them,
 * and show them to the kernel.
 */
static void finish_send(struct xp_worker *w, struct xp_port *out, uint32_t n_tx, uint32_t sent,
			uint32_t n)
{
	struct xp_port *in = w->ports + w->batch->port;
	struct xp_counters *c = out->counters;
	uint32_t more = n - sent;

	if (w->multi_buffer)
		announce(&c->next_tx_submitted, c->tx_submitted + sent,
			 c->tx_submitted_more + more);
	ring_submit(&out->xsk->tx, n);
	if (out == in) {
		c->verdict_tx += n_tx;
	} else {
		c->forwarded += n_tx;
		in->counters->verdict_forward += n_tx;
	}
	c->tx_submitted += sent;
	c->tx_submitted_more += more;
	c->tx_no_room += n_tx - sent;
}

/*
 * Put n_tx packets of the batch, by `which`, on a tx ring, where packets may have several frames;
 * free those that there is no room for.
 */
static void send_multi_buffer(struct xp_worker *w, struct xp_port *out, const uint32_t *which,
			      uint32_t n_tx)
{
	struct xp_batch *b = w->batch;
	struct xp_ring *tx = &out->xsk->tx;
	uint32_t wanted = 0, used = 0, sent = 0, first, room;

	for (uint32_t i = 0; i < n_tx; i++)
		wanted += b->n_frames[which[i]];
	room = ring_reserve(tx, wanted);
	first = tx->cached_producer;
	for (uint32_t i = 0; i < n_tx; i++) {
		uint32_t at = which[i];

		if (sent == i && used + b->n_frames[at] <= room) { /* else later ones go first */
			write_tx(w, out, at, first + used);
			used += b->n_frames[at];
			sent++;
		} else {
			free_packet(w->umem, b, at);
		}
	}
	finish_send(w, out, n_tx, sent, used);
}

/* The same where each packet is one frame. */
static void send_single(struct xp_worker *w, struct xp_port *out, const uint32_t *which,
			uint32_t n_tx)
{
	struct xp_batch *b = w->batch;
	struct xp_ring *tx = &out->xsk->tx;
	uint32_t sent = ring_reserve(tx, n_tx), first = tx->cached_producer;

	for (uint32_t i = 0; i < n_tx; i++) {
		uint32_t at = which[i];

		if (i < sent) {
			struct xdp_desc *d = ring_desc(tx, first + i);

			d->options = leaving(w, out, at);
			d->addr = b->addr[at];
			d->len = (uint32_t)b->len[at];
		} else {
			free_packet(w->umem, b, at);
		}
	}
	finish_send(w, out, n_tx, sent, sent);
}

/*
 * Give every packet of the batch what its verdict says: DROP frees its frame, TX puts it on the tx
 * ring of the port that it came by and FORWARD on another's, or frees and counts it where that is
 * full, PASS gives a copy to the kernel and frees it. The batch owns nothing afterwards.
 *
 * FORWARD to the port that a packet came by is TX.
 */
void xp_dispatch(struct xp_worker *w)
{
	struct xp_batch *b = w->batch;
	struct xp_port *in = w->ports + b->port;
	struct xp_counters *c = in->counters;
	uint8_t rest = (uint8_t)w->default_verdict;
	uint32_t n_out[XP_PORTS_MAX] = {0}, n_drop = 0, n_pass = 0, n_invalid = 0;
	int parsed = 0;

	if (b->taps)
		xp_tap_leaving(b, w->default_verdict);
	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t v = b->verdict[i] == XP_UNDECIDED ? rest : b->verdict[i];
		uint32_t out = v == XP_FORWARD ? b->out_port[i] : b->port;

		if (w->headers && !parsed && v != XP_DROP) {
			xp_stage_headers(b, w->headers);
			parsed = 1;
		}
		if ((v == XP_TX || v == XP_FORWARD) && out < w->n_ports) {
			w->tx_scratch[out * b->capacity + n_out[out]++] = i;
			continue;
		}
		if (v == XP_DROP) {
			n_drop++;
		} else if (v == XP_PASS) {
			xp_pass_packet(w, i);
			n_pass++;
		} else {
			n_invalid++;
		}
		free_packet(w->umem, b, i);
	}
	c->verdict_drop += n_drop;
	c->verdict_invalid += n_invalid;
	c->verdict_pass += n_pass;
	if (n_pass && in->pass)
		xp_pass_flush(in);
	for (uint32_t p = 0; p < w->n_ports; p++) {
		const uint32_t *which = w->tx_scratch + p * b->capacity;

		if (n_out[p] && w->multi_buffer)
			send_multi_buffer(w, w->ports + p, which, n_out[p]);
		else if (n_out[p])
			send_single(w, w->ports + p, which, n_out[p]);
	}
	b->n = 0;
	xp_forget_checksums(b);
	xp_forget_tx_times(b);
}

static uint64_t all_in_flight(const struct xp_worker *w)
{
	uint64_t n = 0;

	for (uint32_t p = 0; p < w->n_ports; p++)
		n += in_flight(w->ports + p);
	return n;
}

/* Have the kernel send what is on the tx rings, and take back the frames of what it has sent. */
void xp_reclaim(struct xp_worker *w)
{
	for (struct xp_port *out = w->ports; out < w->ports + w->n_ports; out++) {
		if (in_flight(out) == 0)
			continue;
		xp_kick_tx(w, out);
		take_back(w, out);
	}
}

/*
 * Wait until what was submitted is sent; count what is not within timeout_ms as abandoned.
 * Returns how many packets that is. The last thing a worker does with its socket.
 */
int xp_drain_tx(struct xp_worker *w, uint32_t timeout_ms)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + timeout_ms * 1000000ull, n = 0;

	do
		xp_reclaim(w);
	while (all_in_flight(w) != 0 && now_ns(CLOCK_MONOTONIC) < end);
	for (uint32_t p = 0; p < w->n_ports; p++) {
		struct xp_counters *c = w->ports[p].counters;

		c->tx_abandoned = c->tx_submitted - c->tx_completed;
		n += c->tx_abandoned;
	}
	xp_publish(w);
	return (int)n;
}
