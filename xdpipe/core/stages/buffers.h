/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers of one size, for messages that come in several pieces: a fixed number, and when all are taken,
 * the one that was taken longest ago is taken away from who has it. So who has one asks, before each use,
 * whether it is still his. Buffers count from 1, so that 0 is none and zeroed memory is a pool of free ones.
 */
#ifndef XP_BUFFERS_H
#define XP_BUFFERS_H

#include <stdint.h>

struct xp_buffer {
	uint32_t owner; /* 0: free */
	uint32_t older, newer;
};

struct xp_buffers {
	uint32_t n, size;
	uint32_t n_taken;
	uint32_t n_touched; /* those behind were never taken */
	uint32_t free;      /* chained by `newer` */
	uint32_t oldest, newest;
	struct xp_buffer *list;
	uint8_t *bytes;
};

static inline uint64_t xp_buffers_bytes(uint32_t n, uint32_t size)
{
	return (uint64_t)n * (sizeof(struct xp_buffer) + size);
}

/* Lay the pool out in zeroed memory of xp_buffers_bytes. */
static inline void xp_buffers_init(struct xp_buffers *pool, void *memory, uint32_t n, uint32_t size)
{
	*pool = (struct xp_buffers){.n = n, .size = size, .list = memory};
	pool->bytes = (uint8_t *)(pool->list + n);
}

static inline int xp_buffer_is_mine(const struct xp_buffers *pool, uint32_t buffer, uint32_t owner)
{
	return buffer && pool->list[buffer - 1].owner == owner;
}

static inline uint8_t *xp_buffer(const struct xp_buffers *pool, uint32_t buffer)
{
	return pool->bytes + (uint64_t)(buffer - 1) * pool->size;
}

static inline void xp_buffer_unlink(struct xp_buffers *pool, const struct xp_buffer *b)
{
	*(b->older ? &pool->list[b->older - 1].newer : &pool->oldest) = b->newer;
	*(b->newer ? &pool->list[b->newer - 1].older : &pool->newest) = b->older;
}

static inline void xp_buffer_link(struct xp_buffers *pool, uint32_t buffer)
{
	struct xp_buffer *b = pool->list + buffer - 1;

	b->older = pool->newest;
	b->newer = 0;
	*(b->older ? &pool->list[b->older - 1].newer : &pool->oldest) = buffer;
	pool->newest = buffer;
}

/* Let a buffer that is the owner's be as one taken now. */
static inline void xp_buffer_touch(struct xp_buffers *pool, uint32_t buffer)
{
	if (pool->newest == buffer)
		return;
	xp_buffer_unlink(pool, pool->list + buffer - 1);
	xp_buffer_link(pool, buffer);
}

/* Give back a buffer that is the owner's, if it still is. */
static inline void xp_buffer_give(struct xp_buffers *pool, uint32_t buffer, uint32_t owner)
{
	struct xp_buffer *b = pool->list + buffer - 1;

	if (!xp_buffer_is_mine(pool, buffer, owner))
		return;
	xp_buffer_unlink(pool, b);
	b->owner = 0;
	b->newer = pool->free;
	pool->free = buffer;
	pool->n_taken--;
}

/* Take a buffer for an owner, who is not 0; *taken_away is set where another one had it. 0: there are none. */
static inline uint32_t xp_buffer_take(struct xp_buffers *pool, uint32_t owner, int *taken_away)
{
	uint32_t buffer = pool->free;

	if (!buffer && pool->n_touched < pool->n) {
		buffer = ++pool->n_touched;
	} else if (buffer) {
		pool->free = pool->list[buffer - 1].newer;
	} else if (pool->oldest) {
		buffer = pool->oldest;
		xp_buffer_unlink(pool, pool->list + buffer - 1);
		pool->n_taken--;
		*taken_away = 1;
	} else {
		return 0;
	}
	pool->n_taken++;
	pool->list[buffer - 1].owner = owner;
	xp_buffer_link(pool, buffer);
	return buffer;
}

#endif
