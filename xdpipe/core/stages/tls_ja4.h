/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_TLS_JA4_H
#define XP_TLS_JA4_H

#include "stages/tls_hello.h"

#define XP_JA4_KNOWN 256 /* a power of two */

struct xp_ja4_known {
	uint64_t key;
	uint8_t text[24]; /* parts b and c */
};

struct xp_ja4 {
	struct xp_sha256 sha256;
	uint64_t secret;
	struct xp_ja4_known known[XP_JA4_KNOWN];
};

#endif
