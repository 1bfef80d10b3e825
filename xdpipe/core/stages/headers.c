/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Headers: the parser (parse.c, parse_ip.h, which say what is read and what is left
 * out) over each packet of a batch.
 *
 * Writing some thirty columns costs more than reading the packet. So the loop has what most packets
 * are inline, Ethernet with up to two tags and IP without extension headers, and writes the columns
 * that these fill; all others are zeroed for the whole batch before. What is something else, or
 * malformed, is left to the whole parser, which writes all columns of it once more.
 */
#include "xp.h"
#include "parse.h"
#include "parse_ip.h"
#include "stages/headers.h"

#define PREFETCH_AHEAD 6

/* In the order of Headers.counters in xdpipe/stages/headers.py; behind malformed, one a reason. */
enum { N_IPV4, N_IPV6, N_OTHER, N_TCP, N_UDP, N_ICMP, N_ICMP6, N_IGMP, N_ARP, N_VLAN, N_MPLS, N_PPPOE,
       N_LLC, N_SNAP, N_FRAGMENTS, N_PARTIAL_CHECKSUM, N_MALFORMED };

/* The flow_hash that packet i, which has an IP header, has by its other columns. */
uint32_t xp_flow_hash_anew(const struct xp_batch *b, uint32_t i)
{
	address src = native(b->src + 16 * (size_t)i), dst = native(b->dst + 16 * (size_t)i);

	if (b->flags[i] & XP_FLAG_FRAGMENT)
		return flow_hash(src, dst, 0, 0);
	return flow_hash(src, dst, (uint32_t)b->l4_sport[i] << 16 | b->l4_dport[i], b->ip_proto[i]);
}

/* Flags that most packets have; these are counted over the whole column. */
#define COMMON (XP_FLAG_IPV4 | XP_FLAG_IPV6 | XP_FLAG_TCP | XP_FLAG_UDP)

/* The columns that parse_common may leave alone. */
static void clear_batch(struct xp_batch *b)
{
#define CLEAR(column, width) memset(b->column, 0, b->n * sizeof(*b->column) * (width))
	CLEAR(malformed, 1);
	CLEAR(n_vlans, 1);
	CLEAR(vlan_tci, 2);
	CLEAR(n_mpls, 1);
	CLEAR(mpls_label, 1);
	CLEAR(pppoe_session, 1);
	CLEAR(arp_op, 1);
	CLEAR(tcp_flags, 1);
	CLEAR(icmp_type, 1);
	CLEAR(icmp_code, 1);
	CLEAR(igmp_type, 1);
#undef CLEAR
}

/* Parse and fill in what most packets are; returns 0 where it is something else, or malformed. */
static inline int parse_common(struct parsing *s)
{
	struct xp_batch *b = s->b;
	uint32_t i = s->i;
	int32_t at = 14;
	uint16_t type;

	if (s->head < 14)
		return 0;
	type = xp_get16(s->p + 12);
	if (xp_is_vlan(type)) {
		if (s->head < 22)
			return 0;
		s->flags = XP_FLAG_VLAN;
		b->n_vlans[i] = 1;
		b->vlan_tci[2 * i] = xp_get16(s->p + 14);
		type = xp_get16(s->p + 16);
		at = 18;
		if (xp_is_vlan(type)) {
			b->n_vlans[i] = 2;
			b->vlan_tci[2 * i + 1] = xp_get16(s->p + 18);
			type = xp_get16(s->p + 20);
			at = 22;
		}
	}
	b->eth_type[i] = type;
	if (type == XP_ETH_IPV4) {
		if (parse_ipv4(s, at) || s->flags & XP_FLAG_LATER_FRAGMENT)
			return 0;
	} else if (type != XP_ETH_IPV6 || parse_ipv6_header(s, at) || is_extension(s->p[at + 6]) ||
		   parse_ipv6_plain(s, at)) {
		return 0;
	}
	b->flags[i] = s->flags;
	b->l4_sport[i] = (uint16_t)(s->ports >> 16);
	b->l4_dport[i] = (uint16_t)s->ports;
	return 1;
}

/* Count a packet of which most are not. */
static void count_rare(uint64_t *n, uint32_t flags, uint8_t malformed)
{
	n[N_OTHER] += !(flags & (XP_FLAG_IPV4 | XP_FLAG_IPV6 | XP_FLAG_MALFORMED));
	n[N_ICMP] += !!(flags & XP_FLAG_ICMP);
	n[N_ICMP6] += !!(flags & XP_FLAG_ICMP6);
	n[N_IGMP] += !!(flags & XP_FLAG_IGMP);
	n[N_ARP] += !!(flags & XP_FLAG_ARP);
	n[N_VLAN] += !!(flags & XP_FLAG_VLAN);
	n[N_MPLS] += !!(flags & XP_FLAG_MPLS);
	n[N_PPPOE] += !!(flags & XP_FLAG_PPPOE);
	n[N_LLC] += !!(flags & XP_FLAG_LLC);
	n[N_SNAP] += !!(flags & XP_FLAG_SNAP);
	n[N_FRAGMENTS] += !!(flags & XP_FLAG_FRAGMENT);
	if (malformed) {
		n[N_MALFORMED]++;
		n[N_MALFORMED + malformed]++;
	}
}

/* Count over the finished column, several packets at a time where the compiler can. */
static uint64_t count_flag(const struct xp_batch *b, uint32_t mask)
{
	const uint32_t *restrict flags = b->flags;
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++)
		n += (flags[i] & mask) != 0;
	return n;
}

int xp_stage_headers(struct xp_batch *b, void *state)
{
	struct xp_counts_state *state_of = state;
	uint64_t *n = state_of->counters;

	clear_batch(b);
	for (uint32_t i = 0; i < b->n; i++) {
		struct parsing s = {b, i, xp_packet(b, i), b->head_len[i], b->len[i], 0, 0};

		if (i + PREFETCH_AHEAD < b->n)
			__builtin_prefetch(xp_packet(b, i + PREFETCH_AHEAD));
		if (!parse_common(&s)) {
			xp_parse_headers(b, i, 0, b->len[i], XP_ETH_BRIDGED);
			count_rare(n, b->flags[i], b->malformed[i]);
		} else if (s.flags & ~COMMON) {
			count_rare(n, s.flags, 0);
		}
	}
	n[N_IPV4] += count_flag(b, XP_FLAG_IPV4);
	n[N_IPV6] += count_flag(b, XP_FLAG_IPV6);
	n[N_TCP] += count_flag(b, XP_FLAG_TCP);
	n[N_UDP] += count_flag(b, XP_FLAG_UDP);
	if (b->partial_checksums)
		n[N_PARTIAL_CHECKSUM] += xp_note_partial_checksums(b);
	return 0;
}
