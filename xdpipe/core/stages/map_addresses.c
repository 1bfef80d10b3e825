/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage MapAddresses: have the addresses and ports of undecided packets be others, by lists
 * of what becomes of which, source and destination alike.
 *
 *   Ethernet II   dst 6, src 6                                              IEEE 802.3
 *   ARP           htype 2, ptype 2, hlen, plen, op 2,                       RFC 826
 *                 sha 6, spa 4, tha 6, tpa 4   (htype 1, ptype 0x0800)
 *
 * and what addresses.h has. Checksums follow (checksum.h): one that was wrong stays wrong by as much.
 *
 * A packet whose IP header is whole is mapped, also if something behind it is not: one that was cut
 * when it was captured, for one, must not go to the hosts that it was for. What there is of its
 * checksum behind IP stays: nobody takes the packet. Not so where only the first of several frames ends
 * too early: the packet may be in order, and its checksum lie where it is not looked for.
 *
 * The lists are gone through one by one: they are short (xp_map_addresses_state).
 *
 * Left out: what else says addresses, as the packet within an ICMP error, targets and options of
 * neighbour discovery, routing headers and options; and what else covers them, as AH (RFC 4302), DCCP,
 * UDP-Lite, OSPF and PIM over IPv6.
 */
#include "parse.h"
#include "rewrite.h"
#include "stages/headers.h"
#include "stages/map_addresses.h"

enum { N_MAPPED, N_UNMATCHED, N_LEFT_ALONE };

#define MAC 6
#define ETHERNET 14
#define TAG 4
#define SNAP 8
#define ARP 28

/* What becomes of an IPv4 address; NULL: it stays. */
static const struct xp_new_address *find_ipv4(const uint8_t *p,
					      const struct xp_map_addresses_state *s)
{
	uint32_t address, from, care;

	memcpy(&address, p, 4);
	for (const struct xp_ip_map *map = s->ipv4; map < s->ipv4 + s->n_ipv4; map++) {
		memcpy(&from, map->from, 4);
		memcpy(&care, map->care, 4);
		if ((address & care) == from)
			return &map->to;
	}
	return NULL;
}

static const struct xp_new_address *find_ipv6(const uint8_t *p,
					      const struct xp_map_addresses_state *s)
{
	uint64_t address[2], from[2], care[2];

	memcpy(address, p, 16);
	for (const struct xp_ip_map *map = s->ipv6; map < s->ipv6 + s->n_ipv6; map++) {
		memcpy(from, map->from, 16);
		memcpy(care, map->care, 16);
		if ((address[0] & care[0]) == from[0] && (address[1] & care[1]) == from[1])
			return &map->to;
	}
	return NULL;
}

static uint32_t map_mac(uint8_t *p, const struct xp_map_addresses_state *s)
{
	for (const struct xp_mac_map *map = s->macs; map < s->macs + s->n_macs; map++) {
		if (memcmp(p, map->from, MAC) == 0) {
			memcpy(p, map->to, MAC);
			return 1;
		}
	}
	return 0;
}

/* Add to *change by how much a sum over the port changes. */
static uint32_t map_port(uint8_t *p, uint16_t *column, uint64_t *change,
			 const struct xp_map_addresses_state *s)
{
	uint16_t port = xp_get16(p);
	uint8_t now[2];

	for (const struct xp_port_map *map = s->ports; map < s->ports + s->n_ports; map++) {
		if (port < map->first || port > map->last)
			continue;
		xp_put16(now, (uint16_t)(map->to + map->step * (port - map->first)));
		*change += xp_set_port(p, column, now);
		return 1;
	}
	return 0;
}

/* Behind the Ethernet header, of a packet with an IP header. Returns how many were mapped. */
static uint32_t map_ip(struct xp_batch *b, uint32_t i, uint8_t *ip,
		       const struct xp_map_addresses_state *s)
{
	int is_ipv4 = b->ip_version[i] == 4;
	const struct xp_new_address *src = is_ipv4 ? find_ipv4(ip + 12, s) : find_ipv6(ip + 8, s);
	const struct xp_new_address *dst = is_ipv4 ? find_ipv4(ip + 16, s) : find_ipv6(ip + 24, s);
	uint8_t *ports = xp_ports(b, i);
	uint64_t pseudo = 0, own = 0;
	uint32_t n = (src != NULL) + (dst != NULL);

	if (n)
		pseudo = xp_set_ip_ends(b, i, ip, src, dst);
	if (ports) {
		n += map_port(ports, b->l4_sport + i, &own, s);
		n += map_port(ports + 2, b->l4_dport + i, &own, s);
	}
	if (n) {
		xp_fix_l4_checksum(b, i, pseudo, own);
		b->flow_hash[i] = xp_flow_hash_anew(b, i);
	}
	return n;
}

/* The ARP packet in packet i, of IPv4 over Ethernet; NULL: it is none, or not whole. */
static uint8_t *find_arp(const struct xp_batch *b, uint32_t i)
{
	static const uint8_t fixed[6] = {0, 1, 8, 0, 6, 4};
	int32_t at = ETHERNET + TAG * b->n_vlans[i];
	uint8_t *p;

	if (!(b->flags[i] & XP_FLAG_ARP))
		return NULL;
	if (b->flags[i] & XP_FLAG_SNAP)
		at += SNAP;
	p = xp_packet(b, i) + at;
	if (!xp_within(b, i, at, ARP) || xp_get16(p - 2) != XP_ETH_ARP ||
	    memcmp(p, fixed, sizeof(fixed)) != 0)
		return NULL;
	return p;
}

static uint32_t map_arp(uint8_t *p, const struct xp_map_addresses_state *s)
{
	uint32_t n = 0;

	for (uint8_t *end = p + 8; end < p + ARP; end += MAC + 4) {
		const struct xp_new_address *new = find_ipv4(end + MAC, s);

		n += map_mac(end, s);
		if (!new)
			continue;
		xp_put_address(end + MAC, new, 4);
		n++;
	}
	return n;
}

/* The IP header of packet i, without options, whatever is behind it; NULL: it has none. */
static uint8_t *whole_ip_header(const struct xp_batch *b, uint32_t i)
{
	uint8_t version = b->ip_version[i];

	if (version == 0 || !xp_within(b, i, b->l3[i], version == 4 ? 20 : 40))
		return NULL;
	return xp_packet(b, i) + b->l3[i];
}

static int map_packet(struct xp_batch *b, uint32_t i, const struct xp_map_addresses_state *s)
{
	uint8_t *p = xp_packet(b, i), *ip, *arp;
	uint32_t n;

	if (!xp_is_outermost(b, i) || !xp_within(b, i, 0, 2 * MAC) ||
	    (b->malformed[i] && b->n_frames[i] > 1))
		return N_LEFT_ALONE;
	n = map_mac(p, s) + map_mac(p + MAC, s);
	ip = whole_ip_header(b, i);
	arp = find_arp(b, i);
	if (ip)
		n += map_ip(b, i, ip, s);
	else if (arp)
		n += map_arp(arp, s);
	return n ? N_MAPPED : N_UNMATCHED;
}

int xp_stage_map_addresses(struct xp_batch *b, void *state)
{
	const struct xp_map_addresses_state *s = state;

	for (uint32_t i = 0; i < b->n; i++)
		if (xp_is_chosen(b, i, s->only))
			s->counters[map_packet(b, i, s)]++;
	return 0;
}
