/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of headers, for the stages that fill the columns of Headers: Headers itself, and Decap
 * for what lies within a packet.
 */
#ifndef XP_PARSE_H
#define XP_PARSE_H

#include "xp_batch.h"

#define XP_ETH_IPV4 0x0800
#define XP_ETH_ARP 0x0806
#define XP_ETH_BRIDGED 0x6558 /* an Ethernet frame within a tunnel: transparent Ethernet bridging */
#define XP_ETH_VLAN 0x8100
#define XP_ETH_IPV6 0x86dd
#define XP_ETH_MPLS 0x8847
#define XP_ETH_MPLS_UPSTREAM 0x8848 /* labels assigned upstream, RFC 5332; multicast before */
#define XP_ETH_PPPOE_DISCOVERY 0x8863
#define XP_ETH_PPPOE 0x8864
#define XP_ETH_QINQ 0x88a8

static inline int xp_is_vlan(uint16_t eth_type)
{
	return eth_type == XP_ETH_VLAN || eth_type == XP_ETH_QINQ;
}

/*
 * Parse what lies from offset `at` to offset `end` of packet i, which has so many bytes, and fill all
 * columns of Headers: what this EtherType says, XP_ETH_BRIDGED: an Ethernet frame. Offsets are those
 * of the packet, wherever it begins. Of a packet in several frames the first is read; headers that go
 * on in the next are as if they ended there.
 */
void xp_parse_headers(struct xp_batch *b, uint32_t i, int32_t at, int32_t end, uint16_t eth_type);

#endif
