/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums in one's complement (RFC 1071), and how they follow what is changed in a packet without
 * being computed anew (RFC 1624, equation 3): HC' = ~(~HC + ~m + m').
 *
 * A sum in one's complement is the same whatever the order of the bytes in a word, but for the order
 * of its own bytes (RFC 1071, 2 B): words are summed and stored as they lie in memory. Words of 32 bits
 * are as good as their halves, since 2^16 is 1 modulo 2^16 - 1.
 *
 * Of the two zeros, 0 and 0xffff: a sum of words that are not all 0 is never 0, and neither is what
 * becomes of it here; so a checksum that was right goes to the very value that is computed over the
 * changed packet (not so by RFC 1141: 0xffff for 0, see RFC 1624, 3). What was wrong stays wrong by as
 * much.
 */
#ifndef XP_CHECKSUM_H
#define XP_CHECKSUM_H

#include "xp_batch.h"

static inline uint16_t xp_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* What a sum changes by when `size` bytes, an even number at an even offset, go from `was` to `is`:
 * ~m + m' over their words. Such changes add up. */
static inline uint64_t xp_change(const uint8_t *was, const uint8_t *is, uint32_t size)
{
	uint64_t change = 0;

	for (; size >= 4; size -= 4, was += 4, is += 4) {
		uint32_t m, m1;

		memcpy(&m, was, 4);
		memcpy(&m1, is, 4);
		change += (uint64_t)(uint32_t)~m + m1;
	}
	if (size) {
		uint16_t m, m1;

		memcpy(&m, was, 2);
		memcpy(&m1, is, 2);
		change += (uint64_t)(uint16_t)~m + m1;
	}
	return change;
}

/* The same for one byte, the first or, if `second`, the second of its word. */
static inline uint64_t xp_change_of_byte(uint8_t was, uint8_t is, int second)
{
	uint8_t m[2] = {0}, m1[2] = {0};

	m[!!second] = was;
	m1[!!second] = is;
	return xp_change(m, m1, 2);
}

/* Bring a checksum up to date: equation 3. */
static inline void xp_fix_checksum(uint8_t *field, uint64_t change)
{
	uint16_t sum;

	memcpy(&sum, field, 2);
	sum = (uint16_t)~xp_fold((uint16_t)~sum + change);
	memcpy(field, &sum, 2);
}

/* Where the checksum of TCP, UDP, ICMP or ICMPv6 stands in its header; XP_ABSENT: the packet has none
 * of these. */
static inline int32_t xp_checksum_in_l4(uint32_t flags)
{
	if (flags & XP_FLAG_TCP)
		return 16;
	if (flags & XP_FLAG_UDP)
		return 6;
	return flags & (XP_FLAG_ICMP | XP_FLAG_ICMP6) ? 2 : XP_ABSENT;
}

/*
 * Bring the checksum of TCP, UDP, ICMP or ICMPv6 of packet i up to date.
 *
 * Where it is due, and so computed as the packet leaves, the sum of the pseudo header stands in its
 * place until then, which is no checksum but the sum itself, and not of the header's own words. A UDP
 * checksum of 0 says that there is none and stays, over IPv6 as well (RFC 6935); one that becomes 0 is
 * 0xffff (RFC 768; RFC 8200, 8.1).
 *
 * pseudo: by how much addresses changed that it covers; ICMP's covers none.
 * own: by how much what lies in header and payload changed.
 */
static inline void xp_fix_l4_checksum(struct xp_batch *b, uint32_t i, uint64_t pseudo, uint64_t own)
{
	uint32_t flags = b->flags[i];
	int32_t at = xp_checksum_in_l4(flags);
	uint8_t *field;
	uint16_t sum;

	if (!xp_within(b, i, b->l4[i], (uint32_t)at + 2))
		return;
	field = xp_packet(b, i) + b->l4[i] + at;
	memcpy(&sum, field, 2);
	if (b->checksum_due[i]) {
		sum = xp_fold(sum + pseudo);
	} else {
		if (sum == 0 && flags & XP_FLAG_UDP)
			return;
		sum = (uint16_t)~xp_fold((uint16_t)~sum + own + (flags & XP_FLAG_ICMP ? 0 : pseudo));
		if (sum == 0 && flags & XP_FLAG_UDP)
			sum = 0xffff;
	}
	memcpy(field, &sum, 2);
}

uint32_t xp_compute_l4_checksum(struct xp_batch *b, uint32_t i);
void xp_compute_ip_checksum(uint8_t *ip);

#endif
