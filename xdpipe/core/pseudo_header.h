/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the addresses in a packet's IP header the checksum behind it covers. */
#ifndef XP_PSEUDO_HEADER_H
#define XP_PSEUDO_HEADER_H

#include "xp_batch.h"

enum { XP_COVERS_SRC = 1, XP_COVERS_DST = 2 };

uint32_t xp_covered_despite_options(const struct xp_batch *b, uint32_t i);

/* XP_COVERS_* of packet i, which has an IP header: both, in all but rare packets. */
static inline uint32_t xp_covered(const struct xp_batch *b, uint32_t i)
{
	if (__builtin_expect(b->flags[i] & XP_FLAG_IP_OPTIONS, 0))
		return xp_covered_despite_options(b, i);
	return XP_COVERS_SRC | XP_COVERS_DST;
}

#endif
