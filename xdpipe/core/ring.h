/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP rings: single producer, single consumer, in memory shared with the kernel
 * (Documentation/networking/af_xdp.rst; net/xdp/xsk_queue.h has the kernel's half and explains
 * the pairing of the barriers).
 *
 *   producer:  look at consumer (acquire)   write entries   publish producer (release)
 *   consumer:  look at producer (acquire)   read entries    publish consumer (release)
 *
 * The acquire of one side pairs with the release of the other: entries are never read before
 * they are written nor overwritten before they are read. Indices are uint32_t that wrap, so
 * differences are right across 0xFFFFFFFF.
 *
 * Two verbs a side, as in libxdp: reserve and submit, peek and release. The cached index saves a
 * touch of the other side's cache line while there is still enough to do.
 */
#ifndef XP_RING_H
#define XP_RING_H

#include <linux/if_xdp.h>

#include "xp.h"

#ifndef XDP_PKT_CONTD /* Linux 6.6 */
#define XDP_PKT_CONTD (1 << 0)
#endif

#ifndef XDP_TX_METADATA /* Linux 6.8 */
#define XDP_TX_METADATA (1 << 1)
#endif

/* Reserve up to n slots to write, from index ring->cached_producer on. Returns how many. */
static inline uint32_t ring_reserve(struct xp_ring *r, uint32_t n)
{
	uint32_t room = r->size - (r->cached_producer - r->cached_consumer);

	if (room < n) {
		/* pairs with the kernel's release in __xskq_cons_release */
		r->cached_consumer = __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE);
		room = r->size - (r->cached_producer - r->cached_consumer);
		if (room < n)
			n = room;
	}
	return n;
}

/* Hand n written slots to the kernel. */
static inline void ring_submit(struct xp_ring *r, uint32_t n)
{
	r->cached_producer += n;
	/* pairs with the kernel's acquire in __xskq_cons_peek */
	__atomic_store_n(r->producer, r->cached_producer, __ATOMIC_RELEASE);
}

/* How many slots are there to read, n at the most, from index ring->cached_consumer on. */
static inline uint32_t ring_peek(struct xp_ring *r, uint32_t n)
{
	uint32_t there = r->cached_producer - r->cached_consumer;

	if (there < n) {
		/* pairs with the kernel's release in __xskq_prod_submit */
		r->cached_producer = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
		there = r->cached_producer - r->cached_consumer;
	}
	return there < n ? there : n;
}

/* Give n read slots back to the kernel. */
static inline void ring_release(struct xp_ring *r, uint32_t n)
{
	r->cached_consumer += n;
	/* pairs with the kernel's acquire in xskq_prod_nb_free */
	__atomic_store_n(r->consumer, r->cached_consumer, __ATOMIC_RELEASE);
}

/* Go on consuming where another process, which is no more, left off. */
static inline void ring_resume(struct xp_ring *r)
{
	r->cached_consumer = __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE);
	r->cached_producer = r->cached_consumer;
}

/*
 * The address of a packet's first byte. With frames of any size the kernel gives the frame's
 * address as it was on the fill ring, and the offset in it in the upper bits (af_xdp.rst,
 * XDP_UMEM_UNALIGNED_CHUNK_FLAG); else those are 0.
 */
static inline uint64_t xp_desc_addr(uint64_t addr)
{
	return (addr & XSK_UNALIGNED_BUF_ADDR_MASK) + (addr >> XSK_UNALIGNED_BUF_OFFSET_SHIFT);
}

static inline uint64_t *ring_addr(const struct xp_ring *r, uint32_t index)
{
	return (uint64_t *)r->entries + (index & r->mask);
}

static inline struct xdp_desc *ring_desc(const struct xp_ring *r, uint32_t index)
{
	return (struct xdp_desc *)r->entries + (index & r->mask);
}

static inline int ring_needs_wakeup(const struct xp_ring *r)
{
	return *(volatile uint32_t *)r->flags & XDP_RING_NEED_WAKEUP;
}

#endif
