/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage TcpStreams. */
#ifndef XP_COLUMNS_TCP_STREAMS_H
#define XP_COLUMNS_TCP_STREAMS_H

#define XP_TCP_STREAMS_COLUMNS(X)                                                                  \
	X(tcp_stream, uint32_t, 1, 0, "TcpStreams",                                                \
	  "place of its connection in the table, from 1 on; 0: none")                              \
	X(tcp_stream_id, uint32_t, 1, 0, "TcpStreams",                                             \
	  "number of the connection: another one in the same place has another")                   \
	X(tcp_stream_dir, uint8_t, 1, 0, "TcpStreams",                                             \
	  "0: from the end that opened the connection, 1: from the other")                         \
	X(tcp_stream_told, uint8_t, 1, 0, "TcpStreams", "bits: what the packet did to its stream") \
	X(tcp_data, int32_t, 1, 0, "TcpStreams",                                                   \
	  "offset of the first byte that comes next in the stream; absent: the packet has none")   \
	X(tcp_data_len, int32_t, 1, 0, "TcpStreams", "bytes there that come next in the stream")   \
	X(tcp_pieces, uint32_t, 1, 0, "TcpStreams",                                                \
	  "place of the first piece of the stream in the batch's list of pieces")                  \
	X(tcp_n_pieces, uint16_t, 1, 0, "TcpStreams",                                              \
	  "pieces of the stream that are there with this packet: its own bytes, and what had "     \
	  "come too early")

/* X(name, bit, meaning) */
#define XP_TCP_STREAM_TOLD(X)                                                                      \
	X(BEGINS, 0x01, "the first packet of its direction that has bytes or a SYN")               \
	X(MIDDLE, 0x02, "its direction was under way when its first packet came")                  \
	X(AGAIN, 0x04, "bytes that had come before, or that are older than all known")             \
	X(EARLY, 0x08, "bytes that do not come next yet: kept until they do")                      \
	X(LOST, 0x10, "bytes before its pieces were given up: they never came")                    \
	X(ENDS, 0x20, "the last byte of its direction has come")                                   \
	X(RESET, 0x40, "the connection is over by RST")                                            \
	X(OUTSIDE, 0x80, "sequence number far from all that is expected: not of the stream")

enum xp_tcp_stream_told {
#define X(name, bit, doc) XP_TCP_##name = bit,
	XP_TCP_STREAM_TOLD(X)
#undef X
};

#endif
