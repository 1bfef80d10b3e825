/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage Tls. */
#ifndef XP_COLUMNS_TLS_H
#define XP_COLUMNS_TLS_H

#define XP_TLS_COLUMNS(X)                                                                          \
	X(tls_record_type, uint8_t, 1, 0, "Tls",                                                   \
	  "content type of the first record that begins in the packet: 20 ChangeCipherSpec, "      \
	  "21 Alert, 22 Handshake, 23 ApplicationData, 24 Heartbeat; 0: none begins")              \
	X(tls_record_version, uint16_t, 1, 0, "Tls", "that record's version, 0x0301 to 0x0304")    \
	X(tls_record_len, uint16_t, 1, 0, "Tls", "that record's length, without its header; bytes") \
	X(tls_n_records, uint16_t, 1, 0, "Tls", "records that begin in the packet")                \
	X(tls_alert, uint16_t, 1, 0, "Tls",                                                        \
	  "level << 8 | description of an alert in the clear that ends in the packet, else 0")     \
	X(tls_hello, uint8_t, 1, 0, "Tls",                                                         \
	  "the hello that ends in the packet; the columns below are about it. 0: none")            \
	X(tls_malformed, uint8_t, 1, 0, "Tls", "what contradicts itself first, in a record or hello") \
	X(tls_version, uint16_t, 1, 0, "Tls",                                                      \
	  "client: highest version offered; server: the one chosen; 0x0304 is TLS 1.3")            \
	X(tls_legacy_version, uint16_t, 1, 0, "Tls", "version field of the hello itself")          \
	X(tls_cipher, uint16_t, 1, 0, "Tls", "cipher suite that the server chose; client: 0")      \
	X(tls_sni, xp_text_t, 1, 0, "Tls", "server name that the client asks for, in lower case")  \
	X(tls_alpn, xp_text_t, 1, 0, "Tls",                                                        \
	  "ALPN protocols that the client offers, with commas between; that the server chose")     \
	X(tls_ciphers, xp_text_t, 1, 0, "Tls",                                                     \
	  "cipher suites that the client offers: uint16, big-endian (Batch.numbers)")              \
	X(tls_extensions, xp_text_t, 1, 0, "Tls",                                                  \
	  "types of the hello's extensions, in their order: uint16, big-endian (Batch.numbers)")   \
	X(tls_ja4, xp_text_t, 1, 0, "Tls", "JA4 fingerprint of the client")

/* X(name, meaning) */
#define XP_TLS_HELLO(X)                                                                            \
	X(CLIENT, "ClientHello")                                                                   \
	X(SERVER, "ServerHello")                                                                   \
	X(RETRY, "HelloRetryRequest: the client is to send another ClientHello")

/* X(name, meaning) */
#define XP_TLS_MALFORMED(X)                                                                        \
	X(RECORD_TYPE, "a record of no known type behind one that was")                            \
	X(RECORD_VERSION, "a record's version is not 3.x")                                         \
	X(RECORD_LEN, "a record is longer than 2**14 + 2048 bytes, or a Handshake one is empty")   \
	X(HELLO_LONG, "a hello is longer than there is room for")                                  \
	X(HELLO_SHORT, "a hello ends within its fixed fields")                                     \
	X(SESSION_ID, "the session id is longer than 32 bytes, or than the hello")                 \
	X(CIPHERS, "the cipher suites are an odd number of bytes, none, or more than the hello")   \
	X(COMPRESSION, "the compression methods are none, or more than the hello")                 \
	X(EXTENSIONS, "the extensions' length is not what is left of the hello")                   \
	X(EXTENSION, "an extension is longer than what is left, or there are more than 256")       \
	X(SNI, "server_name contradicts itself, or is longer than 255 bytes")                      \
	X(ALPN, "application_layer_protocol_negotiation contradicts itself")                       \
	X(VERSIONS, "supported_versions contradicts itself")                                       \
	X(SIGNATURES, "signature_algorithms contradicts itself")

enum xp_tls_hello {
	XP_TLS_HELLO_NONE,
#define X(name, doc) XP_TLS_HELLO_##name,
	XP_TLS_HELLO(X)
#undef X
};

enum xp_tls_malformed {
	XP_TLS_MALFORMED_NONE,
#define X(name, doc) XP_TLS_MALFORMED_##name,
	XP_TLS_MALFORMED(X)
#undef X
		XP_TLS_N_MALFORMED
};

#endif
