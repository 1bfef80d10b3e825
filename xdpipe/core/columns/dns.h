/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage Dns, what it finds, and its reasons to call a message malformed. */
#ifndef XP_COLUMNS_DNS_H
#define XP_COLUMNS_DNS_H

#define XP_DNS_COLUMNS(X)                                                                          \
	X(dns_found, uint16_t, 1, 0, "Dns", "bits: what was found; 0: no DNS message")             \
	X(dns_malformed, uint8_t, 1, 0, "Dns",                                                     \
	  "0, or the first fault of the message; columns from there on say absent")                \
	X(dns_n_messages, uint16_t, 1, 0, "Dns",                                                   \
	  "messages that end in the packet, over TCP any number; the columns tell of the first")   \
	X(dns_len, int32_t, 1, 0, "Dns", "bytes of the message by UDP's length or TCP's prefix")   \
	X(dns_id, uint16_t, 1, 0, "Dns", "identifier of the message")                              \
	X(dns_flags, uint16_t, 1, 0, "Dns",                                                        \
	  "the header's second word: bits, and among them opcode and RCODE")                       \
	X(dns_opcode, uint8_t, 1, 0, "Dns", "0 QUERY, 4 NOTIFY, 5 UPDATE, ...")                    \
	X(dns_rcode, uint16_t, 1, 0, "Dns", "response code: 4 bits, 12 with EDNS (RFC 6891)")      \
	X(dns_n_questions, uint16_t, 1, 0, "Dns", "QDCOUNT, as the header says")                   \
	X(dns_n_answers, uint16_t, 1, 0, "Dns", "ANCOUNT, as the header says")                     \
	X(dns_n_authority, uint16_t, 1, 0, "Dns", "NSCOUNT, as the header says")                   \
	X(dns_n_additional, uint16_t, 1, 0, "Dns", "ARCOUNT, as the header says")                  \
	X(dns_name, xp_text_t, 1, 0, "Dns",                                                        \
	  "first question's name in lower case, no dot behind it, the root as a dot; bytes that "  \
	  "are not printable, dots and backslashes in a label as \\DDD, decimal (RFC 1035, 5.1)")  \
	X(dns_name_hash, uint64_t, 1, 0, "Dns",                                                    \
	  "the same for the same name in any case: xdpipe.stages.dns.name_hash(name)")             \
	X(dns_n_labels, uint8_t, 1, 0, "Dns", "labels of the name; 0: the root")                   \
	X(dns_type, uint16_t, 1, 0, "Dns", "first question's type: 1 A, 28 AAAA, 65 HTTPS, ...")   \
	X(dns_class, uint16_t, 1, 0, "Dns",                                                        \
	  "first question's class: 1 IN; mDNS has a bit of its own at the top (RFC 6762, 5.4)")    \
	X(dns_edns_version, uint8_t, 1, 0, "Dns", "version of EDNS, where dns_found has EDNS")     \
	X(dns_udp_size, uint16_t, 1, 0, "Dns", "UDP bytes that the sender takes, by EDNS")         \
	X(dns_edns_flags, uint16_t, 1, 0, "Dns", "flags of EDNS, DO among them")

/* X(name, value, meaning) */
#define XP_DNS_FOUND(X)                                                                            \
	X(MESSAGE, 0x1, "a message, its header whole: id, flags and counts are its own")           \
	X(RESPONSE, 0x2, "it is a response (QR); else a query")                                    \
	X(QUESTION, 0x4, "it has a question, the first one whole: name, type and class")           \
	X(EDNS, 0x8, "it has an OPT record (RFC 6891)")                                            \
	X(TRUNCATED, 0x10, "the sender says that it left something out (TC)")                      \
	X(TCP, 0x20, "it came over TCP")                                                           \
	X(PARTIAL, 0x40,                                                                           \
	  "not all of it is there: a first fragment, or more than the packet's first frame; what " \
	  "is missing is not malformed")                                                           \
	X(MALFORMED, 0x80, "see the column dns_malformed")                                         \
	X(TRAILING, 0x100, "bytes follow its last record")                                         \
	X(MANY_RECORDS, 0x200,                                                                     \
	  "more questions and records than are looked at; what follows is unseen, EDNS perhaps")

/* X(name, value, meaning), of the header's second word (RFC 1035, 4.1.1; RFC 4035, 3) */
#define XP_DNS_FLAGS(X)                                                                            \
	X(QR, 0x8000, "a response")                                                                \
	X(OPCODE, 0x7800, "four bits: see dns_opcode")                                             \
	X(AA, 0x400, "authoritative answer")                                                       \
	X(TC, 0x200, "truncated")                                                                  \
	X(RD, 0x100, "recursion desired")                                                          \
	X(RA, 0x80, "recursion available")                                                         \
	X(Z, 0x40, "reserved")                                                                     \
	X(AD, 0x20, "authentic data")                                                              \
	X(CD, 0x10, "checking disabled")                                                           \
	X(RCODE, 0xf, "four bits: see dns_rcode")

#define XP_DNS_EDNS_FLAGS(X)                                                                       \
	X(DO, 0x8000, "DNSSEC records are wanted (RFC 3225)")                                      \
	X(Z, 0x7fff, "15 bits, reserved (RFC 6891, 6.1.4)")

/* X(name, meaning); the value is the place in the list, from 1 */
#define XP_DNS_MALFORMED(X)                                                                        \
	X(HEADER_SHORT, "fewer than 12 bytes")                                                     \
	X(MISSING, "ends before a question or record that the header counts")                      \
	X(NAME_SHORT, "ends within a name")                                                        \
	X(NAME_LONG, "a name of more than 255 bytes")                                              \
	X(LABEL_TYPE, "a label of a reserved type (its length begins with the bits 01 or 10)")     \
	X(POINTER_AHEAD, "a compression pointer to something behind it")                           \
	X(POINTER_LOOP, "a compression pointer into the name that it belongs to")                  \
	X(POINTER_HEADER, "a compression pointer into the header")                                 \
	X(QUESTION_SHORT, "ends within a question's type and class")                               \
	X(RECORD_SHORT, "ends within a record's type, class, TTL and length")                      \
	X(RDATA_SHORT, "a record's length is more than is left of the message")                    \
	X(OPT_SECTION, "an OPT record among answers or authority")                                 \
	X(OPT_NAME, "an OPT record whose name is not the root")                                    \
	X(OPT_TWICE, "a second OPT record")                                                        \
	X(OPT_OPTIONS, "lengths of EDNS options and of their record contradict each other")        \
	X(MANY_QUESTIONS, "several questions in a message of opcode 0 (RFC 9619), which is no mDNS")

enum xp_dns_found {
#define X(name, value, doc) XP_DNS_FOUND_##name = value,
	XP_DNS_FOUND(X)
#undef X
};

enum xp_dns_malformed {
	XP_DNS_MALFORMED_NONE,
#define X(name, doc) XP_DNS_MALFORMED_##name,
	XP_DNS_MALFORMED(X)
#undef X
		XP_N_DNS_MALFORMED
};

#endif
