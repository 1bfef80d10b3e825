/* SPDX-License-Identifier: Apache-2.0 */
/* From the rx ring into the batch. */
#include <string.h>

#include "frames.h"
#include "hints.h"

/*
 * Read what the NIC told of the packets of the batch, or say that it told nothing. Frames hold nothing
 * else where hints stand, in the kernel's headroom, and a link either gets them before every packet or
 * before none: so what has the mark is this packet's.
 */
static void read_hints(struct xp_batch *b, int told)
{
	for (uint32_t i = 0; i < b->n; i++) {
		struct xp_hints hints = {0};

		if (told && b->addr[i] >= sizeof(hints))
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

/* Note how much room there is before each packet of the batch; several at a time, by the compiler. */
static void note_headroom(struct xp_batch *b, const struct xp_umem *umem)
{
	const uint64_t *restrict addr = b->addr;
	uint16_t *restrict headroom = b->headroom;
	uint32_t n = b->n, mask = umem->frame_size - 1;

	if (is_power_of_two(umem->frame_size))
		for (uint32_t i = 0; i < n; i++)
			headroom[i] = headroom_at((uint32_t)addr[i] & mask);
	else
		for (uint32_t i = 0; i < n; i++)
			headroom[i] = headroom_at((uint32_t)(addr[i] - frame_of(umem, addr[i])));
}

/* The batch is made of n descriptors of a port: count its packets, and give the descriptors back. */
static int finish_receive(struct xp_worker *w, struct xp_port *in, uint32_t n, uint64_t bytes)
{
	struct xp_counters *c = in->counters;
	struct xp_batch *b = w->batch;
	uint32_t more = n - b->n;

	b->n_text = 0;
	note_headroom(b, w->umem);
	memset(b->mark, 0, b->n * sizeof(*b->mark));
	if (w->hints)
		read_hints(b, (int)in->hints);
	if (w->n_ports > 1) {
		xp_batch_set_port(b, (uint32_t)(in - w->ports), w->n_ports);
		w->ports->counters->batch_port = b->port;
		__atomic_signal_fence(__ATOMIC_SEQ_CST); /* known before any packet of it is ours */
	}
	if (w->multi_buffer)
		announce(&c->next_received, c->received + b->n, c->received_more + more);
	ring_release(&in->xsk->rx, n);
	c->received += b->n;
	c->received_more += more;
	c->received_bytes += bytes;
	c->batches++;
	return (int)b->n;
}

/* receive where packets may come in several frames: only whole packets are taken. */
static int receive_multi_buffer(struct xp_worker *w, struct xp_port *in)
{
	struct xp_ring *rx = &in->xsk->rx;
	struct xp_batch *b = w->batch;
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
	return finish_receive(w, in, used, bytes);
}

static int receive(struct xp_worker *w, struct xp_port *in)
{
	struct xp_ring *rx = &in->xsk->rx;
	struct xp_batch *b = w->batch;
	uint32_t first = rx->cached_consumer;
	uint64_t bytes = 0;
	uint32_t n;
	uint64_t now;

	if (w->multi_buffer)
		return receive_multi_buffer(w, in);
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
	return finish_receive(w, in, n, bytes);
}

/*
 * Take up to batch->capacity packets from an rx ring into the batch, which owns their frames then: of
 * one port, the ports in turn. Returns how many.
 */
int xp_receive(struct xp_worker *w)
{
	for (uint32_t k = 0; k < w->n_ports; k++) {
		uint32_t port = w->next_port;
		int n = receive(w, w->ports + port);

		w->next_port = port + 1 == w->n_ports ? 0 : port + 1;
		if (n)
			return n;
	}
	return 0;
}
