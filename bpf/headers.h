/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The headers that the guard reads, and no further.
 *
 *   Ethernet II, up to two tags of 802.1Q or 802.1ad: dst 6, src 6, [type 2, tci 2] x 0..2, type 2
 *   IPv4  RFC 791, 3.1     IPv6  RFC 8200, 3 and 4 (extension headers)
 *   ARP, and what is in other ethertypes: not read
 *
 * Left out: what a packet carries inside PPPoE, MPLS or a tunnel. It is not this host's own ARP,
 * neighbour discovery or SSH.
 */
#ifndef XP_HEADERS_H
#define XP_HEADERS_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>

/* Extension headers of one packet that are read; RFC 8200, 4.1 knows 8 places for them. */
#define XP_N_EXTENSIONS 8
/* Bytes from the start of a packet up to which headers are looked for. */
#define XP_HEADERS_MAX 0xfff

#define xp_ntohs(value) __builtin_bswap16(value)
#define xp_ntohl(value) __builtin_bswap32(value)

struct xp_vlan {
	__be16 tci;
	__be16 type;
};

struct xp_fragment {
	u8 next;
	u8 reserved;
	__be16 offset; /* in units of 8 bytes, << 3, and flags */
	__be32 id;
};

/* What the guard asks of an IP packet. */
struct xp_ip {
	void *payload;  /* after the IP header and its extension headers */
	u8 proto;       /* of the payload, IPPROTO_* */
	u8 fragment;    /* not the first one, so the payload starts within that of another packet */
	__be32 *source; /* 1 or 4 words */
	__be32 *destination;
};

/*
 * Is it for the device at the other end of the link alone? No bridge forwards 01-80-C2-00-00-00 to
 * -0F: IEEE 802.1Q, table 8-1.
 */
static __always_inline int xp_is_to_link_partner(void *data, void *data_end)
{
	struct ethhdr *eth = data;
	u8 *to = eth->h_dest;

	if ((void *)(eth + 1) > data_end)
		return 0;
	return to[0] == 0x01 && to[1] == 0x80 && to[2] == 0xc2 && to[3] == 0 && to[4] == 0 &&
	       to[5] < 0x10;
}

/* Find the network header and its type. Returns 0, or -1 where the packet ends before. */
static __always_inline int xp_parse_ethernet(void **at, void *data_end, u16 *type)
{
	struct ethhdr *eth = *at;
	struct xp_vlan *vlan;
	int i;

	if ((void *)(eth + 1) > data_end)
		return -1;
	*type = xp_ntohs(eth->h_proto);
	vlan = (void *)(eth + 1);
#pragma unroll
	for (i = 0; i < 2; i++) {
		if (*type != ETH_P_8021Q && *type != ETH_P_8021AD)
			break;
		if ((void *)(vlan + 1) > data_end)
			return -1;
		*type = xp_ntohs(vlan->type);
		vlan++;
	}
	*at = vlan;
	return *type == ETH_P_8021Q || *type == ETH_P_8021AD ? -1 : 0;
}

/* Returns 0, or -1 for a header that is cut short or makes no sense. */
static __always_inline int xp_parse_ipv4(void *at, void *data_end, struct xp_ip *ip)
{
	struct iphdr *header = at;
	u64 size;

	if ((void *)(header + 1) > data_end)
		return -1;
	size = header->ihl * 4;
	if (header->version != 4 || size < sizeof(*header) || xp_ntohs(header->tot_len) < size)
		return -1;
	asm volatile("" : "+r"(size)); /* see load.h */
	if (size > 60)
		return -1;
	ip->payload = at + size;
	if (ip->payload > data_end)
		return -1;
	ip->proto = header->protocol;
	ip->fragment = (header->frag_off & xp_ntohs(0x1fff)) != 0;
	ip->source = &header->saddr;
	ip->destination = &header->daddr;
	return 0;
}

/* Returns 0, or -1 for headers that are cut short, make no sense, or are too many. */
static __always_inline int xp_parse_ipv6(void *data, void *at, void *data_end, struct xp_ip *ip)
{
	struct ipv6hdr *header = at;
	struct xp_fragment *fragment;
	u8 next, *extension;
	u64 offset;
	int i;

	if ((void *)(header + 1) > data_end || header->version != 6)
		return -1;
	ip->source = header->saddr.in6_u.u6_addr32;
	ip->destination = header->daddr.in6_u.u6_addr32;
	ip->fragment = 0;
	next = header->nexthdr;
	offset = (void *)(header + 1) - data;
	for (i = 0; i < XP_N_EXTENSIONS + 1; i++) {
		asm volatile("" : "+r"(offset)); /* see load.h */
		if (offset > XP_HEADERS_MAX)
			return -1;
		extension = data + offset;
		asm volatile("" : "+r"(extension));
		if ((void *)extension > data_end)
			return -1;
		if (ip->fragment)
			break;
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
		case 139: /* HIP, RFC 7401 */
		case 140: /* Shim6, RFC 5533 */
			if ((void *)(extension + 8) > data_end)
				return -1;
			next = extension[0];
			offset += (extension[1] + 1) * 8;
			continue;
		case IPPROTO_AH: /* RFC 4302, 2.2: in units of 4 bytes, less 2 */
			if ((void *)(extension + 8) > data_end)
				return -1;
			next = extension[0];
			offset += (extension[1] + 2) * 4;
			continue;
		case IPPROTO_FRAGMENT:
			fragment = (void *)extension;
			if ((void *)(fragment + 1) > data_end)
				return -1;
			next = fragment->next;
			offset += sizeof(*fragment);
			ip->fragment = (fragment->offset & xp_ntohs(0xfff8)) != 0;
			continue;
		}
		break;
	}
	if (i == XP_N_EXTENSIONS + 1)
		return -1;
	ip->proto = next;
	ip->payload = extension;
	return 0;
}

#endif
