/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage SetAddresses: write addresses and ports into undecided packets.
 *
 *   Ethernet II   dst 6, src 6                                    IEEE 802.3
 *
 * and what addresses.h has. Checksums follow (checksum.h). In a fragmented datagram the first fragment
 * has the one of TCP or UDP, over all of them, and the addresses that it covers are those of each: it
 * is right once all have been rewritten.
 *
 * Left out: what else says addresses, as the packet within an ICMP error, routing headers and options,
 * ARP; and what else covers them, as AH (RFC 4302), DCCP, UDP-Lite, OSPF and PIM over IPv6.
 */
#include "rewrite.h"
#include "stages/headers.h"
#include "stages/set_addresses.h"

enum { N_SET, N_PARTLY, N_LEFT_ALONE };

#define MAC 6

/* Set what packet i has of what is wanted behind its Ethernet header. Returns how much that is. */
static uint32_t set_behind_ethernet(struct xp_batch *b, uint32_t i, uint8_t *ip,
				    const struct xp_set_addresses_state *s)
{
	const struct xp_new_address *new = b->ip_version[i] == 4 ? s->ipv4 : s->ipv6;
	uint8_t *ports = xp_ports(b, i);
	uint32_t n = new[XP_SRC].wanted + new[XP_DST].wanted;
	uint64_t pseudo = 0, own = 0;

	if (n)
		pseudo = xp_set_ip_ends(b, i, ip, new[XP_SRC].wanted ? new + XP_SRC : NULL,
					new[XP_DST].wanted ? new + XP_DST : NULL);
	if (ports && s->port_wanted[XP_SRC])
		own += xp_set_port(ports, b->l4_sport + i, s->port[XP_SRC]);
	if (ports && s->port_wanted[XP_DST])
		own += xp_set_port(ports + 2, b->l4_dport + i, s->port[XP_DST]);
	if (ports)
		n += s->port_wanted[XP_SRC] + s->port_wanted[XP_DST];
	if (n == 0)
		return 0;
	xp_fix_l4_checksum(b, i, pseudo, own);
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
