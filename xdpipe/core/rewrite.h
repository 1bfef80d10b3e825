/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stages that rewrite packets share: where in packets they write. They keep the
 * columns of Headers up to date: what these say afterwards is what Headers would say of the packet as it
 * is then.
 */
#ifndef XP_REWRITE_H
#define XP_REWRITE_H

#include "xp_batch.h"

/*
 * Do the columns speak of the packet's own headers? Where Decap has entered a tunnel, of those of a
 * packet within, which are not to be mixed with the outer ones.
 */
static inline int xp_is_outermost(const struct xp_batch *b, uint32_t i)
{
	return !(b->flags[i] & XP_FLAG_TUNNEL);
}

/*
 * The IP header of packet i, without options; NULL: it has none, is malformed, or that of a packet within
 * a tunnel.
 */
static inline uint8_t *xp_ip_header(const struct xp_batch *b, uint32_t i)
{
	uint8_t version = b->ip_version[i];

	if (b->malformed[i] || version == 0 || !xp_is_outermost(b, i) ||
	    !xp_within(b, i, b->l3[i], version == 4 ? 20 : 40))
		return NULL;
	return xp_packet(b, i) + b->l3[i];
}

/* Source and destination port of packet i, which is not malformed; NULL: it has none. */
static inline uint8_t *xp_ports(const struct xp_batch *b, uint32_t i)
{
	if (!(b->flags[i] & (XP_FLAG_TCP | XP_FLAG_UDP)) || !xp_within(b, i, b->l4[i], 4))
		return NULL;
	return xp_packet(b, i) + b->l4[i];
}

#endif
