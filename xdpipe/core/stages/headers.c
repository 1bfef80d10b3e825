/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Headers: Ethernet II, 802.1Q and 802.1ad, IPv4, IPv6, TCP, UDP, ICMP, ICMPv6.
 *
 *   Ethernet II   dst 6, src 6, type 2                                      IEEE 802.3
 *   VLAN tag      TPID 2 (0x8100, 0x88a8), TCI 2                            IEEE 802.1Q
 *   IPv4          ver/ihl, tos, length 2, id 2, flags+offset 2, ttl, proto, RFC 791
 *                 checksum 2, src 4, dst 4, options
 *   IPv6          ver/tc/label 4, payload length 2, next, hop limit,        RFC 8200
 *                 src 16, dst 16, extension headers
 *   TCP           sport 2, dport 2, seq 4, ack 4, offset, flags, ...        RFC 9293
 *   UDP           sport 2, dport 2, length 2, checksum 2                    RFC 768
 *   ICMP, ICMPv6  type, code, checksum 2, 4 bytes that depend on the type   RFC 792, RFC 4443
 *
 * Left out: checksums are not verified (a NIC has done so, and a capture of outgoing packets
 * often has none); IPv6 jumbograms (RFC 2675) count as malformed; more than two VLAN tags and
 * 802.3 with LLC end at the EtherType column.
 *
 * A length that the packet itself contradicts is malformed; the columns of the layers before the
 * fault are filled, those from there on say absent.
 */
#include "xp.h"
#include "stages/headers.h"

#define ETH_P_IPV4 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_VLAN 0x8100
#define ETH_P_QINQ 0x88a8

#define IPV6_EXT_MAX 16
#define PREFETCH_AHEAD 6

enum { PROTO_HOP_BY_HOP = 0, PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ROUTING = 43,
       PROTO_FRAGMENT = 44, PROTO_AH = 51, PROTO_ICMP6 = 58, PROTO_DEST_OPTIONS = 60,
       PROTO_MOBILITY = 135, PROTO_HIP = 139, PROTO_SHIM6 = 140 };

/* In the order of Headers.counters in xdpipe/stages/headers.py; behind malformed, one a reason. */
enum { N_IPV4, N_IPV6, N_OTHER, N_TCP, N_UDP, N_ICMP, N_ICMP6, N_VLAN, N_FRAGMENTS,
       N_PARTIAL_CHECKSUM, N_MALFORMED };

/* One packet's result, in registers until it is stored. */
struct parsed {
	uint32_t flags;
	uint32_t ports;  /* sport << 16 | dport */
	int32_t l3, l4, payload, payload_len;
	uint16_t eth_type;
	uint16_t tci[2];
	uint8_t malformed, n_vlans, version, proto, ttl, tos, tcp_flags, icmp_type, icmp_code;
};

static uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* An address as it stands in its column: 16 bytes, in two words as the machine loads them. */
struct address {
	uint64_t high, low;
};

/* The same for (a, b) and (b, a): each end is mixed on its own, and the two are added. */
static uint32_t flow_hash(struct address src, struct address dst, uint32_t ports, uint8_t proto)
{
	const uint64_t k0 = 0x9e3779b97f4a7c15u, k1 = 0xc2b2ae3d27d4eb4fu;
	uint64_t s = fold(src.high ^ k0, src.low + (ports >> 16) * k1 + k1);
	uint64_t d = fold(dst.high ^ k0, dst.low + (ports & 0xffff) * k1 + k1);
	uint64_t h = fold(s + d + proto, k0);

	return (uint32_t)(h ^ (h >> 32));
}

/*
 * A packet: `len` bytes, of which `head` lie at p; only these are read. Headers that go on in the
 * next frame are as if they ended there.
 */
struct packet {
	const uint8_t *p;
	int32_t head, len;
};

/* TCP, UDP, ICMP, ICMPv6 at [at..end); `whole` is 0 in the first of several fragments. */
static uint8_t parse_l4(struct packet packet, int32_t at, int32_t end, int whole, struct parsed *r)
{
	const uint8_t *p = packet.p;
	int32_t room = end - at;
	int32_t there = (end < packet.head ? end : packet.head) - at;
	int32_t size;

	r->l4 = at;
	r->payload = at;
	r->payload_len = room;
	switch (r->proto) {
	case PROTO_TCP:
		if (there < 20)
			return XP_MALFORMED_TCP_SHORT;
		size = (p[at + 12] >> 4) * 4;
		if (size < 20 || size > there)
			return XP_MALFORMED_TCP_OFFSET;
		r->flags |= XP_FLAG_TCP;
		r->tcp_flags = p[at + 13];
		r->ports = xp_get32(p + at);
		break;
	case PROTO_UDP:
		if (there < 8)
			return XP_MALFORMED_UDP_SHORT;
		size = xp_get16(p + at + 4);
		if (size < 8 || (whole && size > room))
			return XP_MALFORMED_UDP_LEN;
		if (size < room)
			room = size;
		size = 8;
		r->flags |= XP_FLAG_UDP;
		r->ports = xp_get32(p + at);
		break;
	case PROTO_ICMP:
	case PROTO_ICMP6:
		if ((r->proto == PROTO_ICMP) != (r->version == 4))
			return 0;
		if (there < 8)
			return r->version == 4 ? XP_MALFORMED_ICMP_SHORT
					       : XP_MALFORMED_ICMP6_SHORT;
		size = 8;
		r->flags |= r->version == 4 ? XP_FLAG_ICMP : XP_FLAG_ICMP6;
		r->icmp_type = p[at];
		r->icmp_code = p[at + 1];
		break;
	default:
		return 0;
	}
	r->payload = at + size;
	r->payload_len = room - size;
	return 0;
}

static uint8_t later_fragment(int32_t at, int32_t end, struct parsed *r)
{
	r->flags |= XP_FLAG_LATER_FRAGMENT;
	r->payload = at;
	r->payload_len = end - at;
	return 0;
}

static uint8_t parse_ipv4(struct packet packet, int32_t at, struct parsed *r)
{
	const uint8_t *p = packet.p;
	int32_t size, total;
	uint16_t fragment;

	if (packet.head - at < 20)
		return XP_MALFORMED_IP4_SHORT;
	if (p[at] >> 4 != 4)
		return XP_MALFORMED_IP4_VERSION;
	size = (p[at] & 15) * 4;
	if (size < 20 || size > packet.head - at)
		return XP_MALFORMED_IP4_IHL;
	r->l3 = at;
	r->version = 4;
	r->flags |= XP_FLAG_IPV4 | (size > 20 ? XP_FLAG_IP_OPTIONS : 0);
	r->tos = p[at + 1];
	r->ttl = p[at + 8];
	r->proto = p[at + 9];
	total = xp_get16(p + at + 2);
	if (total < size || total > packet.len - at)
		return XP_MALFORMED_IP4_LEN;
	fragment = xp_get16(p + at + 6) & 0x3fff; /* MF and offset */
	if (fragment) {
		r->flags |= XP_FLAG_FRAGMENT;
		if (fragment & 0x1fff)
			return later_fragment(at + size, at + total, r);
	}
	return parse_l4(packet, at + size, at + total, !fragment, r);
}

static uint8_t parse_ipv6(struct packet packet, int32_t at, struct parsed *r)
{
	const uint8_t *p = packet.p;
	int32_t end;
	int whole = 1;

	if (packet.head - at < 40)
		return XP_MALFORMED_IP6_SHORT;
	if (p[at] >> 4 != 6)
		return XP_MALFORMED_IP6_VERSION;
	r->l3 = at;
	r->version = 6;
	r->flags |= XP_FLAG_IPV6;
	r->tos = (uint8_t)(p[at] << 4 | p[at + 1] >> 4);
	r->ttl = p[at + 7];
	r->proto = p[at + 6];
	end = at + 40 + xp_get16(p + at + 4);
	if (end > packet.len)
		return XP_MALFORMED_IP6_LEN;
	at += 40;
	for (int i = 0;; i++) {
		int32_t size;

		switch (r->proto) {
		case PROTO_HOP_BY_HOP:
		case PROTO_ROUTING:
		case PROTO_DEST_OPTIONS:
		case PROTO_MOBILITY:
		case PROTO_HIP:
		case PROTO_SHIM6:
		case PROTO_AH:
		case PROTO_FRAGMENT:
			break;
		default:
			return parse_l4(packet, at, end, whole, r);
		}
		r->flags |= XP_FLAG_IP_OPTIONS;
		if (i == IPV6_EXT_MAX || end - at < 8 || packet.head - at < 8)
			return XP_MALFORMED_IP6_EXT;
		if (r->proto == PROTO_FRAGMENT) {
			uint16_t fragment = xp_get16(p + at + 2) & 0xfff9; /* offset and M */

			size = 8;
			r->proto = p[at];
			if (fragment) { /* else an atomic fragment, a whole datagram: RFC 6946 */
				r->flags |= XP_FLAG_FRAGMENT;
				whole = 0;
				if (fragment & 0xfff8)
					return later_fragment(at + size, end, r);
			}
		} else {
			/* AH counts in 4 bytes less 2, all others in 8 bytes less 1 */
			size = r->proto == PROTO_AH ? (p[at + 1] + 2) * 4 : (p[at + 1] + 1) * 8;
			r->proto = p[at];
		}
		if (size > end - at)
			return XP_MALFORMED_IP6_EXT;
		at += size;
	}
}

static uint8_t parse(struct packet packet, struct parsed *r)
{
	const uint8_t *p = packet.p;
	int32_t at = 14;

	if (packet.head < 14)
		return XP_MALFORMED_ETH_SHORT;
	r->eth_type = xp_get16(p + 12);
	while ((r->eth_type == ETH_P_VLAN || r->eth_type == ETH_P_QINQ) && r->n_vlans < 2) {
		if (packet.head - at < 4)
			return XP_MALFORMED_VLAN_SHORT;
		r->flags |= XP_FLAG_VLAN;
		r->tci[r->n_vlans++] = xp_get16(p + at);
		r->eth_type = xp_get16(p + at + 2);
		at += 4;
	}
	if (r->eth_type == ETH_P_IPV4)
		return parse_ipv4(packet, at, r);
	if (r->eth_type == ETH_P_IPV6)
		return parse_ipv6(packet, at, r);
	return 0;
}

/* ::ffff:a.b.c.d, from the four bytes at p (RFC 4291, 2.5.5.2) */
static struct address mapped(const uint8_t *p)
{
	static const uint8_t prefix[4] = {0, 0, 0xff, 0xff};
	struct address a = {0, 0};
	uint32_t high, low;

	memcpy(&high, prefix, 4);
	memcpy(&low, p, 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	a.low = (uint64_t)low << 32 | high;
#else
	a.low = (uint64_t)high << 32 | low;
#endif
	return a;
}

static struct address native(const uint8_t *p)
{
	struct address a;

	memcpy(&a, p, sizeof(a));
	return a;
}

/*
 * Fill src, dst and flow_hash. The addresses stay in registers for the hash: loading them from
 * the column again, in other pieces than they were stored, would stall.
 */
static void put_addresses(struct xp_batch *b, uint32_t i, const uint8_t *p,
			  const struct parsed *r)
{
	struct address src = {0, 0}, dst = {0, 0};
	uint32_t hash = 0;

	if (r->version == 4) {
		src = mapped(p + r->l3 + 12);
		dst = mapped(p + r->l3 + 16);
	} else if (r->version == 6) {
		src = native(p + r->l3 + 8);
		dst = native(p + r->l3 + 24);
	}
	/*
	 * The later fragments of a datagram have no ports, and of its IPv6 extension headers only
	 * those before the fragment header (RFC 8200, 4.5): the first must do without as well.
	 */
	if (r->flags & XP_FLAG_FRAGMENT)
		hash = flow_hash(src, dst, 0, 0);
	else if (r->version)
		hash = flow_hash(src, dst, r->ports, r->proto);
	memcpy(b->src + 16 * (size_t)i, &src, sizeof(src));
	memcpy(b->dst + 16 * (size_t)i, &dst, sizeof(dst));
	b->flow_hash[i] = hash;
}

/* The flow_hash that packet i, which has an IP header, has by its other columns. */
uint32_t xp_flow_hash(const struct xp_batch *b, uint32_t i)
{
	struct address src = native(b->src + 16 * (size_t)i), dst = native(b->dst + 16 * (size_t)i);

	if (b->flags[i] & XP_FLAG_FRAGMENT)
		return flow_hash(src, dst, 0, 0);
	return flow_hash(src, dst, (uint32_t)b->l4_sport[i] << 16 | b->l4_dport[i], b->ip_proto[i]);
}

/* Count over the finished column, eight packets at a time where the compiler can. */
static uint64_t count_flag(const struct xp_batch *b, uint32_t mask, uint32_t wanted)
{
	const uint32_t *restrict flags = b->flags;
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++)
		n += (flags[i] & mask) == wanted;
	return n;
}

int xp_stage_headers(struct xp_batch *b, void *state)
{
	struct xp_counts_state *s = state;
	uint64_t *n = s->counters;

	for (uint32_t i = 0; i < b->n; i++) {
		const uint8_t *p = xp_packet(b, i);
		struct parsed r = {
			.l3 = XP_ABSENT, .l4 = XP_ABSENT, .payload = XP_ABSENT, .payload_len = 0};

		if (i + PREFETCH_AHEAD < b->n)
			__builtin_prefetch(xp_packet(b, i + PREFETCH_AHEAD));
		r.malformed = parse((struct packet){p, b->head_len[i], b->len[i]}, &r);
		if (r.malformed) {
			r.flags |= XP_FLAG_MALFORMED;
			r.l4 = r.payload = XP_ABSENT;
			r.payload_len = 0;
		}
		b->flags[i] = r.flags;
		b->malformed[i] = r.malformed;
		b->l3[i] = r.l3;
		b->l4[i] = r.l4;
		b->payload[i] = r.payload;
		b->payload_len[i] = r.payload_len;
		b->eth_type[i] = r.eth_type;
		b->n_vlans[i] = r.n_vlans;
		b->vlan_tci[2 * i] = r.tci[0];
		b->vlan_tci[2 * i + 1] = r.tci[1];
		b->ip_version[i] = r.version;
		b->ip_proto[i] = r.proto;
		b->ip_ttl[i] = r.ttl;
		b->ip_tos[i] = r.tos;
		b->l4_sport[i] = (uint16_t)(r.ports >> 16);
		b->l4_dport[i] = (uint16_t)r.ports;
		b->tcp_flags[i] = r.tcp_flags;
		b->icmp_type[i] = r.icmp_type;
		b->icmp_code[i] = r.icmp_code;
		put_addresses(b, i, p, &r);
		if (r.malformed) {
			n[N_MALFORMED]++;
			n[N_MALFORMED + r.malformed]++;
		}
	}
	n[N_IPV4] += count_flag(b, XP_FLAG_IPV4, XP_FLAG_IPV4);
	n[N_IPV6] += count_flag(b, XP_FLAG_IPV6, XP_FLAG_IPV6);
	n[N_OTHER] += count_flag(b, XP_FLAG_IPV4 | XP_FLAG_IPV6 | XP_FLAG_MALFORMED, 0);
	n[N_TCP] += count_flag(b, XP_FLAG_TCP, XP_FLAG_TCP);
	n[N_UDP] += count_flag(b, XP_FLAG_UDP, XP_FLAG_UDP);
	n[N_ICMP] += count_flag(b, XP_FLAG_ICMP, XP_FLAG_ICMP);
	n[N_ICMP6] += count_flag(b, XP_FLAG_ICMP6, XP_FLAG_ICMP6);
	n[N_VLAN] += count_flag(b, XP_FLAG_VLAN, XP_FLAG_VLAN);
	n[N_FRAGMENTS] += count_flag(b, XP_FLAG_FRAGMENT, XP_FLAG_FRAGMENT);
	if (b->partial_checksums)
		n[N_PARTIAL_CHECKSUM] += xp_note_partial_checksums(b);
	return 0;
}
