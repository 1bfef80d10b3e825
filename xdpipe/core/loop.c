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

/* Put up to n free frames on a port's fill ring. */
static void fill(struct xp_umem *umem, struct xp_port *port, uint64_t n)
{
	if (n > umem->n_free)
		n = umem->n_free;
	n = xp_fill_submit(&port->xsk->fill, umem->free, (uint32_t)n);
	umem->n_free -= (uint32_t)n;
	if (umem->n_free)
		memmove(umem->free, umem->free + n, umem->n_free * sizeof(*umem->free));
	port->counters->filled += n;
}

/*
 * Put the free frames on the fill rings, as many as they take: each port has the same share of all
 * frames to receive in, so that one which is flooded leaves the others theirs. Where there are too few
 * for that, since much is on its way out, the port that is looked at next comes first.
 */
void xp_refill(struct xp_worker *w)
{
	uint64_t share = w->umem->n_frames / w->n_ports;
	uint32_t port = w->next_port;

	for (uint32_t k = 0; k < w->n_ports && w->umem->n_free; k++) {
		uint64_t has = receiving(w->ports + port);

		if (has < share)
			fill(w->umem, w->ports + port, share - has);
		port = port + 1 == w->n_ports ? 0 : port + 1;
	}
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
 * Have the drivers' receive work done now, within the call (xsk_recvmsg in net/xdp/xsk.c), which
 * wakes a driver that was out of frames as well.
 */
static void busy_poll(struct xp_worker *w)
{
	for (uint32_t p = 0; p < w->n_ports; p++) {
		w->ports[p].counters->busy_polls++;
		recvfrom(w->ports[p].xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	}
}

static int attention_wanted(const struct xp_worker *w)
{
	return __atomic_load_n(w->attention, __ATOMIC_RELAXED) != w->attended;
}

/* Write the gauges: where the frames are. The counters are always up to date. */
void xp_publish(struct xp_worker *w)
{
	struct xp_counters *c = w->ports->counters;

	c->frames_free = w->umem->n_free;
	c->frames_batch = w->batch ? w->batch->n : 0; /* replay has none */
	if (w->multi_buffer && c->frames_batch)
		c->frames_batch += w->batch->n_more;
	for (const struct xp_port *p = w->ports; p < w->ports + w->n_ports; p++) {
		uint64_t with_kernel = receiving(p) + in_flight(p);

		c = p->counters;
		/* Against the way that frames go: one that moves meanwhile is missed, never counted
		 * twice. */
		c->frames_rx = xp_ring_count(&p->xsk->rx);
		c->frames_fill = xp_ring_count(&p->xsk->fill);
		c->frames_completion = xp_ring_count(&p->xsk->completion);
		c->frames_tx = xp_ring_count(&p->xsk->tx);
		c->frames_kernel = with_kernel - c->frames_fill - c->frames_rx - c->frames_tx -
				   c->frames_completion;
	}
}

/* Are there packets on a rx ring? */
static int some_wait(const struct xp_worker *w)
{
	for (uint32_t p = 0; p < w->n_ports; p++)
		if (ring_peek(&w->ports[p].xsk->rx, 1))
			return 1;
	return 0;
}

/* Is anything on its way out? */
static int some_leave(const struct xp_worker *w)
{
	for (uint32_t p = 0; p < w->n_ports; p++)
		if (in_flight(w->ports + p) != 0)
			return 1;
	return 0;
}

/*
 * Look at the rx rings for spin_us, then poll until packets come or the supervisor calls.
 *
 * A zero-copy driver that found no frame on the fill ring receives nothing more until it is woken
 * (XDP_RING_NEED_WAKEUP, af_xdp.rst): now that there are frames, it is. poll does that as well.
 */
void xp_wait(struct xp_worker *w)
{
	struct pollfd fds[1 + XP_PORTS_MAX] = {{w->control_fd, POLLIN, 0}};
	uint64_t end = now_ns(CLOCK_MONOTONIC) + w->spin_us * 1000ull;
	int timeout_ms = w->poll_timeout_ms;

	for (uint32_t p = 0; p < w->n_ports; p++) {
		const struct xp_xsk *xsk = w->ports[p].xsk;

		fds[1 + p] = (struct pollfd){xsk->fd, POLLIN, 0};
		if (ring_needs_wakeup(&xsk->fill)) {
			w->ports[p].counters->wakeups++;
			recvfrom(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
		}
	}
	do {
		for (int i = 0; i < 32; i++) {
			if (some_wait(w) || attention_wanted(w))
				return;
			if (w->busy_poll)
				busy_poll(w);
			else
				relax();
		}
	} while (now_ns(CLOCK_MONOTONIC) < end);
	/* what is on its way out comes back without a wake-up: look again soon */
	if (some_leave(w) && timeout_ms > 1)
		timeout_ms = 1;
	xp_publish(w);
	w->ports->counters->polls++;
	poll(fds, 1 + w->n_ports, timeout_ms);
}

/* Count what a stage did with a batch of n packets. */
static void count_stage(const struct xp_stage *s, uint32_t n, uint64_t ns)
{
	s->counts[XP_STAGE_PACKETS] += n;
	s->counts[XP_STAGE_NS] += ns;
	if (ns > s->counts[XP_STAGE_MAX_NS])
		s->counts[XP_STAGE_MAX_NS] = ns;
	if (ns > s->budget_ns)
		s->counts[XP_STAGE_OVER_BUDGET]++;
}

/* Begin the batch's rows of these columns at 0. */
void xp_zero_rows(const struct xp_batch *batch, const struct xp_rows *rows, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++)
		memset(rows[k].at, 0, (size_t)rows[k].size * batch->n);
}

/* Run native stages one after the other on a batch. */
void xp_run_stages(struct xp_batch *batch, struct xp_stage *stages, uint32_t n)
{
	uint64_t before, after;

	if (n == 0)
		return;
	before = now_ns(CLOCK_MONOTONIC);
	for (struct xp_stage *s = stages; s < stages + n; s++) {
		if (s->n_zeroed)
			xp_zero_rows(batch, s->zeroed, s->n_zeroed);
		if (s->run(batch, s->state) < 0)
			s->counts[XP_STAGE_ERRORS]++;
		after = now_ns(CLOCK_MONOTONIC);
		count_stage(s, batch->n, after - before);
		before = after;
		if (batch->taps) {
			xp_tap_stage(batch, s->number);
			before = now_ns(CLOCK_MONOTONIC); /* the tap's time is not the stage's */
		}
	}
}

/* No packet came: let the stages that asked for it know what time it is. */
static void run_idle(struct xp_worker *w)
{
	xp_batch_none(w->batch, now_ns(CLOCK_REALTIME));
	for (uint32_t i = 0; i < w->n_idle; i++)
		xp_run_stages(w->batch, w->idle[i], 1);
}

/* Count the time since packets began to come as busy, if they had. */
static void end_busy(struct xp_worker *w)
{
	if (w->busy_since_ns)
		w->ports->counters->busy_ns += now_ns(CLOCK_MONOTONIC) - w->busy_since_ns;
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
			if (w->n_idle)
				run_idle(w);
			return 0;
		}
	}
	if (!w->busy_since_ns) /* the first turn of all */
		w->busy_since_ns = now_ns(CLOCK_MONOTONIC);
	if ((w->ports[w->batch->port].counters->batches & 255) == 0)
		xp_publish(w);
	if (w->batch->taps)
		xp_tap_received(w->batch);
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
