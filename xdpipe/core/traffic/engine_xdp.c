/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP TX from where packets lie: nothing is copied here. In copy mode the kernel copies as it sends; in
 * zero copy the NIC reads, so a packet's bytes are in use until its descriptor is completed.
 *
 * A packet lies within one chunk, or begins with one and goes on in the next ones (play.c): then it takes
 * several descriptors (XDP_USE_SG, Linux 6.6). Completions come in the order of descriptors in zero copy;
 * in copy mode they may not, but there nobody reads the bytes any more.
 */
#include "frames.h"
#include "traffic/engines.h"

static void settle_xdp(struct xp_lane *lane)
{
	struct xp_xdp_lane *x = (struct xp_xdp_lane *)lane;
	struct xp_port *port = x->worker->ports;
	struct xp_ring *completion = &port->xsk->completion;
	uint32_t n = ring_peek(completion, completion->size);
	uint64_t not_sent;

	for (uint32_t i = 0; i < n; i++)
		lane->done += x->is_last[x->n_completed++ & x->mask];
	ring_release(completion, n);
	not_sent = port->counters->tx_dropped;
	lane->refused += not_sent - x->n_not_sent;
	x->n_not_sent = not_sent;
	if (port->counters->tx_errors)
		lane->error = (int32_t)port->counters->tx_errno;
}

static void kick(struct xp_xdp_lane *x)
{
	if (x->n_submitted != x->n_completed)
		xp_kick_tx(x->worker, x->worker->ports);
}

static uint32_t send_xdp(struct xp_lane *lane, const struct xp_laid *laid, uint32_t first, uint32_t n)
{
	struct xp_xdp_lane *x = (struct xp_xdp_lane *)lane;
	struct xp_ring *tx = &x->worker->ports->xsk->tx;
	uint32_t wanted = 0, room, used = 0, taken = 0, index;

	settle_xdp(lane);
	for (uint32_t i = 0; i < n; i++)
		wanted += (laid->len[first + i] + x->chunk - 1) / x->chunk;
	room = ring_reserve(tx, wanted);
	index = tx->cached_producer;
	for (; taken < n; taken++) {
		uint64_t at = laid->at[first + taken];
		uint32_t left = laid->len[first + taken], need = (left + x->chunk - 1) / x->chunk;

		if (used + need > room || x->n_submitted + need - x->n_completed > x->mask)
			break;
		while (need--) {
			struct xdp_desc *d = ring_desc(tx, index + used);

			d->addr = at;
			d->len = left < x->chunk ? left : x->chunk;
			d->options = need ? XDP_PKT_CONTD : 0;
			x->is_last[x->n_submitted++ & x->mask] = need == 0;
			at += d->len;
			left -= d->len;
			used++;
		}
	}
	ring_submit(tx, used);
	lane->taken += taken;
	kick(x);
	settle_xdp(lane);
	return taken;
}

static void settle_and_kick(struct xp_lane *lane)
{
	kick((struct xp_xdp_lane *)lane);
	settle_xdp(lane);
}

void xp_xdp_lane_init(struct xp_xdp_lane *x)
{
	x->lane.send = send_xdp;
	x->lane.settle = settle_and_kick;
	x->lane.memory = x->worker->umem->base;
	x->lane.n_max = 256;
}
