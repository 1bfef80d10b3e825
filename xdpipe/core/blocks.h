/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on their way from a worker to who writes them down: blocks.c. */
#ifndef XP_BLOCKS_H
#define XP_BLOCKS_H

#include "xp.h"

struct xp_blocks_head;

/* A ring of pcapng blocks as one process sees it. */
struct xp_blocks {
	struct xp_blocks_head *head; /* shared */
	uint8_t *data;		     /* shared, and there twice, one behind the other */
	uint64_t size;		     /* of data, once; a power of two, of pages */
	uint64_t consumer;	     /* the worker's: how far the reader was when last looked at */
	uint64_t put;		     /* the worker's: behind the last block that is whole */
	uint32_t n_put;		     /* packets that wait for xp_blocks_publish */
};

/* A packet to be written down. */
struct xp_block {
	uint32_t interface;
	uint64_t time_ns;
	uint32_t len;		/* bytes of the packet */
	uint32_t captured;	/* of which are written */
	const uint8_t *options; /* pcapng options, padded, without the end of options; */
	uint32_t options_len;	/* their bytes */
};

uint8_t *xp_blocks_put(struct xp_blocks *blocks, const struct xp_block *block);
uint8_t *xp_blocks_put_record(struct xp_blocks *blocks, uint32_t bytes);
int xp_blocks_have_room(struct xp_blocks *blocks, uint32_t bytes);
void xp_blocks_publish(struct xp_blocks *blocks);

#endif
