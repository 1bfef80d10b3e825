/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other addresses and ports for a packet, its checksums and columns following: for the stages that
 * say which.
 *
 *   IPv4          12: src 4, dst 4; checksum at 10                RFC 791
 *   IPv6          8: src 16, dst 16                               RFC 8200
 *   TCP, UDP      sport 2, dport 2; checksum at 16, at 6          RFC 9293, RFC 768
 *   ICMPv6        checksum at 2, over a pseudo header             RFC 4443, 2.3
 */
#ifndef XP_STAGE_ADDRESSES_H
#define XP_STAGE_ADDRESSES_H

#include "checksum.h"
#include "pseudo_header.h"

/* cdef begin */
enum xp_end { XP_SRC, XP_DST };

/* An address to be: (what it was & keep) | set. Of IPv4 the first 4 bytes. */
struct xp_new_address {
	uint32_t wanted;
	uint8_t keep[16];
	uint8_t set[16];
};
/* cdef end */

/* By how much sums change, over both addresses and over those that the checksum behind IP covers. */
struct xp_changes {
	uint64_t all, covered;
};

/* Have an address of `size` bytes be what it is to be. */
static inline void xp_put_address(uint8_t *field, const struct xp_new_address *new, uint32_t size)
{
	for (uint32_t k = 0; k < size; k++)
		field[k] = (uint8_t)((field[k] & new->keep[k]) | new->set[k]);
}

/* Set an IP address of `size` bytes, and in its column; return by how much a sum over it changes. */
static inline uint64_t xp_set_address(uint8_t *field, uint8_t *column,
				      const struct xp_new_address *new, uint32_t size)
{
	uint8_t now[16];
	uint64_t change;

	memcpy(now, field, size);
	xp_put_address(now, new, size);
	change = xp_change(field, now, size);
	memcpy(field, now, size);
	memcpy(column + 16 - size, now, size);
	return change;
}

/* Set the addresses of packet i, which stand one behind the other; NULL: it stays. */
static inline struct xp_changes xp_set_ends(struct xp_batch *b, uint32_t i, uint8_t *ends,
					    const struct xp_new_address *new_src,
					    const struct xp_new_address *new_dst, uint32_t size)
{
	uint64_t src = 0, dst = 0;
	uint32_t covered = xp_covered(b, i);
	size_t row = 16 * (size_t)i;

	if (new_src)
		src = xp_set_address(ends, b->src + row, new_src, size);
	if (new_dst)
		dst = xp_set_address(ends + size, b->dst + row, new_dst, size);
	return (struct xp_changes){src + dst, (covered & XP_COVERS_SRC ? src : 0) +
						      (covered & XP_COVERS_DST ? dst : 0)};
}

/*
 * Set the addresses in the IP header of packet i, which is whole; NULL: it stays. IPv4's checksum
 * follows; return by how much the sum changes that the one behind IP is over.
 */
static inline uint64_t xp_set_ip_ends(struct xp_batch *b, uint32_t i, uint8_t *ip,
				      const struct xp_new_address *new_src,
				      const struct xp_new_address *new_dst)
{
	struct xp_changes changes;

	if (b->ip_version[i] == 6)
		return xp_set_ends(b, i, ip + 8, new_src, new_dst, 16).covered;
	changes = xp_set_ends(b, i, ip + 12, new_src, new_dst, 4);
	xp_fix_checksum(ip + 10, changes.all);
	return changes.covered;
}

/* Set a port, in network byte order, and in its column; return by how much a sum over it changes. */
static inline uint64_t xp_set_port(uint8_t *field, uint16_t *column, const uint8_t *port)
{
	uint64_t change = xp_change(field, port, 2);

	memcpy(field, port, 2);
	*column = xp_get16(port);
	return change;
}

#endif
