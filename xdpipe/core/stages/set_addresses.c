/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage SetAddresses: write addresses and ports into undecided packets.
 *
 *   Ethernet II   dst 6, src 6                                    IEEE 802.3
 *   IPv4          12: src 4, dst 4; checksum at 10                RFC 791
 *   IPv6          8: src 16, dst 16                               RFC 8200
 *   TCP, UDP      sport 2, dport 2; checksum at 16, at 6          RFC 9293, RFC 768
 *   ICMPv6        checksum at 2, over a pseudo header             RFC 4443, 2.3
 *
 * Checksums follow (checksum.h). In a fragmented datagram the first fragment has the one of TCP or UDP,
 * over all of them, and the addresses that it covers are those of each: it is right once all have been
 * rewritten.
 *
 * Left out: what else says addresses, as the packet within an ICMP error, routing headers and options,
 * ARP; and what else covers them, as AH (RFC 4302), DCCP, UDP-Lite, OSPF and PIM over IPv6.
 */
#include "checksum.h"
#include "pseudo_header.h"
#include "rewrite.h"
#include "stages/headers.h"
#include "stages/set_addresses.h"

enum { N_SET, N_PARTLY, N_LEFT_ALONE };

#define MAC 6

/* By how much sums change, over both addresses and over those of them that the checksum behind IP covers. */
struct changes {
	uint64_t all, covered;
};

/* Set an IP address of `size` bytes, and in its column; return by how much a sum over it changes. */
static inline uint64_t set_address(uint8_t *field, uint8_t *column,
				   const struct xp_new_address *new, uint32_t size)
{
	uint8_t now[16];
	uint64_t change;

	for (uint32_t k = 0; k < size; k++)
		now[k] = (uint8_t)((field[k] & new->keep[k]) | new->set[k]);
	change = xp_change(field, now, size);
	memcpy(field, now, size);
	memcpy(column + 16 - size, now, size);
	return change;
}

/* Set the addresses of packet i, which stand one behind the other. */
static inline struct changes set_ends(struct xp_batch *b, uint32_t i, uint8_t *ends,
				      const struct xp_new_address new[2], uint32_t size)
{
	uint64_t src = 0, dst = 0;
	uint32_t covered = xp_covered(b, i);
	size_t row = 16 * (size_t)i;

	if (new[XP_SRC].wanted)
		src = set_address(ends, b->src + row, new + XP_SRC, size);
	if (new[XP_DST].wanted)
		dst = set_address(ends + size, b->dst + row, new + XP_DST, size);
	return (struct changes){src + dst, (covered & XP_COVERS_SRC ? src : 0) +
					   (covered & XP_COVERS_DST ? dst : 0)};
}

static uint64_t set_port(uint8_t *field, uint16_t *column, const uint8_t *port)
{
	uint64_t change = xp_change(field, port, 2);

	memcpy(field, port, 2);
	*column = xp_get16(port);
	return change;
}

/* Set what packet i has of what is wanted behind its Ethernet header. Returns how much that is. */
static uint32_t set_behind_ethernet(struct xp_batch *b, uint32_t i, uint8_t *ip,
				    const struct xp_set_addresses_state *s)
{
	const struct xp_new_address *new = b->ip_version[i] == 4 ? s->ipv4 : s->ipv6;
	uint8_t *ports = xp_ports(b, i);
	uint32_t n = new[XP_SRC].wanted + new[XP_DST].wanted;
	struct changes changes = {0, 0};
	uint64_t own = 0;

	if (n && b->ip_version[i] == 4) {
		changes = set_ends(b, i, ip + 12, new, 4);
		xp_fix_checksum(ip + 10, changes.all);
	} else if (n) {
		changes = set_ends(b, i, ip + 8, new, 16);
	}
	if (ports && s->port_wanted[XP_SRC])
		own += set_port(ports, b->l4_sport + i, s->port[XP_SRC]);
	if (ports && s->port_wanted[XP_DST])
		own += set_port(ports + 2, b->l4_dport + i, s->port[XP_DST]);
	if (ports)
		n += s->port_wanted[XP_SRC] + s->port_wanted[XP_DST];
	if (n == 0)
		return 0;
	xp_fix_l4_checksum(b, i, changes.covered, own);
	b->flow_hash[i] = xp_flow_hash_anew(b, i);
	return n;
}

static uint32_t set_packet(struct xp_batch *b, uint32_t i, const struct xp_set_addresses_state *s)
{
	uint8_t *p = xp_packet(b, i), *ip = xp_ip_header(b, i);
	uint32_t n = s->mac_wanted[XP_SRC] + s->mac_wanted[XP_DST];

	if (b->malformed[i] || !xp_within(b, i, 0, 2 * MAC))
		return 0;
	if (s->mac_wanted[XP_DST])
		memcpy(p, s->mac[XP_DST], MAC);
	if (s->mac_wanted[XP_SRC])
		memcpy(p + MAC, s->mac[XP_SRC], MAC);
	return ip ? n + set_behind_ethernet(b, i, ip, s) : n;
}

int xp_stage_set_addresses(struct xp_batch *b, void *state)
{
	const struct xp_set_addresses_state *s = state;
	uint32_t n_wanted = 0;

	for (int end = XP_SRC; end <= XP_DST; end++)
		n_wanted += s->mac_wanted[end] + s->port_wanted[end] +
			    (s->ipv4[end].wanted | s->ipv6[end].wanted);
	for (uint32_t i = 0; i < b->n; i++) {
		uint32_t n;

		if (!xp_is_chosen(b, i, s->only))
			continue;
		n = set_packet(b, i, s);
		s->counters[n == n_wanted ? N_SET : n ? N_PARTLY : N_LEFT_ALONE]++;
	}
	return 0;
}
