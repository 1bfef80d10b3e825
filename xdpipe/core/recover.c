/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker may die at any moment. What it leaves lies in memory that the supervisor shares: here is
 * how frames are found again and its books closed.
 */
#include <errno.h>
#include <string.h>

#include "frames.h"

/* Where the frame of that number begins. */
uint64_t xp_frame_addr(const struct xp_umem *umem, uint32_t frame)
{
	uint32_t per_block = XP_BLOCK / umem->frame_size;

	if (is_power_of_two(umem->frame_size))
		return (uint64_t)frame * umem->frame_size;
	return (uint64_t)(frame / per_block) * XP_BLOCK +
	       (uint64_t)(frame % per_block) * umem->frame_size;
}

static void mark_ring(const struct xp_umem *umem, const struct xp_ring *ring, int descs,
		      uint8_t *marks)
{
	uint32_t index = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	uint32_t end = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);

	for (; index != end; index++) {
		uint64_t addr = descs ? ring_desc(ring, index)->addr : *ring_addr(ring, index);

		addr = frame_number(umem, xp_desc_addr(addr));
		if (addr < umem->n_frames)
			marks[addr] = 1;
	}
}

/*
 * How many frames the kernel holds that are on no ring: taken from fill and not yet on rx, taken
 * from tx and not yet on completion. 0 in copy mode when nothing is under way, if the rx ring is
 * as large as the UMEM (a full rx ring would leave one frame in the pool: xsk_buff_free).
 */
int xp_held_by_kernel(const struct xp_xsk *xsk)
{
	uint32_t taken = __atomic_load_n(xsk->fill.consumer, __ATOMIC_ACQUIRE);
	uint32_t sent = __atomic_load_n(xsk->tx.consumer, __ATOMIC_ACQUIRE);

	taken -= __atomic_load_n(xsk->rx.producer, __ATOMIC_ACQUIRE);
	sent -= __atomic_load_n(xsk->completion.producer, __ATOMIC_ACQUIRE);
	return (int)(taken + sent);
}

/*
 * Find out which frames are free: those on no ring of any port. At the start that is all of them;
 * after a worker died it includes those that it held. Only while the kernel holds none and nobody else
 * works on the rings. marks: n_frames bytes of scratch. Returns 0, or -EBUSY while the kernel holds
 * frames.
 */
int xp_adopt(struct xp_worker *w, uint8_t *marks)
{
	struct xp_umem *umem = w->umem;

	for (uint32_t p = 0; p < w->n_ports; p++)
		if (xp_held_by_kernel(w->ports[p].xsk) != 0)
			return -EBUSY;
	memset(marks, 0, umem->n_frames);
	for (uint32_t p = 0; p < w->n_ports; p++) {
		const struct xp_xsk *xsk = w->ports[p].xsk;

		mark_ring(umem, &xsk->fill, 0, marks);
		mark_ring(umem, &xsk->rx, 1, marks);
		mark_ring(umem, &xsk->tx, 1, marks);
		mark_ring(umem, &xsk->completion, 0, marks);
	}
	umem->n_free = 0;
	for (uint32_t i = umem->n_frames; i-- > 0;) {
		*wants_time(umem, xp_frame_addr(umem, i)) = 0; /* who asked is no more */
		if (!marks[i])
			umem->free[umem->n_free++] = xp_frame_addr(umem, i);
	}
	return 0;
}

/* By how many descriptors a ring has moved further than was counted; its index began at 0. */
static uint32_t uncounted(uint64_t counted, const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE) - (uint32_t)counted;
}

/*
 * Count what a dead worker moved on a ring and did not count. With packets in one frame each that is
 * so many packets. Else it had written down, before it moved the ring, what it was going to count.
 */
static void catch_up(const struct xp_worker *w, uint32_t n, uint64_t *packets, uint64_t *more,
		     const uint64_t *next)
{
	if (n == 0)
		return;
	if (w->multi_buffer) {
		*packets = next[0];
		*more = next[1];
	} else {
		*packets += n;
	}
}

/* Count what a dead worker moved on the rings of a port and did not count. */
static void catch_up_with_rings(const struct xp_worker *w, struct xp_port *p)
{
	struct xp_counters *c = p->counters;
	struct xp_xsk *xsk = p->xsk;

	catch_up(w, uncounted(rx_moved(p), xsk->rx.consumer), &c->received, &c->received_more,
		 &c->next_received);
	c->filled += uncounted(c->filled - p->filled_before, xsk->fill.producer);
	catch_up(w, uncounted(tx_moved(p), xsk->tx.producer), &c->tx_submitted,
		 &c->tx_submitted_more, &c->next_tx_submitted);
	catch_up(w, uncounted(completion_moved(p), xsk->completion.consumer), &c->tx_completed,
		 &c->tx_completed_more, &c->next_tx_completed);
}

/*
 * Close the books of a worker that died: what it had taken from the rings without counting it as
 * received, or received without counting a verdict, is counted now. The ring indices tell how many
 * it took; what it had counted by halves was of the batch that it held, which is of one port.
 */
void xp_reconcile(struct xp_worker *w)
{
	struct xp_port *in = w->ports + w->ports->counters->batch_port % w->n_ports;
	uint64_t n_forwarded = 0, n_forward = 0;

	for (struct xp_port *p = w->ports; p < w->ports + w->n_ports; p++) {
		struct xp_counters *c = p->counters;
		uint64_t tx, known;

		catch_up_with_rings(w, p);
		tx = c->tx_submitted + c->tx_no_room;
		known = c->verdict_tx + c->forwarded;
		if (known > tx) /* died between the counter and the ring: never sent */
			c->tx_no_room += known - tx;
		else if (p == in) /* died between the ring and the counter */
			c->verdict_tx += tx - known;
		else
			c->forwarded += tx - known;
		if (p->pass) { /* the program's word counts */
			c->passed = xp_injected(p->pass);
			c->pass_too_long = xp_inject_refused(p->pass);
		}
		c->verdict_pass = c->passed + c->pass_too_long + c->pass_failed;
		n_forwarded += c->forwarded;
		n_forward += c->verdict_forward;
	}
	in->counters->verdict_forward += n_forwarded - n_forward;
	for (uint32_t p = 0; p < w->n_ports; p++) {
		struct xp_counters *c = w->ports[p].counters;

		c->verdict_lost = c->received - c->verdict_drop - c->verdict_tx - c->verdict_pass -
				  c->verdict_forward - c->verdict_invalid;
	}
}

/*
 * Close the books of queues that nobody will serve any more, their worker being dead: what waits on
 * the rx rings is lost with it, what is not sent is abandoned.
 */
void xp_abandon(struct xp_worker *w)
{
	xp_reconcile(w);
	for (struct xp_port *p = w->ports; p < w->ports + w->n_ports; p++) {
		struct xp_ring *rx = &p->xsk->rx;
		struct xp_counters *c = p->counters;
		uint32_t n, n_packets = 0;

		ring_resume(rx);
		ring_resume(&p->xsk->completion);
		n = ring_peek(rx, rx->size);
		for (uint32_t i = 0; i < n; i++)
			n_packets += !(ring_desc(rx, rx->cached_consumer + i)->options &
				       XDP_PKT_CONTD);
		c->received += n_packets;
		c->received_more += n - n_packets;
		c->verdict_lost += n_packets;
		ring_release(rx, n);
	}
	xp_take_back(w);
	for (uint32_t p = 0; p < w->n_ports; p++) {
		struct xp_counters *c = w->ports[p].counters;

		c->tx_abandoned = c->tx_submitted - c->tx_completed;
	}
}
