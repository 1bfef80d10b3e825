/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of what xdpipe counts and keeps per packet. C makes struct fields of it, Python
 * reads it at run time (xp_columns[], xp_counters[]), the documentation is generated from it.
 */
#ifndef XP_COLUMNS_H
#define XP_COLUMNS_H

#include <stdint.h>

/*
 * Offsets and lengths are int32_t, so that sums and differences in numpy neither wrap nor change
 * type; a header that is not there has the offset XP_ABSENT, which lies beyond every packet even
 * after arithmetic, so that a load through it is out of bounds and never reads another header.
 *
 * X(name, C type, values per packet, writable by stages, who provides it, meaning)
 */
#define XP_COLUMNS(X)                                                                              \
	X(addr, uint64_t, 1, 0, "receive", "offset of the packet's first byte in the UMEM")        \
	X(time_ns, uint64_t, 1, 0, "receive",                                                      \
	  "arrival: CLOCK_REALTIME when the batch was received, or the capture's time; ns")        \
	X(len, int32_t, 1, 0, "receive", "bytes of the packet that are there")                     \
	X(head_len, int32_t, 1, 0, "receive",                                                      \
	  "of these, bytes in its first frame: all, unless it came in several (jumbo packets)")     \
	X(n_frames, uint8_t, 1, 0, "receive", "frames that it came in")                            \
	X(more, uint32_t, 1, 0, "receive", "place of its second frame in the batch's list")        \
	X(verdict, uint8_t, 1, 1, "receive", "0 undecided, 1 DROP, 2 TX, 3 PASS, 4 FORWARD")       \
	X(out_port, uint8_t, 1, 0, "receive",                                                      \
	  "number of the port that FORWARD sends out of; as received: the next one's")             \
	X(checksum_due, uint8_t, 1, 0, "receive",                                                  \
	  "1: the checksum of TCP or UDP is filled in as the packet leaves (Batch.fill_checksum)")  \
	X(tx_time_due, uint8_t, 1, 0, "receive",                                                   \
	  "1: when the packet has left is told later (Batch.want_tx_time)")                        \
	X(tx_tag, uint64_t, 1, 0, "receive", "the number that it is told by then")                 \
	X(nic_told, uint8_t, 1, 0, "NIC",                                                          \
	  "bits: which of the next three the NIC told: 1 hash, 2 time, 4 VLAN tag")                \
	X(nic_hash, uint32_t, 1, 0, "NIC", "its hash of the flow (RSS), else 0")                   \
	X(nic_time_ns, uint64_t, 1, 0, "NIC", "its time of arrival, by its own clock; ns; else 0") \
	X(nic_vlan_tci, uint16_t, 1, 0, "NIC",                                                     \
	  "tag control of a VLAN tag that it took out of the packet, else 0")                      \
	X(flags, uint32_t, 1, 0, "Headers", "FLAG_* bits: which headers are there, fragments")     \
	X(malformed, uint8_t, 1, 0, "Headers",                                                     \
	  "0, or MALFORMED_*: the first length or field that cannot be; headers are looked for in "  \
	  "the first frame alone")                                                                 \
	X(l3, int32_t, 1, 0, "Headers", "offset of the IP header")                                 \
	X(l4, int32_t, 1, 0, "Headers",                                                            \
	  "offset of the header behind IP and its extensions; absent in a later fragment")         \
	X(payload, int32_t, 1, 0, "Headers",                                                       \
	  "offset of the first byte behind TCP, UDP, ICMP or ICMPv6 (else behind IP)")             \
	X(payload_len, int32_t, 1, 0, "Headers",                                                   \
	  "bytes of payload by the packet's own length fields, Ethernet padding excluded")         \
	X(eth_type, uint16_t, 1, 0, "Headers", "EtherType behind the VLAN tags; <1536: 802.3")     \
	X(n_vlans, uint8_t, 1, 0, "Headers", "VLAN tags: 0 to 2")                                  \
	X(vlan_tci, uint16_t, 2, 0, "Headers", "tag control of the outer and the inner VLAN tag")  \
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
	X(flow_hash, uint32_t, 1, 0, "Headers",                                                    \
	  "same for both directions of a flow; all fragments of a datagram share one")

/*
 * For each port of a worker, uint64_t each, written by the worker only (plain aligned stores) and
 * read by the supervisor. X(name, meaning)
 */
#define XP_COUNTERS(X)                                                                             \
	X(received, "packets taken from the rx ring")                                              \
	X(received_bytes, "their bytes")                                                           \
	X(batches, "batches that held a packet")                                                   \
	X(verdict_drop, "packets whose verdict was DROP")                                          \
	X(verdict_tx, "packets whose verdict was TX")                                              \
	X(verdict_pass, "packets whose verdict was PASS")                                          \
	X(verdict_forward, "packets whose verdict was FORWARD")                                    \
	X(verdict_invalid, "packets with a verdict that there is not; dropped")                    \
	X(verdict_lost, "packets in the hands of a worker when it died")                           \
	X(forwarded, "packets that came by other ports, to go out of this one")                    \
	X(tx_submitted, "packets put on the tx ring")                                              \
	X(tx_completed, "packets come back by the completion ring")                                \
	X(tx_dropped, "completed but not sent: the kernel said EBUSY")                             \
	X(tx_no_room, "packets that the tx ring had no room for")                                  \
	X(tx_abandoned, "still not completed when the worker stopped")                             \
	X(tx_errors, "send calls that failed otherwise, by the last errno")                        \
	X(tx_errno, "that errno")                                                                  \
	X(tx_times_lost, "times of sending that no stage saw: too many between two batches")      \
	X(passed, "packets given back to the kernel")                                              \
	X(pass_too_long, "PASS packets longer than the kernel's frames, some 3400 bytes")             \
	X(pass_failed, "PASS packets that the kernel did not take, by the last errno")             \
	X(pass_errno, "that errno; 0: there is no way back, in generic mode for one")              \
	X(received_more, "further frames of received packets that came in several")                \
	X(tx_submitted_more, "further frames of packets put on the tx ring")                       \
	X(tx_completed_more, "further frames of packets come back")                                \
	X(next_received, "what counters will be when the rings have moved: for the case that")      \
	X(next_received_more, "the worker dies between ring and counter; with packets that")       \
	X(next_tx_submitted, "come in several frames the rings do not tell")                       \
	X(next_tx_submitted_more, "likewise")                                                      \
	X(next_tx_completed, "likewise")                                                           \
	X(next_tx_completed_more, "likewise")                                                      \
	X(batch_port, "of the first port: number of the port that the batch came by")             \
	X(filled, "frames put on the fill ring")                                                   \
	X(wakeups, "calls that wake the driver: send, receive")                                    \
	X(busy_polls, "calls that ran the driver's receive work, busy polling")                    \
	X(polls, "of the first port: poll calls")                                                  \
	X(busy_ns, "of the first port: time in cycles that moved packets; ns")                     \
	X(frames_free, "of the first port: frames on the free list")                               \
	X(frames_batch, "of the first port: frames in the batch")                                  \
	X(frames_fill, "frames on the fill ring")                                                  \
	X(frames_rx, "frames on the rx ring")                                                      \
	X(frames_tx, "frames on the tx ring")                                                      \
	X(frames_completion, "frames on the completion ring")                                      \
	X(frames_kernel, "frames in the kernel's hands, on no ring")

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
	X(MALFORMED, 0x400, "see the column malformed")

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
	X(ICMP6_SHORT, "ends within the first 8 bytes of the ICMPv6 message")

#endif
