/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a fixed size from which a library takes what it keeps of one connection. Blocks lie in a row,
 * each behind its header; the search for a free one goes on where the last ended, so that what is given
 * back in the order in which it was taken, as HPACK's table does, is found at once. Neighbours that are
 * free become one.
 */
#ifndef XP_HTTP2_HEAP_H
#define XP_HTTP2_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct xp_heap {
	uint32_t size;   /* bytes behind this struct, a multiple of 8 */
	uint32_t search; /* block where the next search begins */
	_Alignas(8) uint8_t bytes[];
};

void xp_heap_init(struct xp_heap *heap, uint32_t size);
/* As malloc, free, calloc and realloc, but of the heap. */
void *xp_heap_take(size_t size, void *heap);
void xp_heap_give(void *p, void *heap);
void *xp_heap_take_zeroed(size_t n, size_t size, void *heap);
void *xp_heap_resize(void *p, size_t size, void *heap);

#endif
