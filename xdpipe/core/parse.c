/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an Ethernet header, or what an EtherType says, to IP or what else there is.
 *
 *   Ethernet II   dst 6, src 6, type 2                                      IEEE 802.3
 *   VLAN tag      TPID 2 (0x8100, 0x88a8), TCI 2                            IEEE 802.1Q
 *   802.3         dst 6, src 6, length 2 (up to 1500), then LLC             IEEE 802.3, 3.2.6
 *   LLC           DSAP, SSAP, control 1 or 2                                IEEE 802.2
 *   SNAP          LLC AA AA 03, OUI 3, protocol 2: with OUI 0 an EtherType  RFC 1042
 *   ARP           htype 2, ptype 2, hlen, plen, op 2, addresses             RFC 826
 *   MPLS          label 20 bits, TC 3, bottom of stack 1, TTL 8; again      RFC 3032, 2.1
 *   PPPoE         version 4 bits, type 4, code, session 2, length 2;        RFC 2516, 4
 *                 PPP protocol 2                                            RFC 1661, 2
 *
 * Behind the MPLS labels nothing says what comes: IP is told by its version field, as routers and
 * tshark do (RFC 4928, 3: other payloads had better not begin so).
 *
 * Left out, so they end at the EtherType column: more than two VLAN tags, more than eight MPLS labels;
 * SNAP with another OUI; IP in LLC without SNAP; PPP with its protocol field compressed (RFC 1661,
 * 6.5), and what PPPoE discovery says. Lengths of 1501 to 1535 are neither length nor EtherType.
 *
 * A length that the packet itself contradicts is malformed; the columns of the layers before the
 * fault are filled, those from there on say absent.
 */
#include "parse.h"
#include "parse_ip.h"

#define LENGTH_MAX 1500
#define MPLS_MAX 8
#define PPP_IPV4 0x0021
#define PPP_IPV6 0x0057

static uint8_t parse_type(struct parsing *s, int32_t at, uint16_t type, int in_ethernet);

/* What is looked at ends at this offset; it lies within what was looked at. */
static void end_at(struct parsing *s, int32_t end)
{
	s->len = end;
	if (s->head > end)
		s->head = end;
}

/* Behind the fixed header of IPv6, whose packet ends at `end`. */
static uint8_t parse_extensions(struct parsing *s, int32_t at, int32_t end, uint8_t *proto)
{
	const uint8_t *p = s->p;
	int whole = 1;

	for (int i = 0; is_extension(*proto); i++) {
		int32_t size;

		s->flags |= XP_FLAG_IP_OPTIONS;
		if (i == IPV6_EXT_MAX || end - at < 8 || s->head - at < 8)
			return XP_MALFORMED_IP6_EXT;
		if (*proto == PROTO_FRAGMENT) {
			uint16_t fragment = xp_get16(p + at + 2) & 0xfff9; /* offset and M */

			size = 8;
			*proto = p[at];
			if (fragment) { /* else an atomic fragment, a whole datagram: RFC 6946 */
				s->flags |= XP_FLAG_FRAGMENT;
				whole = 0;
				if (fragment & 0xfff8)
					return later_fragment(s, at + size, end);
			}
		} else {
			/* AH counts in 4 bytes less 2, all others in 8 bytes less 1 */
			size = *proto == PROTO_AH ? (p[at + 1] + 2) * 4 : (p[at + 1] + 1) * 8;
			*proto = p[at];
		}
		if (size > end - at)
			return XP_MALFORMED_IP6_EXT;
		at += size;
	}
	return parse_l4(s, at, end, whole, 6, *proto);
}

static uint8_t parse_ipv6(struct parsing *s, int32_t at)
{
	const uint8_t *p = s->p + at;
	uint8_t malformed = parse_ipv6_header(s, at);
	uint8_t proto;
	int32_t end;

	if (malformed)
		return malformed;
	if (!is_extension(p[6]))
		return parse_ipv6_plain(s, at);
	proto = p[6];
	end = at + 40 + xp_get16(p + 4);
	malformed = end > s->len ? XP_MALFORMED_IP6_LEN : parse_extensions(s, at + 40, end, &proto);
	s->b->ip_proto[s->i] = proto;
	put_flow(s, native(p + 8), native(p + 24), proto);
	return malformed;
}

static uint8_t parse_llc(struct parsing *s, int32_t at, int32_t size)
{
	const uint8_t *p = s->p + at;

	if (size > s->len - at)
		return XP_MALFORMED_LLC_LEN;
	end_at(s, at + size);
	if (s->head - at < 3)
		return XP_MALFORMED_LLC_SHORT;
	if (p[0] == 0xff && p[1] == 0xff) /* IPX right behind the length, without LLC */
		return 0;
	if ((p[2] & 3) != 3 && s->head - at < 4) /* I and S frames: 2 bytes of control */
		return XP_MALFORMED_LLC_SHORT;
	s->flags |= XP_FLAG_LLC;
	if (p[0] != 0xaa || p[1] != 0xaa || p[2] != 3)
		return 0;
	if (s->head - at < 8)
		return XP_MALFORMED_LLC_SHORT;
	s->flags |= XP_FLAG_SNAP;
	if (p[3] | p[4] | p[5])
		return 0;
	return parse_type(s, at + 8, xp_get16(p + 6), 0);
}

static uint8_t parse_arp(struct parsing *s, int32_t at)
{
	const uint8_t *p = s->p + at;

	if (s->head - at < 8 || s->head - at < 8 + 2 * (p[4] + p[5]))
		return XP_MALFORMED_ARP_SHORT;
	s->flags |= XP_FLAG_ARP;
	s->b->arp_op[s->i] = xp_get16(p + 6);
	return 0;
}

static uint8_t parse_mpls(struct parsing *s, int32_t at)
{
	uint32_t entry;
	uint8_t n = 0;

	do {
		if (s->head - at < 4)
			return XP_MALFORMED_MPLS_SHORT;
		if (n == MPLS_MAX)
			return 0;
		entry = xp_get32(s->p + at);
		if (n == 0)
			s->b->mpls_label[s->i] = entry >> 12;
		s->b->n_mpls[s->i] = ++n;
		s->flags |= XP_FLAG_MPLS;
		at += 4;
	} while (!(entry & 0x100));
	if (s->head - at < 1)
		return XP_MALFORMED_MPLS_SHORT;
	if (s->p[at] >> 4 == 4)
		return parse_ipv4(s, at);
	if (s->p[at] >> 4 == 6)
		return parse_ipv6(s, at);
	return 0;
}

static uint8_t parse_pppoe(struct parsing *s, int32_t at)
{
	const uint8_t *p = s->p + at;
	int32_t size;

	if (s->head - at < 6)
		return XP_MALFORMED_PPPOE_SHORT;
	if (p[0] != 0x11)
		return XP_MALFORMED_PPPOE_VERSION;
	if (p[1] != 0)
		return XP_MALFORMED_PPPOE_CODE;
	s->flags |= XP_FLAG_PPPOE;
	s->b->pppoe_session[s->i] = xp_get16(p + 2);
	size = xp_get16(p + 4);
	if (size < 2 || size > s->len - at - 6)
		return XP_MALFORMED_PPPOE_LEN;
	end_at(s, at + 6 + size);
	if (s->head - at < 8)
		return XP_MALFORMED_PPPOE_SHORT;
	switch (xp_get16(p + 6)) {
	case PPP_IPV4:
		return parse_ipv4(s, at + 8);
	case PPP_IPV6:
		return parse_ipv6(s, at + 8);
	default:
		return 0;
	}
}

/* What a type says lies at an offset; right behind Ethernet's addresses it may be a length. */
static uint8_t parse_type(struct parsing *s, int32_t at, uint16_t type, int in_ethernet)
{
	struct xp_batch *b = s->b;

	while (xp_is_vlan(type) && b->n_vlans[s->i] < 2) {
		b->eth_type[s->i] = type;
		if (s->head - at < 4)
			return XP_MALFORMED_VLAN_SHORT;
		s->flags |= XP_FLAG_VLAN;
		b->vlan_tci[2 * s->i + b->n_vlans[s->i]++] = xp_get16(s->p + at);
		type = xp_get16(s->p + at + 2);
		at += 4;
	}
	b->eth_type[s->i] = type;
	switch (type) {
	case XP_ETH_IPV4:
		return parse_ipv4(s, at);
	case XP_ETH_IPV6:
		return parse_ipv6(s, at);
	case XP_ETH_ARP:
		return parse_arp(s, at);
	case XP_ETH_MPLS:
	case XP_ETH_MPLS_UPSTREAM:
		return parse_mpls(s, at);
	case XP_ETH_PPPOE_DISCOVERY:
		s->flags |= XP_FLAG_PPPOE;
		return 0;
	case XP_ETH_PPPOE:
		return parse_pppoe(s, at);
	default:
		return in_ethernet && type <= LENGTH_MAX ? parse_llc(s, at, type) : 0;
	}
}

static uint8_t parse_ethernet(struct parsing *s, int32_t at)
{
	if (s->head - at < 14)
		return XP_MALFORMED_ETH_SHORT;
	return parse_type(s, at + 14, xp_get16(s->p + at + 12), 1);
}

/* Have the columns of Headers say that there is nothing; flags and malformed are still to come. */
static void clear(struct xp_batch *b, uint32_t i)
{
	b->l3[i] = b->l4[i] = b->payload[i] = XP_ABSENT;
	b->payload_len[i] = 0;
	b->eth_type[i] = 0;
	b->n_vlans[i] = b->n_mpls[i] = 0;
	b->vlan_tci[2 * i] = b->vlan_tci[2 * i + 1] = 0;
	b->mpls_label[i] = 0;
	b->pppoe_session[i] = b->arp_op[i] = 0;
	b->ip_version[i] = b->ip_proto[i] = b->ip_ttl[i] = b->ip_tos[i] = 0;
	memset(b->src + 16 * (size_t)i, 0, 16);
	memset(b->dst + 16 * (size_t)i, 0, 16);
	b->l4_sport[i] = b->l4_dport[i] = 0;
	b->tcp_flags[i] = b->icmp_type[i] = b->icmp_code[i] = b->igmp_type[i] = 0;
	b->flow_hash[i] = 0;
}

void xp_parse_headers(struct xp_batch *b, uint32_t i, int32_t at, int32_t end, uint16_t eth_type)
{
	struct parsing s = {b, i, xp_packet(b, i), b->head_len[i], b->len[i], 0, 0};
	uint8_t malformed;

	end_at(&s, end);
	clear(b, i);
	malformed = eth_type == XP_ETH_BRIDGED ? parse_ethernet(&s, at)
					       : parse_type(&s, at, eth_type, 0);
	if (malformed) {
		s.flags |= XP_FLAG_MALFORMED;
		b->l4[i] = b->payload[i] = XP_ABSENT;
		b->payload_len[i] = 0;
	}
	b->malformed[i] = malformed;
	b->flags[i] = s.flags;
	b->l4_sport[i] = (uint16_t)(s.ports >> 16);
	b->l4_dport[i] = (uint16_t)s.ports;
}
