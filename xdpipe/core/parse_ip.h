/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IP and what it carries. In a header, since the loop of Headers has it inline.
 *
 *   IPv4          ver/ihl, tos, length 2, id 2, flags+offset 2, ttl, proto, RFC 791
 *                 checksum 2, src 4, dst 4, options
 *   IPv6          ver/tc/label 4, payload length 2, next, hop limit,        RFC 8200
 *                 src 16, dst 16, extension headers
 *   TCP           sport 2, dport 2, seq 4, ack 4, offset, flags, ...        RFC 9293
 *   UDP           sport 2, dport 2, length 2, checksum 2                    RFC 768
 *   ICMP, ICMPv6  type, code, checksum 2, 4 bytes that depend on the type   RFC 792, RFC 4443
 *   IGMP          type, code, checksum 2, group 4 (of version 3: others)    RFC 2236, RFC 3376
 *
 * What is found is written into the columns at once: each is written once where a packet is what most
 * are, and it is the writing that costs. The rest of the packet's row is 0, and absent, before; the
 * flags and the ports, which the flow's hash takes as well, are the caller's to write. Each parser
 * returns 0 or why the packet is malformed.
 *
 * Left out: checksums are not verified (a NIC has done so, and a capture of outgoing packets often has
 * none); IPv6 jumbograms (RFC 2675) count as malformed.
 */
#ifndef XP_PARSE_IP_H
#define XP_PARSE_IP_H

#include "parse.h"

#define IPV6_EXT_MAX 16

enum { PROTO_HOP_BY_HOP = 0, PROTO_ICMP = 1, PROTO_IGMP = 2, PROTO_TCP = 6, PROTO_UDP = 17,
       PROTO_ROUTING = 43, PROTO_FRAGMENT = 44, PROTO_AH = 51, PROTO_ICMP6 = 58,
       PROTO_DEST_OPTIONS = 60, PROTO_MOBILITY = 135, PROTO_HIP = 139, PROTO_SHIM6 = 140 };

/*
 * A packet that is parsed, packet i of b. Offsets count from p, its first byte. What is looked at ends
 * at offset `len`; of that, only what lies before offset `head` is read.
 */
struct parsing {
	struct xp_batch *b;
	uint32_t i;
	const uint8_t *p;
	int32_t head, len;
	uint32_t flags;
	uint32_t ports; /* sport << 16 | dport */
};

/* An address as it stands in its column: 16 bytes, in two words as the machine loads them. */
typedef uint64_t address __attribute__((vector_size(16)));

/* ::ffff:a.b.c.d, from the four bytes at p (RFC 4291, 2.5.5.2) */
static inline address mapped(const uint8_t *p)
{
	static const uint8_t prefix[4] = {0, 0, 0xff, 0xff};
	uint32_t high, low;

	memcpy(&high, prefix, 4);
	memcpy(&low, p, 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (address){0, (uint64_t)low << 32 | high};
#else
	return (address){0, (uint64_t)high << 32 | low};
#endif
}

static inline address native(const uint8_t *p)
{
	address a;

	memcpy(&a, p, sizeof(a));
	return a;
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* The same for (a, b) and (b, a): each end is mixed on its own, and the two are added. */
static inline uint32_t flow_hash(address src, address dst, uint32_t ports, uint8_t proto)
{
	const uint64_t k0 = 0x9e3779b97f4a7c15u, k1 = 0xc2b2ae3d27d4eb4fu;
	uint64_t s = fold(src[0] ^ k0, src[1] + (ports >> 16) * k1 + k1);
	uint64_t d = fold(dst[0] ^ k0, dst[1] + (ports & 0xffff) * k1 + k1);
	uint64_t h = fold(s + d + proto, k0);

	return (uint32_t)(h ^ (h >> 32));
}

/*
 * Fill src, dst and flow_hash. The addresses come as values, in registers: loading them from the
 * column again, in other pieces than they were stored, would stall.
 *
 * The later fragments of a datagram have no ports, and of its IPv6 extension headers only those before
 * the fragment header (RFC 8200, 4.5): the first must do without as well.
 */
static inline void put_flow(const struct parsing *s, address src, address dst, uint8_t proto)
{
	struct xp_batch *b = s->b;

	memcpy(b->src + 16 * (size_t)s->i, &src, sizeof(src));
	memcpy(b->dst + 16 * (size_t)s->i, &dst, sizeof(dst));
	if (s->flags & XP_FLAG_FRAGMENT)
		b->flow_hash[s->i] = flow_hash(src, dst, 0, 0);
	else
		b->flow_hash[s->i] = flow_hash(src, dst, s->ports, proto);
}

static inline void put_payload(const struct parsing *s, int32_t at, int32_t size)
{
	s->b->payload[s->i] = at;
	s->b->payload_len[s->i] = size;
}

/*
 * TCP, UDP, ICMP, ICMPv6, IGMP at [at..end), in IP of a version; `whole` is 0 in the first of several
 * fragments.
 */
static inline uint8_t parse_l4(struct parsing *s, int32_t at, int32_t end, int whole, int version,
			       uint8_t proto)
{
	const uint8_t *p = s->p + at;
	struct xp_batch *b = s->b;
	uint32_t i = s->i;
	int32_t room = end - at;
	int32_t there = room < s->head - at ? room : s->head - at;
	int32_t size = 8;

	b->l4[i] = at;
	if (proto == PROTO_TCP) {
		if (there < 20)
			return XP_MALFORMED_TCP_SHORT;
		size = (p[12] >> 4) * 4;
		if (size < 20 || size > there)
			return XP_MALFORMED_TCP_OFFSET;
		s->flags |= XP_FLAG_TCP;
		s->ports = xp_get32(p);
		b->tcp_flags[i] = p[13];
	} else if (proto == PROTO_UDP) {
		if (there < 8)
			return XP_MALFORMED_UDP_SHORT;
		size = xp_get16(p + 4);
		if (size < 8 || (whole && size > room))
			return XP_MALFORMED_UDP_LEN;
		if (size < room)
			room = size;
		size = 8;
		s->flags |= XP_FLAG_UDP;
		s->ports = xp_get32(p);
	} else if (proto == (version == 4 ? PROTO_ICMP : PROTO_ICMP6)) {
		if (there < 8)
			return version == 4 ? XP_MALFORMED_ICMP_SHORT : XP_MALFORMED_ICMP6_SHORT;
		s->flags |= version == 4 ? XP_FLAG_ICMP : XP_FLAG_ICMP6;
		b->icmp_type[i] = p[0];
		b->icmp_code[i] = p[1];
	} else if (proto == PROTO_IGMP && version == 4) {
		if (there < 8)
			return XP_MALFORMED_IGMP_SHORT;
		s->flags |= XP_FLAG_IGMP;
		b->igmp_type[i] = p[0];
	} else {
		size = 0;
	}
	put_payload(s, at + size, room - size);
	return 0;
}

static inline uint8_t later_fragment(struct parsing *s, int32_t at, int32_t end)
{
	s->flags |= XP_FLAG_LATER_FRAGMENT;
	put_payload(s, at, end - at);
	return 0;
}

static inline uint8_t parse_ipv4(struct parsing *s, int32_t at)
{
	const uint8_t *p = s->p + at;
	struct xp_batch *b = s->b;
	uint32_t i = s->i;
	int32_t size, total;
	uint16_t fragment;
	uint8_t malformed;

	if (s->head - at < 20)
		return XP_MALFORMED_IP4_SHORT;
	if (p[0] >> 4 != 4)
		return XP_MALFORMED_IP4_VERSION;
	size = (p[0] & 15) * 4;
	if (size < 20 || size > s->head - at)
		return XP_MALFORMED_IP4_IHL;
	b->l3[i] = at;
	b->ip_version[i] = 4;
	b->ip_tos[i] = p[1];
	b->ip_ttl[i] = p[8];
	b->ip_proto[i] = p[9];
	s->flags |= XP_FLAG_IPV4 | (size > 20 ? XP_FLAG_IP_OPTIONS : 0);
	total = xp_get16(p + 2);
	fragment = xp_get16(p + 6) & 0x3fff; /* MF and offset */
	if (total < size || total > s->len - at) {
		malformed = XP_MALFORMED_IP4_LEN;
	} else if (!fragment) {
		malformed = parse_l4(s, at + size, at + total, 1, 4, p[9]);
	} else {
		s->flags |= XP_FLAG_FRAGMENT;
		malformed = fragment & 0x1fff ? later_fragment(s, at + size, at + total)
					      : parse_l4(s, at + size, at + total, 0, 4, p[9]);
	}
	put_flow(s, mapped(p + 12), mapped(p + 16), p[9]);
	return malformed;
}

/* Write the columns of the header that every IPv6 packet has; what it says lies at p. */
static inline uint8_t parse_ipv6_header(struct parsing *s, int32_t at)
{
	const uint8_t *p = s->p + at;
	struct xp_batch *b = s->b;
	uint32_t i = s->i;

	if (s->head - at < 40)
		return XP_MALFORMED_IP6_SHORT;
	if (p[0] >> 4 != 6)
		return XP_MALFORMED_IP6_VERSION;
	b->l3[i] = at;
	b->ip_version[i] = 6;
	b->ip_tos[i] = (uint8_t)(p[0] << 4 | p[1] >> 4);
	b->ip_ttl[i] = p[7];
	b->ip_proto[i] = p[6];
	s->flags |= XP_FLAG_IPV6;
	return 0;
}

static inline int is_extension(uint8_t proto)
{
	switch (proto) {
	case PROTO_HOP_BY_HOP:
	case PROTO_ROUTING:
	case PROTO_FRAGMENT:
	case PROTO_AH:
	case PROTO_DEST_OPTIONS:
	case PROTO_MOBILITY:
	case PROTO_HIP:
	case PROTO_SHIM6:
		return 1;
	default:
		return 0;
	}
}

/* IPv6 whose next header is none of the extensions. */
static inline uint8_t parse_ipv6_plain(struct parsing *s, int32_t at)
{
	const uint8_t *p = s->p + at;
	int32_t end = at + 40 + xp_get16(p + 4);
	uint8_t malformed = end > s->len ? XP_MALFORMED_IP6_LEN
					 : parse_l4(s, at + 40, end, 1, 6, p[6]);

	put_flow(s, native(p + 8), native(p + 24), p[6]);
	return malformed;
}

#endif
