/* SPDX-License-Identifier: Apache-2.0 */
/* Where frames lie in the UMEM, and what a worker's loop (receive.c, send.c, loop.c) and who closes
 * its books (recover.c) both need. */
#ifndef XP_FRAMES_H
#define XP_FRAMES_H

#include <time.h>

#include "ring.h"

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Let the core's other thread go first, in a loop that waits. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static inline int is_power_of_two(uint32_t n)
{
	return (n & (n - 1)) == 0;
}

/* Where the frame begins that this address lies in. */
static inline uint64_t frame_of(const struct xp_umem *umem, uint64_t addr)
{
	uint32_t in_block = (uint32_t)(addr & (XP_BLOCK - 1));

	if (is_power_of_two(umem->frame_size))
		return addr & ~(uint64_t)(umem->frame_size - 1);
	return addr - in_block % umem->frame_size;
}

/* The number of the frame that this address lies in. */
static inline uint64_t frame_number(const struct xp_umem *umem, uint64_t addr)
{
	if (is_power_of_two(umem->frame_size))
		return addr / umem->frame_size;
	return addr / XP_BLOCK * (XP_BLOCK / umem->frame_size) +
	       (uint32_t)(addr & (XP_BLOCK - 1)) / umem->frame_size;
}

/* Put the frames of packet i of the batch on the free list. */
static inline void free_packet(struct xp_umem *umem, const struct xp_batch *b, uint32_t i)
{
	umem->free[umem->n_free++] = frame_of(umem, b->addr[i]);
	for (uint32_t k = 0; k + 1 < b->n_frames[i]; k++)
		umem->free[umem->n_free++] = frame_of(umem, b->more_addr[b->more[i] + k]);
}

/*
 * A packet that goes out in several frames comes back frame by frame. So that also a next worker
 * knows which frame was a packet's last, it says so in its first byte, which no packet that was
 * received reaches: the kernel's headroom.
 */
static inline uint8_t *is_last(const struct xp_umem *umem, uint64_t frame)
{
	return umem->base + frame;
}

/*
 * Likewise the second byte: 1 if it is to be told when the packet leaves (tx_metadata.c). It is 0 in
 * frames that no worker has sent such a packet in.
 */
static inline uint8_t *wants_time(const struct xp_umem *umem, uint64_t frame)
{
	return umem->base + frame + 1;
}

/*
 * Bytes of a frame that no packet grows into: those two, what is asked of NIC or kernel before a packet
 * that leaves and the stage's number with it, and room for a VLAN tag that the NIC took out
 * (tx_metadata.c).
 */
#define FRAME_KEPT 40

/* How many bytes a packet may grow into that begins so far from the start of its frame. */
static inline uint16_t headroom_at(uint32_t before)
{
	return (uint16_t)(before > FRAME_KEPT ? before - FRAME_KEPT : 0);
}

/*
 * How far this socket's rings have moved, by what was counted: a packet takes as many descriptors
 * as it has frames.
 */
static inline uint64_t rx_moved(const struct xp_port *p)
{
	return p->counters->received - p->received_before + p->counters->received_more -
	       p->received_more_before;
}

static inline uint64_t tx_moved(const struct xp_port *p)
{
	return p->counters->tx_submitted - p->tx_submitted_before + p->counters->tx_submitted_more -
	       p->tx_submitted_more_before;
}

static inline uint64_t completion_moved(const struct xp_port *p)
{
	return p->counters->tx_completed - p->tx_completed_before + p->counters->tx_completed_more -
	       p->tx_completed_more_before;
}

/* Frames that were put on this socket's tx ring and have not come back. */
static inline uint64_t in_flight(const struct xp_port *p)
{
	return tx_moved(p) - completion_moved(p);
}

/* Frames that are to be received in: on the fill ring, with the kernel, or on the rx ring. */
static inline uint64_t receiving(const struct xp_port *p)
{
	return p->counters->filled - p->filled_before - rx_moved(p);
}

/* Before a ring moves by n packets with so many further frames: write down what is to be counted. */
static inline void announce(uint64_t *next, uint64_t packets, uint64_t more)
{
	next[0] = packets;
	next[1] = more;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#endif
