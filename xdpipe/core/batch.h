/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing packets of a batch, for native stages. Nothing here checks twice: ask
 * xp_within first. */
#ifndef XP_BATCH_H
#define XP_BATCH_H

#include <string.h>

#include "xp.h"

static inline uint8_t *xp_packet(const struct xp_batch *b, uint32_t i)
{
	return b->base + b->addr[i];
}

/* Do the `size` bytes at offset `at` lie within the first frame of packet i, which is all of most
 * packets? Then they are at xp_packet(b, i) + at. */
static inline int xp_within(const struct xp_batch *b, uint32_t i, int32_t at, uint32_t size)
{
	return at >= 0 && (int64_t)at + size <= b->head_len[i];
}

/* Do they lie within packet i, in whichever of its frames? Then each is at xp_byte. */
static inline int xp_within_any(const struct xp_batch *b, uint32_t i, int32_t at, uint32_t size)
{
	return at >= 0 && (int64_t)at + size <= b->len[i];
}

/* The byte at offset `at` of packet i, which lies within it; *run is how many follow in a row. */
static inline uint8_t *xp_byte(const struct xp_batch *b, uint32_t i, int32_t at, int32_t *run)
{
	uint32_t k = b->more[i];

	if (at < b->head_len[i]) {
		*run = b->head_len[i] - at;
		return xp_packet(b, i) + at;
	}
	for (at -= b->head_len[i]; at >= b->more_len[k]; k++)
		at -= b->more_len[k];
	*run = b->more_len[k] - at;
	return b->base + b->more_addr[k] + at;
}

static inline uint16_t xp_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t xp_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	return v;
}

static inline uint64_t xp_get64(const uint8_t *p)
{
	return (uint64_t)xp_get32(p) << 32 | xp_get32(p + 4);
}

static inline void xp_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

#endif
