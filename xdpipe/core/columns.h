/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of what xdpipe keeps per packet, and of the names that values have. Each stage has
 * its part in columns/. C makes struct fields of it, Python reads it at run time (xp_columns[],
 * xp_enums[]), the documentation is generated from it.
 */
#ifndef XP_COLUMNS_H
#define XP_COLUMNS_H

#include <stdint.h>

#include "columns/decap.h"
#include "columns/dns.h"
#include "columns/headers.h"
#include "columns/http1.h"
#include "columns/http2.h"
#include "columns/receive.h"
#include "columns/tcp_streams.h"
#include "columns/tls.h"

/*
 * Offsets (xp_offset_t) and lengths are int32_t, so that sums and differences in numpy neither wrap
 * nor change type; a header that is not there has the offset XP_ABSENT, which lies beyond every
 * packet even after arithmetic, so that a load through it is out of bounds and never reads another
 * header.
 *
 * X(name, C type, values per packet, writable by stages, who provides it, meaning)
 */
#define XP_COLUMNS(X)                                                                              \
	XP_RECEIVE_COLUMNS(X)                                                                      \
	XP_HEADERS_COLUMNS(X)                                                                      \
	XP_DECAP_COLUMNS(X)                                                                        \
	XP_TCP_STREAMS_COLUMNS(X)                                                                  \
	XP_DNS_COLUMNS(X)                                                                          \
	XP_TLS_COLUMNS(X)                                                                          \
	XP_HTTP1_COLUMNS(X)                                                                        \
	XP_HTTP2_COLUMNS(X)

/*
 * Columns whose values have names: E(column, list) for bits, X(name, bit, meaning), and for
 * enumerations, X(name, meaning) with the values 1, 2, ... in the order of the list; 0 is none.
 */
#define XP_BITS(E)                                                                                 \
	E(flags, XP_FLAGS)                                                                         \
	E(tcp_stream_told, XP_TCP_STREAM_TOLD)                                                     \
	E(dns_found, XP_DNS_FOUND)                                                                 \
	E(dns_flags, XP_DNS_FLAGS)                                                                 \
	E(dns_edns_flags, XP_DNS_EDNS_FLAGS)
#define XP_ENUMERATIONS(E)                                                                         \
	E(malformed, XP_MALFORMED)                                                                 \
	E(dns_malformed, XP_DNS_MALFORMED)                                                         \
	E(tls_hello, XP_TLS_HELLO)                                                                 \
	E(tls_malformed, XP_TLS_MALFORMED)                                                         \
	E(http_kind, XP_HTTP1_KIND)                                                                \
	E(http_malformed, XP_HTTP1_MALFORMED)                                                      \
	E(tunnels, XP_TUNNELS)                                                                     \
	E(decap_malformed, XP_DECAP_MALFORMED)                                                     \
	E(http2_kind, XP_HTTP2_KIND)                                                               \
	E(http2_flood, XP_HTTP2_FLOOD)                                                             \
	E(http2_malformed, XP_HTTP2_MALFORMED)

#endif
