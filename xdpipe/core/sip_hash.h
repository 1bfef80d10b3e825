/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SipHash-1-3: a hash with a secret of 128 bits. Who does not know the secret cannot tell what a hash will
 * be, nor find two inputs with the same one. Aumasson and Bernstein, "SipHash: a fast short-input PRF",
 * 2012, with one round a word and three at the end, as the kernel's hash tables have it
 * (Documentation/security/siphash.rst).
 */
#ifndef XP_SIP_HASH_H
#define XP_SIP_HASH_H

#include <stdint.h>
#include <string.h>

struct xp_sip {
	uint64_t a, b, c, d;
};

static inline uint64_t xp_rotated(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline struct xp_sip xp_sip_round(struct xp_sip v)
{
	v.a += v.b;
	v.b = xp_rotated(v.b, 13) ^ v.a;
	v.a = xp_rotated(v.a, 32);
	v.c += v.d;
	v.d = xp_rotated(v.d, 16) ^ v.c;
	v.a += v.d;
	v.d = xp_rotated(v.d, 21) ^ v.a;
	v.c += v.b;
	v.b = xp_rotated(v.b, 17) ^ v.c;
	v.c = xp_rotated(v.c, 32);
	return v;
}

static inline struct xp_sip xp_sip_begin(const uint64_t secret[2])
{
	return (struct xp_sip){secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du,
			       secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u};
}

static inline struct xp_sip xp_sip_add(struct xp_sip v, uint64_t word)
{
	v.d ^= word;
	v = xp_sip_round(v);
	v.a ^= word;
	return v;
}

static inline uint64_t xp_sip_end(struct xp_sip v)
{
	v.c ^= 0xff;
	v = xp_sip_round(xp_sip_round(xp_sip_round(v)));
	return v.a ^ v.b ^ v.c ^ v.d;
}

/*
 * Of so many words. The last block, of what is left below 8 bytes and the length, is left out: for
 * where all that is hashed with one secret has one length.
 */
static inline uint64_t xp_sip_hash(const uint64_t secret[2], const uint64_t *words, uint32_t n)
{
	struct xp_sip v = xp_sip_begin(secret);

	for (uint32_t i = 0; i < n; i++)
		v = xp_sip_add(v, words[i]);
	return xp_sip_end(v);
}

/* Of n bytes, as it is written, on a machine whose low bytes come first. */
static inline uint64_t xp_sip_hash_bytes(const uint64_t secret[2], const uint8_t *p, uint32_t n)
{
	struct xp_sip v = xp_sip_begin(secret);
	uint64_t word, last = (uint64_t)n << 56;
	uint32_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		memcpy(&word, p + i, 8);
		v = xp_sip_add(v, word);
	}
	for (uint32_t k = 0; i + k < n; k++)
		last |= (uint64_t)p[i + k] << 8 * k;
	return xp_sip_end(xp_sip_add(v, last));
}

#endif
