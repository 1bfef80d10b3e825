/* SPDX-License-Identifier: Apache-2.0 */
/* Columns that are filled as packets are received. */
#ifndef XP_COLUMNS_RECEIVE_H
#define XP_COLUMNS_RECEIVE_H

#define XP_RECEIVE_COLUMNS(X)                                                                      \
	X(addr, uint64_t, 1, 0, "receive", "offset of the packet's first byte in the UMEM")        \
	X(time_ns, uint64_t, 1, 0, "receive",                                                      \
	  "arrival: CLOCK_REALTIME when the batch was received, or the capture's time; ns")        \
	X(len, int32_t, 1, 0, "receive", "bytes of the packet that are there")                     \
	X(head_len, int32_t, 1, 0, "receive",                                                      \
	  "of these, bytes in its first frame: all, unless it came in several (jumbo packets)")    \
	X(n_frames, uint8_t, 1, 0, "receive", "frames that it came in")                            \
	X(more, uint32_t, 1, 0, "receive", "place of its second frame in the batch's list")        \
	X(headroom, uint16_t, 1, 0, "receive",                                                     \
	  "bytes before the packet that are free for headers which stages put before it")          \
	X(verdict, uint8_t, 1, 1, "receive", "0 undecided, 1 DROP, 2 TX, 3 PASS, 4 FORWARD")       \
	X(mark, uint32_t, 1, 1, "receive",                                                         \
	  "a number that stages set and that others look for, as that of nftables; 0 at first")    \
	X(out_port, uint8_t, 1, 0, "receive",                                                      \
	  "number of the port that FORWARD sends out of; as received: the next one's")             \
	X(checksum_due, uint8_t, 1, 0, "receive",                                                  \
	  "1: the checksum of TCP or UDP is filled in as the packet leaves (Batch.fill_checksum)") \
	X(tx_time_due, uint8_t, 1, 0, "receive",                                                   \
	  "1: when the packet has left is told later (Batch.want_tx_time)")                        \
	X(tx_tag, uint64_t, 1, 0, "receive", "the number that it is told by then")                 \
	X(nic_told, uint8_t, 1, 0, "NIC",                                                          \
	  "bits: which of the next three the NIC told: 1 hash, 2 time, 4 VLAN tag")                \
	X(nic_hash, uint32_t, 1, 0, "NIC", "its hash of the flow (RSS), else 0")                   \
	X(nic_time_ns, uint64_t, 1, 0, "NIC", "its time of arrival, by its own clock; ns; else 0") \
	X(nic_vlan_tci, uint16_t, 1, 0, "NIC",                                                     \
	  "tag control of a VLAN tag that it took out of the packet, else 0")

#endif
