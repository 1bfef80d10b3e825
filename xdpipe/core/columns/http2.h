/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage Http2. */
#ifndef XP_COLUMNS_HTTP2_H
#define XP_COLUMNS_HTTP2_H

#define XP_HTTP2_COLUMNS(X)                                                                        \
	X(http2_n_frames, uint16_t, 1, 0, "Http2",                                                 \
	  "frames that are told in the packet: those whose header ends in it, or whose value does, " \
	  "where it has one")                                                                      \
	X(http2_frame_type, uint8_t, 1, 0, "Http2",                                                \
	  "type of the first of them, and the columns below are about it; 0 is DATA as well, so "  \
	  "http2_n_frames tells whether there is one")                                             \
	X(http2_frame_flags, uint8_t, 1, 0, "Http2", "its flags, as sent")                         \
	X(http2_frame_len, uint32_t, 1, 0, "Http2", "its length without its header")               \
	X(http2_stream_id, uint32_t, 1, 0, "Http2", "the stream that it is of; 0: the connection") \
	X(http2_n_opened, uint32_t, 1, 0, "Http2",                                                 \
	  "streams that the client of its connection has opened so far")                           \
	X(http2_n_reset, uint32_t, 1, 0, "Http2", "RST_STREAM frames of the client so far")        \
	X(http2_n_server_reset, uint32_t, 1, 0, "Http2", "RST_STREAM frames of the server so far") \
	X(http2_flood, uint8_t, 1, 0, "Http2",                                                     \
	  "the bound that the client has exceeded, in this packet or in one before; 0: none")      \
	X(http2_malformed, uint8_t, 1, 0, "Http2", "what contradicts itself first in the packet")  \
	X(http2_n_messages, uint16_t, 1, 0, "Http2",                                               \
	  "header sections that end in the packet and whose fields are known")                     \
	X(http2_kind, uint8_t, 1, 0, "Http2",                                                      \
	  "the first of them, and the columns below are about it. 0: none")                        \
	X(http2_status, uint16_t, 1, 0, "Http2", "status of a response, 100 to 999; else 0")       \
	X(http2_method, xp_text_t, 1, 0, "Http2", "method of a request")                           \
	X(http2_path, xp_text_t, 1, 0, "Http2", "path of a request with its query; up to 2048 bytes of it") \
	X(http2_authority, xp_text_t, 1, 0, "Http2",                                               \
	  "authority of a request in lower case, with a port if it has one")

/* X(name, meaning) */
#define XP_HTTP2_KIND(X)                                                                           \
	X(REQUEST, "a request")                                                                    \
	X(RESPONSE, "a response, of status 100 to 199 too")                                        \
	X(TRAILERS, "fields behind the contents")                                                  \
	X(PUSH, "a request that the server promises an answer to")

/* X(name, meaning) */
#define XP_HTTP2_FLOOD(X)                                                                          \
	X(RESETS, "more RST_STREAM than max_resets_per_s (rapid reset)")                           \
	X(CONTINUATION, "a header section of more frames or bytes than may be")                    \
	X(CONTROL, "more PING, SETTINGS and PRIORITY than max_control_per_s")

/* X(name, meaning) */
#define XP_HTTP2_MALFORMED(X)                                                                      \
	X(FIRST_FRAME, "the first frame is not SETTINGS (RFC 9113, 3.4)")                          \
	X(FRAME_LONG, "a frame longer than the other end said that it may be (RFC 9113, 4.2)")     \
	X(FRAME_SIZE, "a length that frames of its type cannot have (RFC 9113, 4.2 and 6)")        \
	X(STREAM_ZERO, "a frame of the connection that is to be one of a stream")                  \
	X(STREAM_NOT_ZERO, "a frame of a stream that is to be one of the connection")              \
	X(STREAM_PARITY, "a stream of a number that its opener cannot open (RFC 9113, 5.1.1)")     \
	X(STREAM_IDLE, "a frame of a stream that was not opened (RFC 9113, 5.1)")                  \
	X(CONTINUATION, "CONTINUATION behind no header section, or another frame within one")      \
	X(PADDING, "padding longer than the frame")                                                \
	X(SETTING, "a setting of a value that it cannot have (RFC 9113, 6.5.2)")                   \
	X(WINDOW_ZERO, "WINDOW_UPDATE by 0 (RFC 9113, 6.9)")                                       \
	X(PUSH, "PUSH_PROMISE of a client (RFC 9113, 8.4)")                                        \
	X(HPACK, "a header section that cannot be decoded (RFC 7541)")

enum xp_http2_kind {
	XP_HTTP2_KIND_NONE,
#define X(name, doc) XP_HTTP2_KIND_##name,
	XP_HTTP2_KIND(X)
#undef X
};

enum xp_http2_flood {
	XP_HTTP2_FLOOD_NONE,
#define X(name, doc) XP_HTTP2_FLOOD_##name,
	XP_HTTP2_FLOOD(X)
#undef X
};

enum xp_http2_malformed {
	XP_HTTP2_MALFORMED_NONE,
#define X(name, doc) XP_HTTP2_MALFORMED_##name,
	XP_HTTP2_MALFORMED(X)
#undef X
};

#endif
