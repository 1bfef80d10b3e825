/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages in TCP streams: where each ends, and the bytes of those that come in several pieces.
 * All memory is the caller's. Directions count from 0.
 */
#ifndef XP_STAGE_DNS_STREAM_H
#define XP_STAGE_DNS_STREAM_H

#include "xp_batch.h"

#define XP_DNS_BUFFER 65536 /* bytes of a buffer; a message has 65535 at the most */

/* In this order in Dns.counters in xdpipe/stages/dns.py. */
enum { DNS_TCP_NO_BUFFER, DNS_TCP_LOST, DNS_TCP_CUT, DNS_TCP_OUT_OF_STEP, N_DNS_TCP };

/* cdef begin */
enum xp_dns_step {
	XP_DNS_BETWEEN,     /* the next byte is the first of a message's length */
	XP_DNS_IN_LENGTH,   /* the next byte is the second of it */
	XP_DNS_IN_MESSAGE,  /* what there is of the message is kept */
	XP_DNS_SKIPPING,    /* the message is passed over */
	XP_DNS_OUT_OF_STEP  /* nobody knows where a message begins */
};

/* One direction of a connection. */
struct xp_dns_direction {
	uint32_t id;     /* of the connection; 0: none so far */
	uint32_t buffer; /* that has the message's beginning; 0: none */
	uint16_t length; /* of the message */
	uint16_t have;   /* bytes of it that have come */
	uint8_t step;    /* enum xp_dns_step */
	uint8_t high;    /* first byte of the length */
};

struct xp_buffers;
struct xp_dns_streams {
	uint64_t *counters;
	struct xp_dns_direction *directions;
	uint32_t n_directions;
	struct xp_buffers *pool;
};

/* A message whose last byte has come; p is NULL where none has. */
struct xp_dns_whole {
	const uint8_t *p;
	uint32_t n;
};

uint64_t xp_dns_pool_bytes(uint32_t n_buffers);
struct xp_buffers *xp_dns_pool_init(void *memory, uint32_t n_buffers);
uint32_t xp_dns_n_held(const struct xp_dns_streams *s);
void xp_dns_begin(struct xp_dns_streams *s, uint32_t direction, uint32_t id, int middle);
uint32_t xp_dns_feed(struct xp_dns_streams *s, uint32_t direction, const uint8_t *p, uint32_t n,
		     struct xp_dns_whole *whole);
void xp_dns_lose(struct xp_dns_streams *s, uint32_t direction, uint32_t n);
void xp_dns_end(struct xp_dns_streams *s, uint32_t direction);
/* cdef end */

#endif
