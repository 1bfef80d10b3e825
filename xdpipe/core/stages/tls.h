/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_TLS_H
#define XP_STAGE_TLS_H

#include "xp_batch.h"

/* cdef begin */
/* SHA-256 by OpenSSL's libcrypto: SHA256_Init, SHA256_Update and SHA256_Final. */
struct xp_sha256 {
	int (*init)(void *context);
	int (*update)(void *context, const void *data, size_t size);
	int (*final)(unsigned char *digest, void *context);
};

struct xp_ja4; /* the fingerprints that were made last */
struct xp_tls;
struct xp_tls_state {
	uint64_t *counters;
	struct xp_tls *tls;
};
uint64_t xp_tls_bytes(uint32_t n_connections, uint32_t n_buffers);
struct xp_tls *xp_tls_init(void *arena, uint32_t n_connections, uint32_t n_buffers,
			   struct xp_sha256 sha256, uint64_t secret);
int xp_stage_tls(struct xp_batch *batch, void *state);
/* cdef end */

#endif
