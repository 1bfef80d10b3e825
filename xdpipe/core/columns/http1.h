/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage Http1. */
#ifndef XP_COLUMNS_HTTP1_H
#define XP_COLUMNS_HTTP1_H

#define XP_HTTP1_COLUMNS(X)                                                                        \
	X(http_kind, uint8_t, 1, 0, "Http1",                                                       \
	  "the first message whose header section ends in the packet; the columns below are "      \
	  "about it. 0: none")                                                                     \
	X(http_n_messages, uint16_t, 1, 0, "Http1", "messages whose header section ends in it")    \
	X(http_malformed, uint8_t, 1, 0, "Http1", "what contradicts itself first in the packet")   \
	X(http_version, uint8_t, 1, 0, "Http1", "10 or 11, for HTTP/1.0 and HTTP/1.1")             \
	X(http_status, uint16_t, 1, 0, "Http1", "status of a response, 100 to 999; request: 0")    \
	X(http_content_length, int64_t, 1, 0, "Http1", "value of Content-Length; -1: there is none") \
	X(http_method, xp_text_t, 1, 0, "Http1", "method of a request")                            \
	X(http_target, xp_text_t, 1, 0, "Http1", "target of a request, as sent; up to 2048 bytes of it") \
	X(http_host, xp_text_t, 1, 0, "Http1", "value of Host, in lower case, with a port if it has one")

/* X(name, meaning) */
#define XP_HTTP1_KIND(X)                                                                           \
	X(REQUEST, "a request")                                                                    \
	X(RESPONSE, "a response")

/* X(name, meaning) */
#define XP_HTTP1_MALFORMED(X)                                                                      \
	X(START_LINE, "a request or status line that is none, behind a message that was one")      \
	X(SECTION_LONG, "a header section longer than 16384 bytes")                                \
	X(FIELD, "a field line without a name, or with space before the colon (RFC 9112, 5.1)")    \
	X(FOLDED, "a field line that goes on in the next one (RFC 9112, 5.2)")                     \
	X(CONTENT_LENGTH, "Content-Length that is no number, or several that differ")              \
	X(TWO_LENGTHS, "Content-Length and Transfer-Encoding in one message (RFC 9112, 6.3)")      \
	X(TRANSFER_CODING, "Transfer-Encoding of a request whose last coding is not chunked")      \
	X(HOST, "a request of HTTP/1.1 without Host, or one with several (RFC 9112, 3.2)")         \
	X(CHUNK, "a chunk's size that is no hexadecimal number, or no line end behind a chunk")

enum xp_http1_kind {
	XP_HTTP1_KIND_NONE,
#define X(name, doc) XP_HTTP1_KIND_##name,
	XP_HTTP1_KIND(X)
#undef X
};

enum xp_http1_malformed {
	XP_HTTP1_MALFORMED_NONE,
#define X(name, doc) XP_HTTP1_MALFORMED_##name,
	XP_HTTP1_MALFORMED(X)
#undef X
		XP_HTTP1_N_MALFORMED
};

#endif
