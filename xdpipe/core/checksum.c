/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums computed whole (RFC 791, 3.1; RFC 9293, 3.1; RFC 768; RFC 792; RFC 4443, 2.3; with IPv6
 * RFC 8200, 8.1), and those of TCP and UDP that stages want filled in as the packets leave: by the NIC
 * or the kernel where they do that, else here.
 */
#include "checksum.h"
#include "pseudo_header.h"
#include "xp.h"
#include "tx_metadata.h"

#include <arpa/inet.h>

#define NOT_FOR_NICS (XP_FLAG_TUNNEL | XP_FLAG_MPLS | XP_FLAG_PPPOE | XP_FLAG_LLC)

static uint16_t sum_bytes(const uint8_t *p, uint32_t n)
{
	uint64_t sum = 0;
	uint32_t word;
	uint16_t half;

	for (; n >= 4; p += 4, n -= 4) {
		memcpy(&word, p, 4);
		sum += word;
	}
	if (n >= 2) {
		memcpy(&half, p, 2);
		sum += half;
		p += 2;
		n -= 2;
	}
	if (n) {
		uint8_t last[2] = {*p, 0};

		memcpy(&half, last, 2);
		sum += half;
	}
	return xp_fold(sum);
}

/* Sum of the header and payload of packet i, in whichever frames they lie. */
static uint64_t sum_of_l4(const struct xp_batch *b, uint32_t i, uint32_t len)
{
	uint64_t sum = 0;
	int32_t at = b->l4[i];

	for (uint32_t done = 0; done < len;) {
		int32_t run;
		const uint8_t *p = xp_byte(b, i, at, &run);
		uint32_t n = (uint32_t)run < len - done ? (uint32_t)run : len - done;
		uint16_t part = sum_bytes(p, n);

		sum += done & 1 ? __builtin_bswap16(part) : part;
		done += n;
		at += (int32_t)n;
	}
	return sum;
}

/* Sum of the pseudo header: addresses, protocol, length. ICMP has none. */
static uint64_t sum_of_pseudo(const struct xp_batch *b, uint32_t i, uint32_t len)
{
	const uint8_t *ip = xp_packet(b, i) + b->l3[i];
	uint32_t flags = b->flags[i];
	uint8_t proto = flags & XP_FLAG_TCP ? 6 : flags & XP_FLAG_UDP ? 17 : 58;
	uint64_t sum = (uint64_t)htons(proto) + htons((uint16_t)(len >> 16)) + htons((uint16_t)len);

	if (flags & XP_FLAG_ICMP)
		return 0;
	if (flags & XP_FLAG_IPV4)
		return sum + sum_bytes(ip + 12, 8);
	return sum + sum_bytes(ip + 8, 32);
}

static uint32_t l4_len(const struct xp_batch *b, uint32_t i)
{
	return (uint32_t)(b->payload[i] + b->payload_len[i] - b->l4[i]);
}

static void fill_checksum(const struct xp_batch *b, uint32_t i)
{
	uint8_t *field = xp_packet(b, i) + b->l4[i] + xp_checksum_in_l4(b->flags[i]);
	uint32_t len = l4_len(b, i);
	uint16_t sum = 0;

	memcpy(field, &sum, 2);
	sum = (uint16_t)~xp_fold(sum_of_pseudo(b, i, len) + sum_of_l4(b, i, len));
	if (sum == 0 && b->flags[i] & XP_FLAG_UDP) /* which would say that there is none */
		sum = 0xffff;
	memcpy(field, &sum, 2);
}

/*
 * Compute the checksum of TCP, UDP, ICMP or ICMPv6 of packet i, which is not malformed. Returns 1, or 0
 * where it has none that can be computed: in fragments, where UDP's 0 says so, and where the other end
 * that it covers is not the one in the IP header (pseudo_header.h).
 */
uint32_t xp_compute_l4_checksum(struct xp_batch *b, uint32_t i)
{
	uint32_t flags = b->flags[i];
	int32_t at = xp_checksum_in_l4(flags);
	uint16_t was;

	if (flags & XP_FLAG_FRAGMENT || !xp_within(b, i, b->l4[i], (uint32_t)at + 2) ||
	    xp_covered(b, i) != (XP_COVERS_SRC | XP_COVERS_DST))
		return 0;
	memcpy(&was, xp_packet(b, i) + b->l4[i] + at, 2);
	if (was == 0 && flags & XP_FLAG_UDP)
		return 0;
	fill_checksum(b, i);
	return 1;
}

/* Compute the checksum of an IPv4 header, which is whole. */
void xp_compute_ip_checksum(uint8_t *ip)
{
	uint16_t sum = 0;

	memcpy(ip + 10, &sum, 2);
	sum = (uint16_t)~sum_bytes(ip, (ip[0] & 15) * 4u);
	memcpy(ip + 10, &sum, 2);
}

/* Fragments have no checksum of their own. */
static int has_checksum(const struct xp_batch *b, uint32_t i)
{
	uint32_t flags = b->flags[i];

	return flags & (XP_FLAG_TCP | XP_FLAG_UDP) && !(flags & XP_FLAG_FRAGMENT);
}

/*
 * Note that the checksum of TCP or UDP of packet i is to be filled in as it leaves. Needs the columns
 * of Headers. Returns 1, or 0 where it has none.
 */
uint32_t xp_one_want_checksum(struct xp_batch *b, uint32_t i)
{
	if (!has_checksum(b, i))
		return 0;
	b->checksum_due[i] = 1;
	b->n_checksums_due++;
	return 1;
}

/* The same for the packets where `where` is not 0. Returns how many. */
uint32_t xp_want_checksum(struct xp_batch *b, const uint8_t *where)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++)
		if (where[i])
			n += xp_one_want_checksum(b, i);
	return n;
}

/*
 * Did packet i come without: from a link of the same machine whose
 * sender left it to the link (CHECKSUM_PARTIAL, Documentation/networking/checksum-offloads.rst). In
 * its place stands the sum of the pseudo header then; where a right checksum is the same by chance,
 * it is filled in once more and does not change.
 */
static int is_partial(const struct xp_batch *b, uint32_t i)
{
	uint16_t field;

	if (!has_checksum(b, i))
		return 0;
	memcpy(&field, xp_packet(b, i) + b->l4[i] + xp_checksum_in_l4(b->flags[i]), 2);
	return field == xp_fold(sum_of_pseudo(b, i, l4_len(b, i)));
}

/* Note that the checksum is due of packets that came without. Needs the columns of Headers. Returns
 * how many. */
uint32_t xp_note_partial_checksums(struct xp_batch *b)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (!is_partial(b, i))
			continue;
		b->checksum_due[i] = 1;
		n++;
	}
	b->n_checksums_due += n;
	return n;
}

/*
 * The columns of packet i are about to speak of a packet within it: if its checksum is due, fill it in
 * while they tell where it is.
 */
void xp_fill_checksum_of_outer(struct xp_batch *b, uint32_t i)
{
	if (b->n_checksums_due == 0 || !b->checksum_due[i])
		return;
	fill_checksum(b, i);
	b->checksum_due[i] = 0;
	b->n_checksums_due--;
}

/*
 * The columns of packet i have come to speak of a packet within it: note that its checksum is due, if
 * it came without. The sender then left that one to the link, not the outer one, which is right once
 * this one is (checksum-offloads.rst, LCO: what a checksum covers sums up to the same whatever it
 * is). Returns 1 if so.
 */
uint32_t xp_note_partial_checksum_of_inner(struct xp_batch *b, uint32_t i)
{
	if (!b->partial_checksums || !is_partial(b, i))
		return 0;
	b->checksum_due[i] = 1;
	b->n_checksums_due++;
	return 1;
}

/* Fill in the checksums that are due, of all packets of the batch, and forget that they were. */
void xp_fill_checksums(struct xp_batch *b)
{
	if (b->n_checksums_due == 0)
		return;
	for (uint32_t i = 0; i < b->n; i++)
		if (b->checksum_due[i])
			fill_checksum(b, i);
	xp_forget_checksums(b);
}

/* No checksum of the batch is due. */
void xp_forget_checksums(struct xp_batch *b)
{
	if (b->n_checksums_due)
		memset(b->checksum_due, 0, b->capacity);
	b->n_checksums_due = 0;
}

/*
 * The checksum of packet i is due, and it leaves: fill it in or, where `ask` is not NULL, have NIC or
 * kernel do it, by what is written there: the field has the sum of the pseudo header then.
 *
 * Some NICs look for the header themselves (mlx5): theirs is only what they find as Headers does. Within
 * a tunnel they would fill in that of the tunnel.
 */
void xp_finish_checksum(const struct xp_batch *b, uint32_t i, struct xp_tx_metadata *ask)
{
	uint16_t sum;

	if (!ask || b->flags[i] & NOT_FOR_NICS) {
		fill_checksum(b, i);
		return;
	}
	ask->flags |= XDP_TXMD_FLAGS_CHECKSUM;
	ask->checksum_start = (uint16_t)b->l4[i];
	ask->checksum_offset = (uint16_t)xp_checksum_in_l4(b->flags[i]);
	sum = xp_fold(sum_of_pseudo(b, i, l4_len(b, i)));
	memcpy(xp_packet(b, i) + b->l4[i] + ask->checksum_offset, &sum, 2);
}
