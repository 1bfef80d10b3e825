/* SPDX-License-Identifier: Apache-2.0 */
/* A DNS message that lies in a row, wherever it came from: what the stage Dns tells of it. */
#ifndef XP_STAGE_DNS_MESSAGE_H
#define XP_STAGE_DNS_MESSAGE_H

#include "xp_batch.h"

#define XP_DNS_RECORDS 512   /* questions and records that are looked at in a message */
#define XP_DNS_TEXT_ROOM 1024 /* a name of 255 bytes, each escaped, has 1003; and room to spill */

/* cdef begin */
struct xp_dns_message {
	uint64_t name_hash;
	uint32_t name_at; /* where in the room that was given the name begins */
	uint32_t name_len;
	uint16_t found; /* enum xp_dns_found */
	uint16_t id, flags;
	uint16_t n_questions, n_answers, n_authority, n_additional;
	uint16_t type, class_;
	uint16_t rcode;
	uint16_t udp_size, edns_flags;
	uint8_t edns_version;
	uint8_t n_labels;
	uint8_t malformed; /* enum xp_dns_malformed */
};

void xp_dns_parse(const uint8_t *message, uint32_t n, uint32_t length, uint8_t *room,
		  struct xp_dns_message *result);
uint64_t xp_dns_name_hash(const uint8_t *name, uint32_t n);
/* cdef end */

#endif
