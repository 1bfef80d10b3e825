/* SPDX-License-Identifier: Apache-2.0 */
/* The rings one verb at a time: for set-up, for replay, and for tests that play the kernel. */
#include "ring.h"

/*
 * Look at a ring in memory that both sides map. `size` is a power of two. The cached indices
 * start from what the shared ones say, so that a ring in use can be taken over.
 */
void xp_ring_init(struct xp_ring *ring, uint32_t *producer, uint32_t *consumer, uint32_t *flags,
		  void *entries, uint32_t size, int we_produce)
{
	ring->producer = producer;
	ring->consumer = consumer;
	ring->flags = flags;
	ring->entries = entries;
	ring->size = size;
	ring->mask = size - 1;
	ring->map = NULL;
	ring->map_size = 0;
	ring->cached_producer = __atomic_load_n(producer, __ATOMIC_ACQUIRE);
	ring->cached_consumer = __atomic_load_n(consumer, __ATOMIC_ACQUIRE);
	if (!we_produce)
		ring->cached_producer = ring->cached_consumer;
}

/* Entries between consumer and producer, as both sides have published them. */
uint32_t xp_ring_count(const struct xp_ring *ring)
{
	uint32_t consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);

	return __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE) - consumer;
}

/* Put up to n frames on the fill ring; the kernel owns those. Returns how many. */
uint32_t xp_fill_submit(struct xp_ring *fill, const uint64_t *addrs, uint32_t n)
{
	uint32_t first = fill->cached_producer;

	n = ring_reserve(fill, n);
	for (uint32_t i = 0; i < n; i++)
		*ring_addr(fill, first + i) = addrs[i];
	ring_submit(fill, n);
	return n;
}

/* Take up to n completed frames back from the kernel. Returns how many. */
uint32_t xp_completion_consume(struct xp_ring *completion, uint64_t *addrs, uint32_t n)
{
	uint32_t first = completion->cached_consumer;

	n = ring_peek(completion, n);
	for (uint32_t i = 0; i < n; i++)
		addrs[i] = *ring_addr(completion, first + i);
	ring_release(completion, n);
	return n;
}

/* Put up to n packets on the tx ring; the kernel owns their frames. Returns how many. */
uint32_t xp_tx_submit(struct xp_ring *tx, const uint64_t *addrs, const uint32_t *lens, uint32_t n)
{
	uint32_t first = tx->cached_producer;

	n = ring_reserve(tx, n);
	for (uint32_t i = 0; i < n; i++) {
		struct xdp_desc *d = ring_desc(tx, first + i);

		d->addr = addrs[i];
		d->len = lens[i];
		d->options = 0;
	}
	ring_submit(tx, n);
	return n;
}

/* Take up to n received packets; the caller owns their frames. Returns how many. */
uint32_t xp_rx_consume(struct xp_ring *rx, uint64_t *addrs, uint32_t *lens, uint32_t n)
{
	uint32_t first = rx->cached_consumer;

	n = ring_peek(rx, n);
	for (uint32_t i = 0; i < n; i++) {
		const struct xdp_desc *d = ring_desc(rx, first + i);

		addrs[i] = xp_desc_addr(d->addr);
		lens[i] = d->len;
	}
	ring_release(rx, n);
	return n;
}
