/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sets of addresses (xdpipe/sets.py). Their maps, and the function that looks in them, are written by
 * xdpipe/steering.py, since bcc does not see map accesses in macros.
 *
 * A map's value is the time at which the entry ends, ns of CLOCK_MONOTONIC; 0: never. Whoever writes
 * the map removes it some time after.
 */
#ifndef XP_SETS_H
#define XP_SETS_H

#include "headers.h"

enum xp_set_says { XP_SET_NOT_TAKEN, XP_SET_TAKEN, XP_SET_DROP, XP_SET_PASS };

struct xp_address {
	__be32 words[4]; /* IPv4 as ::ffff:a.b.c.d, RFC 4291, 2.5.5.2 */
};

struct xp_prefix { /* struct bpf_lpm_trie_key */
	u32 length; /* bits */
	struct xp_address address;
};

struct xp_addresses {
	struct xp_prefix src, dst;
};

/* Find a packet's addresses. Returns 0, or -1 where it is no IP or its header is cut short. */
static __always_inline int xp_find_addresses(void *data, void *data_end, struct xp_addresses *found)
{
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	void *at = data;
	u16 type;

	if (xp_parse_ethernet(&at, data_end, &type))
		return -1;
	found->src.length = found->dst.length = 128;
	if (type == ETH_P_IP) {
		ip4 = at;
		if ((void *)(ip4 + 1) > data_end)
			return -1;
		found->src.address.words[2] = found->dst.address.words[2] = xp_ntohl(0xffff);
		found->src.address.words[3] = ip4->saddr;
		found->dst.address.words[3] = ip4->daddr;
		return 0;
	}
	if (type != ETH_P_IPV6)
		return -1;
	ip6 = at;
	if ((void *)(ip6 + 1) > data_end)
		return -1;
	__builtin_memcpy(&found->src.address, &ip6->saddr, sizeof(found->src.address));
	__builtin_memcpy(&found->dst.address, &ip6->daddr, sizeof(found->dst.address));
	return 0;
}

#endif
