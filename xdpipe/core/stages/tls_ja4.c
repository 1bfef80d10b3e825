/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JA4, the fingerprint of a TLS client (FoxIO, JA4 technical details): t13d1516h2_8daaf6152771_e5627efa2ab1
 *
 *   a  t for TCP; version; d with server_name, else i; number of cipher suites and of extensions, two
 *      digits each, 99 at the most; first and last character of the first ALPN protocol, 00 without
 *   b  of the cipher suites, sorted, as four hex digits with commas between: SHA-256, 12 hex digits
 *   c  likewise of the extensions, sorted, without server_name and ALPN, then _ and the signature
 *      algorithms in their order
 *
 * GREASE values (RFC 8701) are left out throughout. Clients come in few kinds, so b and c are kept by a
 * hash of what they are made of, with a secret: hashing anew is for those that are seen first.
 */
#include "stages/tls_ja4.h"

#define LIST_MAX 512 /* cipher suites or signature algorithms; more give no fingerprint */

static const char digits[] = "0123456789abcdef";

/* Copy the values that are no GREASE; returns how many. */
static uint32_t values(struct xp_bytes list, uint16_t *out)
{
	uint32_t n = 0;

	for (uint32_t at = 0; at + 2 <= list.n; at += 2) {
		uint16_t value = xp_get16(list.p + at);

		if (!xp_is_grease(value))
			out[n++] = value;
	}
	return n;
}

/* Shell's sort with gaps of Ciura's: a list of a hostile sender's costs little more than another. */
static void sort(uint16_t *v, uint32_t n)
{
	static const uint16_t gaps[] = {301, 132, 57, 23, 10, 4, 1};

	for (uint32_t g = 0; g < sizeof(gaps) / sizeof(*gaps); g++) {
		for (uint32_t i = gaps[g]; i < n; i++) {
			uint16_t value = v[i];
			uint32_t k = i;

			for (; k >= gaps[g] && v[k - gaps[g]] > value; k -= gaps[g])
				v[k] = v[k - gaps[g]];
			v[k] = value;
		}
	}
}

static uint8_t *put_list(uint8_t *at, const uint16_t *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			*at++ = ',';
		for (int shift = 12; shift >= 0; shift -= 4)
			*at++ = (uint8_t)digits[v[i] >> shift & 15];
	}
	return at;
}

/* Twelve hex digits of the SHA-256 of a text, or zeros of none. */
static void put_digest(const struct xp_ja4 *ja4, const uint8_t *text, uint32_t n, uint8_t out[12])
{
	_Alignas(16) uint8_t context[256]; /* SHA256_CTX has 112 bytes */
	uint8_t digest[32] = {0};

	if (n) {
		ja4->sha256.init(context);
		ja4->sha256.update(context, text, n);
		ja4->sha256.final(digest, context);
	}
	for (int i = 0; i < 6; i++) {
		out[2 * i] = (uint8_t)digits[digest[i] >> 4];
		out[2 * i + 1] = (uint8_t)digits[digest[i] & 15];
	}
}

struct lists {
	uint16_t ciphers[LIST_MAX], extensions[XP_TLS_EXTENSIONS_MAX], signatures[LIST_MAX];
	uint32_t n_ciphers, n_extensions, n_signatures;
};

/* b and c, which lie one behind the other. */
static void put_digests(const struct xp_ja4 *ja4, struct lists *l, uint8_t out[24])
{
	uint8_t text[5 * (XP_TLS_EXTENSIONS_MAX + LIST_MAX) + 1], *at;
	uint32_t n = 0;

	sort(l->ciphers, l->n_ciphers);
	at = put_list(text, l->ciphers, l->n_ciphers);
	put_digest(ja4, text, (uint32_t)(at - text), out);
	for (uint32_t i = 0; i < l->n_extensions; i++)
		if (l->extensions[i] != 0 && l->extensions[i] != 16)
			l->extensions[n++] = l->extensions[i];
	sort(l->extensions, n);
	at = put_list(text, l->extensions, n);
	if (l->n_signatures) {
		*at++ = '_';
		at = put_list(at, l->signatures, l->n_signatures);
	}
	put_digest(ja4, text, n ? (uint32_t)(at - text) : 0, out + 12);
}

static uint64_t hash(uint64_t h, const uint16_t *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		__uint128_t m = (__uint128_t)(h ^ v[i]) * 0x9e3779b97f4a7c15u;

		h = (uint64_t)m ^ (uint64_t)(m >> 64);
	}
	return h ^ n;
}

static void put_version(uint16_t version, uint8_t out[2])
{
	static const char known[][3] = {"s3", "10", "11", "12", "13"};
	const char *text = "00";

	if (version >= 0x0300 && version <= 0x0304)
		text = known[version - 0x0300];
	else if (version == 0x0002)
		text = "s2";
	memcpy(out, text, 2);
}

static int is_alphanumeric(uint8_t c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* First and last character; of what is not alphanumeric the first and last hex digit. */
static void put_alpn(struct xp_bytes alpn, uint8_t out[2])
{
	uint8_t first, last;

	memcpy(out, "00", 2);
	if (alpn.n < 2)
		return;
	first = alpn.p[1];
	last = alpn.p[alpn.p[0]];
	if (is_alphanumeric(first) && is_alphanumeric(last)) {
		out[0] = first;
		out[1] = last;
	} else {
		out[0] = (uint8_t)digits[first >> 4];
		out[1] = (uint8_t)digits[last & 15];
	}
}

static void put_number(uint32_t n, uint8_t out[2])
{
	if (n > 99)
		n = 99;
	out[0] = (uint8_t)('0' + n / 10);
	out[1] = (uint8_t)('0' + n % 10);
}

/* Write the fingerprint of a ClientHello; returns 0 where there is none, since a list is too long. */
int xp_tls_ja4(struct xp_ja4 *ja4, const struct hello *h, uint8_t out[XP_JA4_SIZE])
{
	struct lists l;
	struct xp_ja4_known *known;
	uint64_t key;

	if (h->ciphers.n > 2 * LIST_MAX || h->signatures.n > 2 * LIST_MAX)
		return 0;
	l.n_ciphers = values(h->ciphers, l.ciphers);
	l.n_signatures = values(h->signatures, l.signatures);
	l.n_extensions = 0;
	for (uint32_t i = 0; i < h->n_extensions; i++)
		if (!xp_is_grease(h->extensions[i]))
			l.extensions[l.n_extensions++] = h->extensions[i];
	out[0] = 't';
	put_version(h->version, out + 1);
	out[3] = h->has_sni ? 'd' : 'i';
	put_number(l.n_ciphers, out + 4);
	put_number(l.n_extensions, out + 6);
	put_alpn(h->alpn, out + 8);
	out[10] = out[23] = '_';
	key = hash(ja4->secret, l.ciphers, l.n_ciphers);
	key = hash(key, l.extensions, l.n_extensions);
	key = hash(key, l.signatures, l.n_signatures) | 1; /* 0: the place is free */
	known = &ja4->known[key >> 1 & (XP_JA4_KNOWN - 1)];
	if (known->key != key) {
		put_digests(ja4, &l, known->text);
		known->key = key;
	}
	memcpy(out + 11, known->text, 12);
	memcpy(out + 24, known->text + 12, 12);
	return 1;
}
