/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's loop: receive, run the chain, dispatch by verdict, service the rings, wait.
 *
 * Every frame of the UMEM is in one place: on the free list, on the fill ring, in the kernel, on
 * the rx ring, in the batch, on the tx ring, on the completion ring. The functions here move
 * frames between those places and allocate nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "hints.h"
#include "ring.h"

#define REFILL_MIN 64 /* frames go to the fill ring so many at a time, while packets come */
#define SEND_CALLS_MAX 64 /* in a row, so that a tx ring that does not drain holds nobody up */

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static int is_power_of_two(uint32_t n)
{
	return (n & (n - 1)) == 0;
}

/* Where the frame of that number begins. */
uint64_t xp_frame_addr(const struct xp_umem *umem, uint32_t frame)
{
	uint32_t per_block = XP_BLOCK / umem->frame_size;

	if (is_power_of_two(umem->frame_size))
		return (uint64_t)frame * umem->frame_size;
	return (uint64_t)(frame / per_block) * XP_BLOCK +
	       (uint64_t)(frame % per_block) * umem->frame_size;
}

/* Where the frame begins that this address lies in. */
static uint64_t frame_of(const struct xp_umem *umem, uint64_t addr)
{
	uint32_t in_block = (uint32_t)(addr & (XP_BLOCK - 1));

	if (is_power_of_two(umem->frame_size))
		return addr & ~(uint64_t)(umem->frame_size - 1);
	return addr - in_block % umem->frame_size;
}

/* The number of the frame that this address lies in. */
static uint64_t frame_number(const struct xp_umem *umem, uint64_t addr)
{
	if (is_power_of_two(umem->frame_size))
		return addr / umem->frame_size;
	return addr / XP_BLOCK * (XP_BLOCK / umem->frame_size) +
	       (uint32_t)(addr & (XP_BLOCK - 1)) / umem->frame_size;
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
 * Find out which frames are free: those on no ring. At the start that is all of them; after a
 * worker died it includes those that it held. Only while the kernel holds none and nobody else
 * works on the rings. marks: n_frames bytes of scratch. Returns 0, or -EBUSY while the kernel
 * holds frames.
 */
int xp_adopt(struct xp_xsk *xsk, struct xp_umem *umem, uint8_t *marks)
{
	if (xp_held_by_kernel(xsk) != 0)
		return -EBUSY;
	memset(marks, 0, umem->n_frames);
	mark_ring(umem, &xsk->fill, 0, marks);
	mark_ring(umem, &xsk->rx, 1, marks);
	mark_ring(umem, &xsk->tx, 1, marks);
	mark_ring(umem, &xsk->completion, 0, marks);
	umem->n_free = 0;
	for (uint32_t i = umem->n_frames; i-- > 0;)
		if (!marks[i])
			umem->free[umem->n_free++] = xp_frame_addr(umem, i);
	return 0;
}

/*
 * How far this socket's rings have moved, by what was counted: a packet takes as many descriptors
 * as it has frames.
 */
static uint64_t rx_moved(const struct xp_worker *w)
{
	return w->counters->received - w->received_before + w->counters->received_more -
	       w->received_more_before;
}

static uint64_t tx_moved(const struct xp_worker *w)
{
	return w->counters->tx_submitted - w->tx_submitted_before + w->counters->tx_submitted_more -
	       w->tx_submitted_more_before;
}

static uint64_t completion_moved(const struct xp_worker *w)
{
	return w->counters->tx_completed - w->tx_completed_before + w->counters->tx_completed_more -
	       w->tx_completed_more_before;
}

/* Frames that were put on this socket's tx ring and have not come back. */
static uint64_t in_flight(const struct xp_worker *w)
{
	return tx_moved(w) - completion_moved(w);
}

/*
 * A packet that goes out in several frames comes back frame by frame. So that also a next worker
 * knows which frame was a packet's last, it says so in its first byte, which no packet that was
 * received reaches: the kernel's headroom.
 */
static uint8_t *is_last(const struct xp_umem *umem, uint64_t frame)
{
	return umem->base + frame;
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

/* Before a ring moves by n packets with so many further frames: write down what is to be counted. */
static void announce(uint64_t *next, uint64_t packets, uint64_t more)
{
	next[0] = packets;
	next[1] = more;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/*
 * Close the books of a worker that died: what it had taken from the rings without counting it as
 * received, or received without counting a verdict, is counted now. The ring indices tell how many
 * it took.
 */
void xp_reconcile(struct xp_worker *w)
{
	struct xp_counters *c = w->counters;
	struct xp_xsk *xsk = w->xsk;
	uint64_t tx;

	catch_up(w, uncounted(rx_moved(w), xsk->rx.consumer), &c->received, &c->received_more,
		 &c->next_received);
	c->filled += uncounted(c->filled - w->filled_before, xsk->fill.producer);
	catch_up(w, uncounted(tx_moved(w), xsk->tx.producer), &c->tx_submitted,
		 &c->tx_submitted_more, &c->next_tx_submitted);
	catch_up(w, uncounted(completion_moved(w), xsk->completion.consumer), &c->tx_completed,
		 &c->tx_completed_more, &c->next_tx_completed);
	tx = c->tx_submitted + c->tx_no_room;
	if (c->verdict_tx < tx) /* died between the ring and the counter */
		c->verdict_tx = tx;
	else /* died between the counter and the ring: those frames were never sent */
		c->tx_no_room += c->verdict_tx - tx;
	c->verdict_lost = c->received - c->verdict_drop - c->verdict_tx - c->verdict_invalid;
}

/* Take frames that were sent from the completion ring, to the free list unless `free` is NULL. */
static void take_back(struct xp_worker *w, uint64_t *free)
{
	struct xp_counters *c = w->counters;
	struct xp_umem *umem = w->umem;
	struct xp_ring *completion = &w->xsk->completion;
	uint32_t first = completion->cached_consumer;
	uint32_t n = ring_peek(completion, completion->size), n_packets = n;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t frame = frame_of(umem, xp_desc_addr(*ring_addr(completion, first + i)));

		if (w->multi_buffer)
			n_packets -= !*is_last(umem, frame);
		if (free)
			free[umem->n_free++] = frame;
	}
	if (w->multi_buffer)
		announce(&c->next_tx_completed, c->tx_completed + n_packets,
			 c->tx_completed_more + n - n_packets);
	ring_release(completion, n);
	c->tx_completed += n_packets;
	c->tx_completed_more += n - n_packets;
}

/*
 * Close the books of a queue that nobody will serve any more, its worker being dead: what waits
 * on the rx ring is lost with it, what is not sent is abandoned.
 */
void xp_abandon(struct xp_worker *w)
{
	struct xp_ring *rx = &w->xsk->rx, *completion = &w->xsk->completion;
	struct xp_counters *c = w->counters;
	uint32_t n, n_packets = 0;

	xp_reconcile(w);
	ring_resume(rx);
	ring_resume(completion);
	n = ring_peek(rx, rx->size);
	for (uint32_t i = 0; i < n; i++)
		n_packets += !(ring_desc(rx, rx->cached_consumer + i)->options & XDP_PKT_CONTD);
	c->received += n_packets;
	c->received_more += n - n_packets;
	c->verdict_lost += n_packets;
	ring_release(rx, n);
	take_back(w, NULL);
	w->counters->tx_abandoned = w->counters->tx_submitted - w->counters->tx_completed;
}

/* Put the free frames on the fill ring, as many as it takes. */
void xp_refill(struct xp_worker *w)
{
	struct xp_umem *umem = w->umem;
	uint32_t n;

	if (umem->n_free == 0)
		return;
	n = xp_fill_submit(&w->xsk->fill, umem->free, umem->n_free);
	umem->n_free -= n;
	if (umem->n_free)
		memmove(umem->free, umem->free + n, umem->n_free * sizeof(*umem->free));
	w->counters->filled += n;
}

/*
 * Read what the NIC told of the packets of the batch. Frames hold nothing else where hints stand, in
 * the kernel's headroom, and a link either gets them before every packet or before none: so what
 * has the mark is this packet's.
 */
static void read_hints(struct xp_batch *b)
{
	for (uint32_t i = 0; i < b->n; i++) {
		struct xp_hints hints = {0};

		if (b->addr[i] >= sizeof(hints))
			memcpy(&hints, b->base + b->addr[i] - sizeof(hints), sizeof(hints));
		if (hints.magic != XP_HINTS_MAGIC)
			memset(&hints, 0, sizeof(hints));
		b->nic_told[i] = (uint8_t)hints.present;
		b->nic_hash[i] = hints.hash;
		b->nic_time_ns[i] = hints.time_ns;
		b->nic_vlan_tci[i] = hints.vlan_tci;
	}
}

/*
 * Put the packet on the rx ring whose descriptors are [first, first + n_frames) into the batch, as
 * its packet i.
 */
static uint32_t take_packet(struct xp_batch *b, uint32_t i, const struct xp_ring *rx, uint32_t first,
			    uint32_t n_frames, uint64_t now)
{
	const struct xdp_desc *d = ring_desc(rx, first);
	uint32_t len = d->len;

	b->addr[i] = xp_desc_addr(d->addr);
	b->head_len[i] = (int32_t)len;
	b->time_ns[i] = now;
	b->n_frames[i] = (uint8_t)n_frames;
	b->more[i] = b->n_more;
	for (uint32_t k = 1; k < n_frames; k++) {
		d = ring_desc(rx, first + k);
		b->more_addr[b->n_more] = xp_desc_addr(d->addr);
		b->more_len[b->n_more++] = (int32_t)d->len;
		len += d->len;
	}
	b->len[i] = (int32_t)len;
	b->verdict[i] = XP_UNDECIDED;
	return len;
}

/* xp_receive where packets may come in several frames: only whole packets are taken. */
static int receive_multi_buffer(struct xp_worker *w)
{
	struct xp_ring *rx = &w->xsk->rx;
	struct xp_batch *b = w->batch;
	struct xp_counters *c = w->counters;
	uint32_t first = rx->cached_consumer;
	uint32_t there = ring_peek(rx, rx->size);
	uint32_t used = 0, end = 0;
	uint64_t bytes = 0;
	uint64_t now = there ? now_ns(CLOCK_REALTIME) : 0;

	b->n = b->n_more = 0;
	while (b->n < b->capacity) {
		while (end < there && ring_desc(rx, first + end)->options & XDP_PKT_CONTD)
			end++;
		if (end == there || b->n_more + end - used > b->more_capacity)
			break;
		end++;
		bytes += take_packet(b, b->n++, rx, first + used, end - used, now);
		used = end;
	}
	if (b->n == 0)
		return 0;
	if (w->hints)
		read_hints(b);
	announce(&c->next_received, c->received + b->n, c->received_more + b->n_more);
	ring_release(rx, used);
	c->received += b->n;
	c->received_more += b->n_more;
	c->received_bytes += bytes;
	c->batches++;
	return (int)b->n;
}

/*
 * Take up to batch->capacity packets from the rx ring into the batch, which owns their frames
 * then. Returns how many.
 */
int xp_receive(struct xp_worker *w)
{
	struct xp_ring *rx = &w->xsk->rx;
	struct xp_batch *b = w->batch;
	uint32_t first = rx->cached_consumer;
	uint64_t bytes = 0;
	uint32_t n;
	uint64_t now;

	if (w->multi_buffer)
		return receive_multi_buffer(w);
	n = ring_peek(rx, b->capacity);
	b->n = n;
	if (n == 0)
		return 0;
	now = now_ns(CLOCK_REALTIME);
	for (uint32_t i = 0; i < n; i++) {
		const struct xdp_desc *d = ring_desc(rx, first + i);

		b->addr[i] = xp_desc_addr(d->addr);
		b->len[i] = (int32_t)d->len;
		b->head_len[i] = (int32_t)d->len;
		b->time_ns[i] = now;
		bytes += d->len;
	}
	memset(b->verdict, XP_UNDECIDED, n);
	memset(b->n_frames, 1, n);
	if (w->hints)
		read_hints(b);
	ring_release(rx, n);
	w->counters->received += n;
	w->counters->received_bytes += bytes;
	w->counters->batches++;
	return (int)n;
}

/* Ask the kernel to send. Copy mode sends within the call, a budget of packets at a time. */
static void kick_tx(struct xp_worker *w)
{
	struct xp_counters *c = w->counters;
	struct xp_ring *tx = &w->xsk->tx;
	uint32_t before = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE);

	for (int i = 0; i < SEND_CALLS_MAX; i++) {
		uint32_t after;

		if (before == tx->cached_producer)
			return;
		if (!ring_needs_wakeup(tx) && !w->always_wake && !w->busy_poll)
			return;
		c->wakeups++;
		if (sendto(w->xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0) {
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

/* Put the frames of packet i of the batch on the free list. */
static void free_packet(struct xp_umem *umem, const struct xp_batch *b, uint32_t i)
{
	umem->free[umem->n_free++] = frame_of(umem, b->addr[i]);
	for (uint32_t k = 0; k + 1 < b->n_frames[i]; k++)
		umem->free[umem->n_free++] = frame_of(umem, b->more_addr[b->more[i] + k]);
}

/* Write packet i of the batch to the tx ring, from index `at` on; there is room. */
static void write_tx(const struct xp_worker *w, uint32_t i, uint32_t at)
{
	const struct xp_batch *b = w->batch;
	uint32_t n_frames = b->n_frames[i], more = b->more[i];

	for (uint32_t k = 0; k < n_frames; k++) {
		struct xdp_desc *d = ring_desc(&w->xsk->tx, at + k);
		int last = k + 1 == n_frames;

		d->addr = k ? b->more_addr[more + k - 1] : b->addr[i];
		d->len = (uint32_t)(k ? b->more_len[more + k - 1] : b->head_len[i]);
		d->options = last ? 0 : XDP_PKT_CONTD;
		*is_last(w->umem, frame_of(w->umem, d->addr)) = (uint8_t)last;
	}
}

/*
 * Put n_tx packets of the batch, by w->tx_scratch, on the tx ring, where packets may have several
 * frames; free those that there is no room for. Counts them.
 */
static void send_multi_buffer(struct xp_worker *w, uint32_t n_tx)
{
	struct xp_counters *c = w->counters;
	struct xp_batch *b = w->batch;
	struct xp_ring *tx = &w->xsk->tx;
	uint32_t wanted = 0, used = 0, sent = 0, first, room;

	for (uint32_t i = 0; i < n_tx; i++)
		wanted += b->n_frames[w->tx_scratch[i]];
	room = ring_reserve(tx, wanted);
	first = tx->cached_producer;
	for (uint32_t i = 0; i < n_tx; i++) {
		uint32_t at = w->tx_scratch[i];

		if (sent == i && used + b->n_frames[at] <= room) { /* else later ones go first */
			write_tx(w, at, first + used);
			used += b->n_frames[at];
			sent++;
		} else {
			free_packet(w->umem, b, at);
		}
	}
	announce(&c->next_tx_submitted, c->tx_submitted + sent,
		 c->tx_submitted_more + used - sent);
	ring_submit(tx, used);
	c->verdict_tx += n_tx;
	c->tx_submitted += sent;
	c->tx_submitted_more += used - sent;
	c->tx_no_room += n_tx - sent;
}

/*
 * Give every packet of the batch what its verdict says: DROP frees its frame, TX puts it on the
 * tx ring, or frees and counts it where that is full. The batch owns nothing afterwards.
 */
void xp_dispatch(struct xp_worker *w)
{
	struct xp_counters *c = w->counters;
	struct xp_umem *umem = w->umem;
	struct xp_batch *b = w->batch;
	struct xp_ring *tx = &w->xsk->tx;
	uint8_t rest = (uint8_t)w->default_verdict;
	uint32_t n_tx = 0, n_drop = 0, n_invalid = 0, sent, first;

	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t v = b->verdict[i] == XP_UNDECIDED ? rest : b->verdict[i];

		if (v == XP_TX) {
			w->tx_scratch[n_tx++] = i;
			continue;
		}
		if (v == XP_DROP)
			n_drop++;
		else
			n_invalid++;
		if (w->multi_buffer)
			free_packet(umem, b, i);
		else
			umem->free[umem->n_free++] = frame_of(umem, b->addr[i]);
	}
	c->verdict_drop += n_drop;
	c->verdict_invalid += n_invalid;
	b->n = 0;
	if (n_tx == 0)
		return;
	if (w->multi_buffer) {
		send_multi_buffer(w, n_tx);
		return;
	}
	sent = ring_reserve(tx, n_tx);
	first = tx->cached_producer;
	for (uint32_t i = 0; i < n_tx; i++) {
		uint32_t at = w->tx_scratch[i];

		if (i < sent) {
			struct xdp_desc *d = ring_desc(tx, first + i);

			d->addr = b->addr[at];
			d->len = (uint32_t)b->len[at];
			d->options = 0;
		} else {
			umem->free[umem->n_free++] = frame_of(umem, b->addr[at]);
		}
	}
	ring_submit(tx, sent);
	c->verdict_tx += n_tx;
	c->tx_submitted += sent;
	c->tx_no_room += n_tx - sent;
}

/* Have the kernel send what is on the tx ring, and take back the frames of what it has sent. */
void xp_reclaim(struct xp_worker *w)
{
	if (in_flight(w) == 0)
		return;
	kick_tx(w);
	take_back(w, w->umem->free);
}

/*
 * Completion to free, and free to fill: REFILL_MIN frames or more at a time, so that small batches
 * do not each pull the ring's index from the kernel's core. xp_cycle gives the rest before it waits.
 */
void xp_service(struct xp_worker *w)
{
	xp_reclaim(w);
	if (w->umem->n_free >= REFILL_MIN)
		xp_refill(w);
}

/*
 * Copy packets that lie elsewhere into free frames and send them, as many as there are frames and
 * room for; none may be longer than a frame. Returns how many were submitted. For sockets that
 * only send: their frames do not go to the fill ring.
 */
uint32_t xp_transmit(struct xp_worker *w, const uint8_t *packets, const uint64_t *offsets,
		     const int32_t *lens, uint32_t n)
{
	struct xp_umem *umem = w->umem;
	struct xp_ring *tx = &w->xsk->tx;
	uint32_t first;

	xp_reclaim(w);
	if (n > umem->n_free)
		n = umem->n_free;
	n = ring_reserve(tx, n);
	first = tx->cached_producer;
	for (uint32_t i = 0; i < n; i++) {
		struct xdp_desc *d = ring_desc(tx, first + i);

		d->addr = umem->free[--umem->n_free];
		d->len = (uint32_t)lens[i];
		d->options = 0;
		memcpy(umem->base + d->addr, packets + offsets[i], d->len);
	}
	ring_submit(tx, n);
	w->counters->tx_submitted += n;
	xp_reclaim(w);
	return n;
}

/*
 * Have the driver's receive work done now, within the call (xsk_recvmsg in net/xdp/xsk.c), which
 * wakes a driver that was out of frames as well.
 */
static void busy_poll(struct xp_worker *w)
{
	w->counters->busy_polls++;
	recvfrom(w->xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static int attention_wanted(const struct xp_worker *w)
{
	return __atomic_load_n(w->attention, __ATOMIC_RELAXED) != w->attended;
}

/* Write the gauges: where the frames are. The counters are always up to date. */
void xp_publish(struct xp_worker *w)
{
	struct xp_counters *c = w->counters;
	uint64_t with_kernel = (c->filled - w->filled_before) - rx_moved(w) + in_flight(w);

	c->frames_free = w->umem->n_free;
	c->frames_batch = w->batch ? w->batch->n : 0; /* replay has none */
	if (w->multi_buffer && c->frames_batch)
		c->frames_batch += w->batch->n_more;
	/* Against the way that frames go: one that moves meanwhile is missed, never counted twice. */
	c->frames_rx = xp_ring_count(&w->xsk->rx);
	c->frames_fill = xp_ring_count(&w->xsk->fill);
	c->frames_completion = xp_ring_count(&w->xsk->completion);
	c->frames_tx = xp_ring_count(&w->xsk->tx);
	c->frames_kernel = with_kernel - c->frames_fill - c->frames_rx - c->frames_tx -
			   c->frames_completion;
}

/*
 * Look at the rx ring for spin_us, then poll until packets come or the supervisor calls.
 *
 * A zero-copy driver that found no frame on the fill ring receives nothing more until it is woken
 * (XDP_RING_NEED_WAKEUP, af_xdp.rst): now that there are frames, it is. poll does that as well.
 */
void xp_wait(struct xp_worker *w)
{
	struct pollfd fds[2] = {{w->xsk->fd, POLLIN, 0}, {w->control_fd, POLLIN, 0}};
	uint64_t end = now_ns(CLOCK_MONOTONIC) + w->spin_us * 1000ull;
	int timeout_ms = w->poll_timeout_ms;

	if (ring_needs_wakeup(&w->xsk->fill)) {
		w->counters->wakeups++;
		recvfrom(w->xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	}
	do {
		for (int i = 0; i < 32; i++) {
			if (ring_peek(&w->xsk->rx, 1) || attention_wanted(w))
				return;
			if (w->busy_poll)
				busy_poll(w);
			else
				relax();
		}
	} while (now_ns(CLOCK_MONOTONIC) < end);
	/* what is on its way out comes back without a wake-up: look again soon */
	if (in_flight(w) != 0 && timeout_ms > 1)
		timeout_ms = 1;
	xp_publish(w);
	w->counters->polls++;
	poll(fds, 2, timeout_ms);
}

/* Run native stages one after the other on a batch. */
void xp_run_stages(struct xp_batch *batch, struct xp_stage *stages, uint32_t n)
{
	uint64_t before, after;

	if (n == 0)
		return;
	before = now_ns(CLOCK_MONOTONIC);
	for (struct xp_stage *s = stages; s < stages + n; s++) {
		if (s->run(batch, s->state) < 0)
			s->counts[XP_STAGE_ERRORS]++;
		after = now_ns(CLOCK_MONOTONIC);
		s->counts[XP_STAGE_PACKETS] += batch->n;
		s->counts[XP_STAGE_NS] += after - before;
		before = after;
	}
}

/* Count the time since packets began to come as busy, if they had. */
static void end_busy(struct xp_worker *w)
{
	if (w->busy_since_ns)
		w->counters->busy_ns += now_ns(CLOCK_MONOTONIC) - w->busy_since_ns;
	w->busy_since_ns = 0;
}

/*
 * One turn: dispatch the batch of the turn before, service the rings, receive (or wait for
 * packets), run the leading native stages. Returns how many packets the batch holds, or
 * XP_CONTROL, with an empty batch, when the supervisor calls.
 */
int xp_cycle(struct xp_worker *w)
{
	int n;

	if (w->batch->n)
		xp_dispatch(w);
	xp_service(w);
	if (attention_wanted(w)) {
		end_busy(w);
		return XP_CONTROL;
	}
	n = xp_receive(w);
	if (n == 0 && w->busy_poll) {
		xp_refill(w);
		busy_poll(w);
		n = xp_receive(w);
	}
	if (n == 0) {
		end_busy(w);
		xp_refill(w);
		xp_wait(w);
		w->busy_since_ns = now_ns(CLOCK_MONOTONIC);
		n = xp_receive(w);
		if (n == 0) {
			w->busy_since_ns = 0;
			return 0;
		}
	}
	if (!w->busy_since_ns) /* the first turn of all */
		w->busy_since_ns = now_ns(CLOCK_MONOTONIC);
	if ((w->counters->batches & 255) == 0)
		xp_publish(w);
	xp_run_stages(w->batch, w->stages, w->n_stages);
	return n;
}

/* Turn until the supervisor calls: the loop of a chain that is native throughout. */
int xp_run(struct xp_worker *w)
{
	int n;

	do
		n = xp_cycle(w);
	while (n != XP_CONTROL);
	return n;
}

/*
 * Wait until what was submitted is sent; count what is not within timeout_ms as abandoned.
 * Returns how many packets that is. The last thing a worker does with its socket.
 */
int xp_drain_tx(struct xp_worker *w, uint32_t timeout_ms)
{
	struct xp_counters *c = w->counters;
	uint64_t end = now_ns(CLOCK_MONOTONIC) + timeout_ms * 1000000ull;

	do
		xp_reclaim(w);
	while (in_flight(w) != 0 && now_ns(CLOCK_MONOTONIC) < end);
	c->tx_abandoned = c->tx_submitted - c->tx_completed;
	xp_publish(w);
	return (int)c->tx_abandoned;
}
