/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/http2_heap.h"

#include <string.h>

#define LEAST 16 /* bytes of a block */
#define USED 1u

struct block {
	uint32_t size;   /* with this header, a multiple of 8; USED in the lowest bit */
	uint32_t before; /* size of the block before; 0: this is the first one */
};

static struct block *block_at(struct xp_heap *heap, uint32_t at)
{
	return (struct block *)(heap->bytes + at);
}

/* Make blocks of these sizes at this place, and tell the next one. */
static void set_size(struct xp_heap *heap, uint32_t at, uint32_t size, uint32_t used)
{
	block_at(heap, at)->size = size | used;
	if (at + size < heap->size)
		block_at(heap, at + size)->before = size;
}

void xp_heap_init(struct xp_heap *heap, uint32_t size)
{
	heap->size = size / 8 * 8;
	heap->search = 0;
	set_size(heap, 0, heap->size, 0);
	block_at(heap, 0)->before = 0;
}

void *xp_heap_take(size_t size, void *context)
{
	struct xp_heap *heap = context;
	uint32_t at = heap->search, wanted;

	if (size > heap->size - sizeof(struct block))
		return NULL;
	wanted = ((uint32_t)size + (uint32_t)sizeof(struct block) + 7) / 8 * 8;
	wanted = wanted < LEAST ? LEAST : wanted;
	do {
		uint32_t has = block_at(heap, at)->size;

		if (!(has & USED) && has >= wanted) {
			if (has - wanted >= LEAST) {
				set_size(heap, at, wanted, USED);
				set_size(heap, at + wanted, has - wanted, 0);
			} else {
				wanted = has;
				set_size(heap, at, has, USED);
			}
			heap->search = at + wanted < heap->size ? at + wanted : 0;
			return block_at(heap, at) + 1;
		}
		at += has & ~USED;
		if (at >= heap->size)
			at = 0;
	} while (at != heap->search);
	return NULL;
}

void xp_heap_give(void *p, void *context)
{
	struct xp_heap *heap = context;
	struct block *b = (struct block *)p - 1;
	uint32_t at, size;

	if (!p)
		return;
	at = (uint32_t)((uint8_t *)b - heap->bytes);
	size = b->size & ~USED;
	if (at + size < heap->size && !(block_at(heap, at + size)->size & USED)) {
		if (heap->search == at + size)
			heap->search = at;
		size += block_at(heap, at + size)->size;
	}
	if (b->before && !(block_at(heap, at - b->before)->size & USED)) {
		if (heap->search == at)
			heap->search = at - b->before;
		size += b->before;
		at -= b->before;
	}
	set_size(heap, at, size, 0);
}

void *xp_heap_take_zeroed(size_t n, size_t size, void *context)
{
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	p = xp_heap_take(bytes, context);
	if (p)
		memset(p, 0, bytes);
	return p;
}

void *xp_heap_resize(void *p, size_t size, void *context)
{
	size_t had = p ? (((struct block *)p - 1)->size & ~USED) - sizeof(struct block) : 0;
	void *fresh = xp_heap_take(size, context);

	if (!fresh)
		return NULL;
	if (p)
		memcpy(fresh, p, had < size ? had : size);
	xp_heap_give(p, context);
	return fresh;
}
