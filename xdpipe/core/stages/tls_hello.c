/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ClientHello and ServerHello (RFC 8446, 4.1.2 and 4.1.3; RFC 5246, 7.4.1.2 and 7.4.1.3):
 *
 *   client  version 2, random 32, session id 1+n, cipher suites 2+2n, compression methods 1+n,
 *           [extensions 2+n]
 *   server  version 2, random 32, session id 1+n, cipher suite 2, compression method 1, [extensions 2+n]
 *   each extension: type 2, length 2, data
 *
 * Read of extensions: server_name (RFC 6066, 3), application_layer_protocol_negotiation (RFC 7301, 3.1),
 * supported_versions (RFC 8446, 4.2.1), signature_algorithms (4.2.3). Left out: all others' contents;
 * what Encrypted Client Hello hides.
 */
#include <stddef.h>

#include "stages/tls_hello.h"

enum { EXT_SERVER_NAME = 0, EXT_SIGNATURES = 13, EXT_ALPN = 16, EXT_VERSIONS = 43 };

/* RFC 8446, 4.1.3: a ServerHello with this random is a HelloRetryRequest. */
static const uint8_t retry_random[32] = {
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
};

/* Take n bytes off the front; 0: there are fewer. */
static int take(struct xp_bytes *from, uint32_t n, struct xp_bytes *out)
{
	if (from->n < n)
		return 0;
	*out = (struct xp_bytes){from->p, n};
	from->p += n;
	from->n -= n;
	return 1;
}

static int take8(struct xp_bytes *from, uint32_t *out)
{
	struct xp_bytes b;

	if (!take(from, 1, &b))
		return 0;
	*out = b.p[0];
	return 1;
}

static int take16(struct xp_bytes *from, uint32_t *out)
{
	struct xp_bytes b;

	if (!take(from, 2, &b))
		return 0;
	*out = xp_get16(b.p);
	return 1;
}

/* server_name: a list of type 1, length 2, name; host_name is type 0, and only one may be there. */
static uint8_t parse_sni(struct xp_bytes data, struct hello *h)
{
	uint32_t length, type;
	struct xp_bytes name;

	h->has_sni = 1;
	if (h->kind != XP_TLS_HELLO_CLIENT)
		return 0; /* the server's is empty */
	if (!take16(&data, &length) || length != data.n)
		return XP_TLS_MALFORMED_SNI;
	while (data.n) {
		if (!take8(&data, &type) || !take16(&data, &length) || !take(&data, length, &name))
			return XP_TLS_MALFORMED_SNI;
		if (type == 0 && !h->sni.n) {
			if (length > 255 || length == 0)
				return XP_TLS_MALFORMED_SNI;
			h->sni = name;
		}
	}
	return 0;
}

static uint8_t parse_alpn(struct xp_bytes data, struct hello *h)
{
	struct xp_bytes list, name;
	uint32_t length;

	if (!take16(&data, &length) || length != data.n || length == 0)
		return XP_TLS_MALFORMED_ALPN;
	list = data;
	while (data.n)
		if (!take8(&data, &length) || length == 0 || !take(&data, length, &name))
			return XP_TLS_MALFORMED_ALPN;
	h->alpn = list;
	return 0;
}

static uint8_t parse_versions(struct xp_bytes data, struct hello *h)
{
	uint32_t length, version, highest = 0;

	if (h->kind != XP_TLS_HELLO_CLIENT) {
		if (data.n != 2)
			return XP_TLS_MALFORMED_VERSIONS;
		h->version = xp_get16(data.p);
		return 0;
	}
	if (!take8(&data, &length) || length != data.n || length % 2 || length == 0)
		return XP_TLS_MALFORMED_VERSIONS;
	while (take16(&data, &version))
		if (!xp_is_grease((uint16_t)version) && version > highest)
			highest = version;
	if (highest)
		h->version = (uint16_t)highest;
	return 0;
}

static uint8_t parse_signatures(struct xp_bytes data, struct hello *h)
{
	uint32_t length;

	if (!take16(&data, &length) || length != data.n || length % 2)
		return XP_TLS_MALFORMED_SIGNATURES;
	h->signatures = data;
	return 0;
}

static uint8_t parse_extensions(struct xp_bytes rest, struct hello *h)
{
	uint32_t type, length;
	uint8_t fault = 0;
	struct xp_bytes data;

	if (rest.n == 0)
		return 0; /* RFC 5246, 7.4.1.2: there need be none */
	if (!take16(&rest, &length) || length != rest.n)
		return XP_TLS_MALFORMED_EXTENSIONS;
	while (rest.n && !fault) {
		if (!take16(&rest, &type) || !take16(&rest, &length) || !take(&rest, length, &data) ||
		    h->n_extensions == XP_TLS_EXTENSIONS_MAX)
			return XP_TLS_MALFORMED_EXTENSION;
		h->extensions[h->n_extensions++] = (uint16_t)type;
		switch (type) {
		case EXT_SERVER_NAME:
			fault = parse_sni(data, h);
			break;
		case EXT_ALPN:
			fault = parse_alpn(data, h);
			break;
		case EXT_VERSIONS:
			fault = parse_versions(data, h);
			break;
		case EXT_SIGNATURES:
			fault = parse_signatures(data, h);
			break;
		}
	}
	return fault;
}

static uint8_t parse_client(struct xp_bytes rest, struct hello *h)
{
	struct xp_bytes compression;
	uint32_t length;

	if (!take16(&rest, &length))
		return XP_TLS_MALFORMED_HELLO_SHORT;
	if (length == 0 || length % 2 || !take(&rest, length, &h->ciphers))
		return XP_TLS_MALFORMED_CIPHERS;
	if (!take8(&rest, &length) || length == 0 || !take(&rest, length, &compression))
		return XP_TLS_MALFORMED_COMPRESSION;
	return parse_extensions(rest, h);
}

static uint8_t parse_server(struct xp_bytes rest, struct hello *h)
{
	uint32_t cipher, compression;

	if (!take16(&rest, &cipher) || !take8(&rest, &compression))
		return XP_TLS_MALFORMED_HELLO_SHORT;
	h->cipher = (uint16_t)cipher;
	return parse_extensions(rest, h);
}

/* Read a hello of n bytes, without its 4 bytes of handshake header; type: 1 client's, 2 server's. */
void xp_tls_parse_hello(uint8_t type, const uint8_t *p, uint32_t n, struct hello *h)
{
	struct xp_bytes rest = {p, n}, random, session;
	uint32_t version, length;

	memset(h, 0, offsetof(struct hello, extensions));
	h->ciphers = h->sni = h->alpn = h->signatures = (struct xp_bytes){p, 0};
	h->kind = type == 1 ? XP_TLS_HELLO_CLIENT : XP_TLS_HELLO_SERVER;
	h->malformed = XP_TLS_MALFORMED_HELLO_SHORT;
	if (!take16(&rest, &version))
		return;
	h->legacy_version = h->version = (uint16_t)version;
	if (!take(&rest, 32, &random) || !take8(&rest, &length))
		return;
	if (type == 2 && memcmp(random.p, retry_random, 32) == 0)
		h->kind = XP_TLS_HELLO_RETRY;
	if (length > 32 || !take(&rest, length, &session))
		h->malformed = XP_TLS_MALFORMED_SESSION_ID;
	else
		h->malformed = type == 1 ? parse_client(rest, h) : parse_server(rest, h);
}
