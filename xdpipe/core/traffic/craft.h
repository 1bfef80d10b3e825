/* SPDX-License-Identifier: Apache-2.0 */
/* Packets made of templates: what craft.c is told, once, by xdpipe/traffic/plan.py. */
#ifndef XP_CRAFT_H
#define XP_CRAFT_H

#include "xp_batch.h"

/* cdef begin */
/* A checksum that what was written adds to; in one's complement (RFC 1071). */
struct xp_craft_link {
	uint16_t sum;	  /* number within the template */
	uint16_t swapped; /* it begins at an odd byte of that checksum's words */
};

/* Where the value of a variation goes: the bits `mask` of the 8 bytes, big-endian, from `at` on. */
struct xp_craft_place {
	uint32_t at;
	uint32_t shift;
	uint64_t mask;
	uint32_t variation;
	uint32_t word; /* of the variation's value, which may have several */
	uint32_t link; /* the first of */
	uint32_t n_links;
};

/* A length of 16 bits that grows with the packet. */
struct xp_craft_length {
	uint32_t at;
	uint32_t was;
};

/* A checksum. Inner ones come before the outer ones that cover them. */
struct xp_craft_sum {
	uint32_t at;
	uint32_t base;	 /* the sum of all that it covers and that stays the same, in 16 bits */
	uint32_t weight; /* what each byte adds by which the packet grows: lengths that it covers */
	uint32_t link;	 /* the outer checksums that cover it */
	uint16_t n_links;
	uint16_t never_zero; /* 0xffff stands for 0 (RFC 768) */
};

struct xp_craft_template {
	const uint8_t *data;
	uint32_t len;
	uint32_t n_places;
	uint32_t n_lengths;
	uint32_t n_sums;
	const struct xp_craft_place *places;
	const struct xp_craft_length *lengths;
	const struct xp_craft_sum *sums;
	const struct xp_craft_link *links;
};

enum xp_craft_kind {
	XP_CRAFT_RANGE, /* start + step * index */
	XP_CRAFT_TABLE, /* table[index * words + word] */
	XP_CRAFT_NOISE, /* bits at random */
	XP_CRAFT_CHOICE /* of templates */
};

/* What differs from flow to flow. */
struct xp_craft_variation {
	uint32_t kind;
	uint32_t words;
	uint32_t axis;
	uint32_t key;	    /* for bits at random: one of its own */
	uint64_t n;	    /* values; 0: 2^64 */
	uint64_t divisor;   /* of the axis' number, where variations share it */
	uint64_t start;
	uint64_t step;
	const uint64_t *table;
	uint64_t index;	    /* where it is */
};

/*
 * A number that steps through [0, n) as another counts up, and begins one further after each `period`,
 * `shifts` times: so axes side by side come by all combinations before any comes again.
 */
struct xp_craft_axis {
	uint64_t n;
	uint64_t period;
	uint64_t shifts;
	uint32_t shuffled; /* in an order that looks random (permute) */
	uint32_t too_many; /* shuffled, and n stands for more than 2^62: at random, each time */
	uint64_t key;
	uint64_t at;	   /* where it is, */
	uint64_t left;	   /* and steps until it begins one further */
};

/* A kind of packet: one template, or one for each choice of its variations. */
struct xp_craft_member {
	uint32_t template;
	uint64_t n_made;
};

struct xp_craft {
	const struct xp_craft_template *templates;
	struct xp_craft_member *members;
	const uint32_t *choices; /* for each member, by how much each variation moves on from its template */
	const uint32_t *turns;	 /* whose turn it is: members */
	const uint32_t *sizes;	 /* bytes; NULL: as the templates are */
	struct xp_craft_variation *variations;
	struct xp_craft_axis *axes; /* of flows */
	struct xp_craft_axis turn;
	struct xp_craft_axis size;
	uint32_t n_variations;
	uint32_t n_axes;
	uint64_t n_flows;
	uint64_t hold;	 /* packets of a flow in a row */
	uint64_t seed;
	uint64_t time_ns; /* of the first packet */
	double gap_ns;	  /* from packet to packet */
	uint64_t n_longer; /* packets that were to be shorter than their template is */
	uint64_t n_bytes;
	/* where it is */
	uint64_t packet;
	uint64_t flow;
	uint64_t held;
};

void xp_craft_seek(struct xp_craft *c, uint64_t packet);
uint32_t xp_craft(struct xp_craft *c, struct xp_batch *batch, uint64_t most);
/* cdef end */

#define XP_CRAFT_SUMS 16 /* of a template, at the most */
#define XP_CRAFT_SLACK 8 /* bytes behind a packet that are read and written as they are */

#endif
