/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's loop: receive, run the chain, dispatch by verdict, service the rings, wait.
 *
 * Every frame of the UMEM is in one place: on the free list, on the fill ring, in the kernel, on
 * the rx ring, in the batch, on the tx ring, on the completion ring. The functions here and in
 * receive.c and send.c move frames between those places and allocate nothing.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "frames.h"

#define REFILL_MIN 64 /* frames go to the fill ring so many at a time, while packets come */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
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
