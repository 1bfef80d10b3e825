/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage Headers, its flags, and its reasons to call a packet malformed. */
#ifndef XP_COLUMNS_HEADERS_H
#define XP_COLUMNS_HEADERS_H

#define XP_HEADERS_COLUMNS(X)                                                                      \
	X(flags, uint32_t, 1, 0, "Headers", "FLAG_* bits: which headers are there, fragments")     \
	X(malformed, uint8_t, 1, 0, "Headers",                                                     \
	  "0, or MALFORMED_*: the first length or field that cannot be; headers are looked for in " \
	  "the first frame alone")                                                                 \
	X(l3, xp_offset_t, 1, 0, "Headers", "offset of the IP header")                             \
	X(l4, xp_offset_t, 1, 0, "Headers",                                                        \
	  "offset of the header behind IP and its extensions; absent in a later fragment")         \
	X(payload, xp_offset_t, 1, 0, "Headers",                                                       \
	  "offset of the first byte behind TCP, UDP, ICMP, ICMPv6 or IGMP (else behind IP)")       \
	X(payload_len, int32_t, 1, 0, "Headers",                                                   \
	  "bytes of payload by the packet's own length fields, Ethernet padding excluded")         \
	X(eth_type, uint16_t, 1, 0, "Headers",                                                     \
	  "EtherType behind the VLAN tags, or that of SNAP with OUI 0; up to 1500: the length of " \
	  "an 802.3 frame")                                                                        \
	X(n_vlans, uint8_t, 1, 0, "Headers", "VLAN tags: 0 to 2")                                  \
	X(vlan_tci, uint16_t, 2, 0, "Headers", "tag control of the outer and the inner VLAN tag")  \
	X(n_mpls, uint8_t, 1, 0, "Headers", "MPLS labels: 0 to 8; behind more nothing is looked for") \
	X(mpls_label, uint32_t, 1, 0, "Headers", "the outermost MPLS label, 20 bits, else 0")      \
	X(pppoe_session, uint16_t, 1, 0, "Headers", "PPPoE session, else 0")                       \
	X(arp_op, uint16_t, 1, 0, "Headers", "ARP operation: 1 request, 2 reply; else 0")          \
	X(ip_version, uint8_t, 1, 0, "Headers", "4, 6, or 0")                                      \
	X(ip_proto, uint8_t, 1, 0, "Headers", "protocol behind IP and its extension headers")      \
	X(ip_ttl, uint8_t, 1, 0, "Headers", "time to live, hop limit")                             \
	X(ip_tos, uint8_t, 1, 0, "Headers", "DSCP and ECN (traffic class)")                        \
	X(src, uint8_t, 16, 0, "Headers", "source address; IPv4 as ::ffff:a.b.c.d")                \
	X(dst, uint8_t, 16, 0, "Headers", "destination address; IPv4 as ::ffff:a.b.c.d")           \
	X(l4_sport, uint16_t, 1, 0, "Headers", "TCP or UDP source port, else 0")                   \
	X(l4_dport, uint16_t, 1, 0, "Headers", "TCP or UDP destination port, else 0")              \
	X(tcp_flags, uint8_t, 1, 0, "Headers", "CWR ECE URG ACK PSH RST SYN FIN, else 0")          \
	X(icmp_type, uint8_t, 1, 0, "Headers", "ICMP or ICMPv6 type, else 0")                      \
	X(icmp_code, uint8_t, 1, 0, "Headers", "ICMP or ICMPv6 code, else 0")                      \
	X(igmp_type, uint8_t, 1, 0, "Headers", "IGMP type, else 0")                                \
	X(flow_hash, uint32_t, 1, 0, "Headers",                                                    \
	  "same for both directions of a flow; all fragments of a datagram share one")

/* X(name, value, meaning) */
#define XP_FLAGS(X)                                                                                \
	X(VLAN, 0x1, "at least one VLAN tag")                                                      \
	X(IPV4, 0x2, "IPv4")                                                                       \
	X(IPV6, 0x4, "IPv6")                                                                       \
	X(IP_OPTIONS, 0x8, "IPv4 options or IPv6 extension headers")                               \
	X(FRAGMENT, 0x10, "part of a fragmented datagram")                                         \
	X(LATER_FRAGMENT, 0x20, "not the first part: it has no l4 header")                         \
	X(TCP, 0x40, "a whole TCP header")                                                         \
	X(UDP, 0x80, "a whole UDP header")                                                         \
	X(ICMP, 0x100, "a whole ICMP header")                                                      \
	X(ICMP6, 0x200, "a whole ICMPv6 header")                                                   \
	X(MALFORMED, 0x400, "see the column malformed")                                            \
	X(ARP, 0x800, "a whole ARP packet")                                                        \
	X(IGMP, 0x1000, "a whole IGMP header")                                                     \
	X(MPLS, 0x2000, "at least one MPLS label")                                                 \
	X(PPPOE, 0x4000, "PPPoE, session or discovery")                                            \
	X(LLC, 0x8000, "802.3 with an LLC header")                                                 \
	X(SNAP, 0x10000, "and a SNAP header behind it")                                            \
	X(TUNNEL, 0x20000, "Decap has reached a packet within: the columns speak of that one")

/* X(name, meaning); the value is the place in the list, from 1 */
#define XP_MALFORMED(X)                                                                            \
	X(ETH_SHORT, "fewer than 14 bytes")                                                        \
	X(VLAN_SHORT, "ends within a VLAN tag")                                                    \
	X(IP4_SHORT, "ends within the IPv4 header")                                                \
	X(IP4_VERSION, "EtherType says IPv4, the version field does not")                          \
	X(IP4_IHL, "IPv4 header length below 20 or beyond the packet")                             \
	X(IP4_LEN, "IPv4 total length below the header's, or more than arrived")                   \
	X(IP6_SHORT, "ends within the IPv6 header")                                                \
	X(IP6_VERSION, "EtherType says IPv6, the version field does not")                          \
	X(IP6_LEN, "IPv6 payload length is more than arrived")                                     \
	X(IP6_EXT, "an extension header ends beyond the packet, or there are more than 16")        \
	X(TCP_SHORT, "ends within the TCP header")                                                 \
	X(TCP_OFFSET, "TCP data offset below 20 or beyond the packet")                             \
	X(UDP_SHORT, "ends within the UDP header")                                                 \
	X(UDP_LEN, "UDP length below 8 or more than IP carries")                                   \
	X(ICMP_SHORT, "ends within the 8 bytes of the ICMP header")                                \
	X(ICMP6_SHORT, "ends within the first 8 bytes of the ICMPv6 message")                      \
	X(ARP_SHORT, "ends within ARP's header or addresses")                                      \
	X(LLC_LEN, "802.3 length is more than arrived")                                            \
	X(LLC_SHORT, "ends within the LLC or SNAP header")                                         \
	X(MPLS_SHORT, "ends within the MPLS label stack, or right behind it")                      \
	X(PPPOE_SHORT, "ends within the PPPoE header or PPP's protocol field")                     \
	X(PPPOE_VERSION, "PPPoE version and type are not 1 and 1")                                 \
	X(PPPOE_CODE, "the code of a PPPoE session is not 0")                                      \
	X(PPPOE_LEN, "PPPoE length below 2, or more than arrived")                                 \
	X(IGMP_SHORT, "ends within the first 8 bytes of the IGMP message")

enum xp_flag {
#define X(name, value, doc) XP_FLAG_##name = value,
	XP_FLAGS(X)
#undef X
};

enum xp_malformed {
	XP_MALFORMED_NONE,
#define X(name, doc) XP_MALFORMED_##name,
	XP_MALFORMED(X)
#undef X
		XP_N_MALFORMED
};

#endif
