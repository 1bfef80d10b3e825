/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pseudo header that the checksums of TCP, UDP and ICMPv6 cover has the addresses of the two ends.
 * These are not those of the IP header where a packet
 *
 *   has part of its route still before it: the field has the next hop, the end is the last address of
 *   the IPv6 routing header (RFC 8200, 8.1) or of an IPv4 source route (RFC 791, 3.1);
 *   comes from a mobile node that is not at home: the end is the one in its home address option
 *   (RFC 6275, 9.3.1).
 *
 *   routing header    next, length, type, segments left                       RFC 8200, 4.4
 *   option            type, length (Pad1: a single 0)                         RFC 8200, 4.2
 *   source route      type 131 or 137, length, pointer (from 1), addresses    RFC 791, 3.1
 */
#include "pseudo_header.h"

#define IPV6_EXT_MAX 16

enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, AH = 51, DESTINATION = 60 };
enum { LOOSE_ROUTE = 131, STRICT_ROUTE = 137, HOME_ADDRESS = 201 };

/* Do the options at [at..end) have a source route with an address that the packet has not been to? */
static int has_way_to_go(const uint8_t *p, int32_t at, int32_t end)
{
	while (at < end && p[at] != 0) {
		int32_t size = 1;

		if (p[at] != 1) {
			size = at + 1 < end ? p[at + 1] : 0;
			if (size < 2 || size > end - at)
				return 0;
			if ((p[at] == LOOSE_ROUTE || p[at] == STRICT_ROUTE) && size >= 7)
				return p[at + 2] + 3 <= size;
		}
		at += size;
	}
	return 0;
}

static int has_home_address(const uint8_t *p, int32_t at, int32_t end)
{
	while (at < end) {
		if (p[at] == HOME_ADDRESS)
			return 1;
		if (p[at] == 0)
			at++;
		else
			at += at + 1 < end ? 2 + p[at + 1] : 1;
	}
	return 0;
}

/* xp_covered where there are IPv4 options or IPv6 extension headers. */
uint32_t xp_covered_despite_options(const struct xp_batch *b, uint32_t i)
{
	const uint8_t *p = xp_packet(b, i);
	int32_t at = b->l3[i], end = b->l4[i];
	uint32_t covered = XP_COVERS_SRC | XP_COVERS_DST;
	int ipv4 = b->ip_version[i] == 4;
	uint8_t next;

	if (!xp_within(b, i, at, ipv4 ? 20 : 40) || !xp_within(b, i, end, 0))
		return covered;
	if (ipv4)
		return has_way_to_go(p, at + 20, end) ? XP_COVERS_SRC : covered;
	next = p[at + 6];
	at += 40;
	for (int k = 0; k < IPV6_EXT_MAX && end - at >= 8; k++) {
		int32_t size = next == FRAGMENT ? 8
			       : next == AH	? (p[at + 1] + 2) * 4
						: (p[at + 1] + 1) * 8;

		if (size > end - at)
			break;
		if (next == ROUTING && p[at + 3] != 0)
			covered &= ~(uint32_t)XP_COVERS_DST;
		else if (next == DESTINATION && has_home_address(p, at + 2, at + size))
			covered &= ~(uint32_t)XP_COVERS_SRC;
		next = p[at];
		at += size;
	}
	return covered;
}
