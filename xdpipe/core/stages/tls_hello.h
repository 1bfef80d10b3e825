/* SPDX-License-Identifier: Apache-2.0 */
/* What Tls reads of a ClientHello or ServerHello, and the fingerprint that it makes of it. */
#ifndef XP_TLS_HELLO_H
#define XP_TLS_HELLO_H

#include "stages/tls.h"

#define XP_TLS_EXTENSIONS_MAX 256
#define XP_JA4_SIZE 36

struct xp_bytes {
	const uint8_t *p;
	uint32_t n;
};

/* Lies in the message: nothing is copied. */
struct hello {
	uint8_t kind;      /* enum xp_tls_hello */
	uint8_t malformed; /* enum xp_tls_malformed; what stands before the fault is there */
	uint8_t has_sni;
	uint16_t legacy_version, version, cipher;
	uint16_t n_extensions;
	uint16_t extensions[XP_TLS_EXTENSIONS_MAX];
	struct xp_bytes ciphers; /* uint16, big-endian */
	struct xp_bytes sni;
	struct xp_bytes alpn;    /* each a length byte and so many bytes */
	struct xp_bytes signatures; /* uint16, big-endian */
};

void xp_tls_parse_hello(uint8_t type, const uint8_t *p, uint32_t n, struct hello *h);
int xp_tls_ja4(struct xp_ja4 *ja4, const struct hello *h, uint8_t out[XP_JA4_SIZE]);

static inline int xp_is_grease(uint16_t value)
{
	return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff);
}

#endif
