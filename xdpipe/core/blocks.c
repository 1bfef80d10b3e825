/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of bytes in shared memory by which a worker hands copies of packets to a process that writes
 * them down. The worker writes them as they stand in a capture file: Enhanced Packet Blocks of pcapng
 * (draft-ietf-opsawg-pcapng, 4.3), so that whoever reads has only bytes to move. Or it writes records of
 * one size (flow_table.c); where this says packets, those are meant then.
 *
 * One producer, one consumer. Nobody waits: a packet that finds no room is counted as lost, and the
 * next block says so (epb_dropcount). The indices count bytes and never wrap. The data is mapped twice
 * in a row, so that no block is in two pieces.
 *
 * The reader's position is of several numbers, which change at once: it writes the one of two places that
 * is not valid, then says that it is. So also a next reader, after one was killed, knows what was
 * written and where.
 */
#define _GNU_SOURCE
#include "blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EPB 6		    /* block type of an Enhanced Packet Block */
#define EPB_FIXED 32	    /* bytes of one without data and options */
#define EPB_DROPCOUNT 4	    /* option: packets lost before this one; 8 bytes */
#define DROPCOUNT_BYTES 12
#define END_OF_OPTIONS 4    /* bytes */
#define SHORTEST_BLOCK 12

struct xp_blocks_head {
	_Alignas(64) uint64_t producer; /* the worker's: bytes ever written, */
	uint64_t packets;		/* and packets */
	uint64_t lost;			/* packets that found no room, */
	uint64_t lost_told;		/* and those of them that a block told */
	uint64_t attached;		/* the worker's pid, from when on it writes */
	_Alignas(64) uint64_t turn;	/* the reader's: at[turn & 1] is valid */
	struct xp_blocks_at at[2];
};

static uint64_t page(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Bytes of the memory for a ring that holds `size` bytes of blocks. */
uint64_t xp_blocks_bytes(uint64_t size)
{
	return page() + size;
}

/*
 * Map a ring of so many bytes of blocks, `populate`: all of it at once, which takes a millisecond for
 * each 8 MiB that nobody has touched before. Returns it, or NULL with errno set; xp_blocks_unmap ends it.
 */
struct xp_blocks *xp_blocks_map(int fd, uint64_t size, int populate)
{
	int how = PROT_READ | PROT_WRITE;
	int flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0);
	struct xp_blocks *blocks;
	uint8_t *at;

	if (size < page() || size & (size - 1)) {
		errno = EINVAL;
		return NULL;
	}
	blocks = calloc(1, sizeof(*blocks));
	if (!blocks)
		return NULL;
	at = mmap(NULL, page() + 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		  0);
	if (at == MAP_FAILED) {
		free(blocks);
		return NULL;
	}
	blocks->head = (struct xp_blocks_head *)at;
	blocks->data = at + page();
	blocks->size = size;
	if (mmap(at, page() + size, how, flags, fd, 0) == MAP_FAILED ||
	    mmap(blocks->data + size, size, how, flags, fd, (off_t)page()) == MAP_FAILED) {
		int error = errno;

		xp_blocks_unmap(blocks);
		errno = error;
		return NULL;
	}
	blocks->put = blocks->head->producer;
	return blocks;
}

void xp_blocks_unmap(struct xp_blocks *blocks)
{
	if (!blocks)
		return;
	munmap(blocks->head, page() + 2 * blocks->size);
	free(blocks);
}

/* The worker says that it writes from now on, behind what was published before. */
void xp_blocks_attach(struct xp_blocks *blocks)
{
	blocks->put = xp_blocks_produced(blocks);
	blocks->n_put = 0;
	__atomic_store_n(&blocks->head->attached, (uint64_t)getpid(), __ATOMIC_RELEASE);
}

uint64_t xp_blocks_attached(const struct xp_blocks *blocks)
{
	return __atomic_load_n(&blocks->head->attached, __ATOMIC_ACQUIRE);
}

/* Bytes ever published. */
uint64_t xp_blocks_produced(const struct xp_blocks *blocks)
{
	return __atomic_load_n(&blocks->head->producer, __ATOMIC_ACQUIRE);
}

uint64_t xp_blocks_packets(const struct xp_blocks *blocks)
{
	return __atomic_load_n(&blocks->head->packets, __ATOMIC_RELAXED);
}

uint64_t xp_blocks_lost(const struct xp_blocks *blocks)
{
	return __atomic_load_n(&blocks->head->lost, __ATOMIC_RELAXED);
}

/*
 * Where the reader is. Of a reader that turns meanwhile: where it was, or is. The worker may write there
 * and make nonsense of it, but not have who asks wait.
 */
struct xp_blocks_at xp_blocks_position(const struct xp_blocks *blocks)
{
	const struct xp_blocks_head *head = blocks->head;
	struct xp_blocks_at at;
	uint64_t turn;
	int tries = 1000;

	do { /* pairs with the release in xp_blocks_release */
		turn = __atomic_load_n(&head->turn, __ATOMIC_ACQUIRE);
		at = head->at[turn & 1];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (turn != __atomic_load_n(&head->turn, __ATOMIC_RELAXED) && --tries);
	return at;
}

static uint32_t padded(uint32_t bytes)
{
	return (bytes + 3) & ~3u;
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value)); /* in the byte order of this machine, as the file's head says */
	return at + sizeof(value);
}

static int has_room(struct xp_blocks *blocks, uint32_t bytes)
{
	if (blocks->put + bytes - blocks->consumer <= blocks->size)
		return 1;
	blocks->consumer = xp_blocks_position(blocks).consumer;
	return blocks->put + bytes - blocks->consumer <= blocks->size;
}

/*
 * Write a block but for the packet's bytes, block->captured of them, which go where is returned; NULL:
 * no room, counted. The reader sees it after xp_blocks_publish.
 */
uint8_t *xp_blocks_put(struct xp_blocks *blocks, const struct xp_block *block)
{
	struct xp_blocks_head *head = blocks->head;
	uint64_t lost = head->lost - head->lost_told;
	uint32_t options = block->options_len + (lost ? DROPCOUNT_BYTES : 0);
	uint32_t bytes = EPB_FIXED + padded(block->captured) + options +
			 (options ? END_OF_OPTIONS : 0);
	uint8_t *at, *data;

	if (!has_room(blocks, bytes)) {
		head->lost++;
		return NULL;
	}
	at = blocks->data + (blocks->put & (blocks->size - 1));
	at = put32(at, EPB);
	at = put32(at, bytes);
	at = put32(at, block->interface);
	at = put32(at, (uint32_t)(block->time_ns >> 32));
	at = put32(at, (uint32_t)block->time_ns);
	at = put32(at, block->captured);
	at = put32(at, block->len);
	data = at;
	memset(data + (block->captured & ~3u), 0, padded(block->captured) - (block->captured & ~3u));
	at += padded(block->captured);
	if (block->options_len)
		memcpy(at, block->options, block->options_len);
	at += block->options_len;
	if (lost) {
		at = put32(at, 0);
		memcpy(at - 4, (uint16_t[]){EPB_DROPCOUNT, sizeof(lost)}, 4);
		memcpy(at, &lost, sizeof(lost));
		at += sizeof(lost);
		head->lost_told += lost;
	}
	if (options)
		at = put32(at, 0);
	put32(at, bytes);
	blocks->put += bytes;
	blocks->n_put++;
	return data;
}

/* Is there room for so many bytes? */
int xp_blocks_have_room(struct xp_blocks *blocks, uint32_t bytes)
{
	return has_room(blocks, bytes);
}

/*
 * Room for a record of so many bytes, on a ring that holds nothing but records of that size; NULL: there
 * is none, counted as lost. The reader sees it after xp_blocks_publish.
 */
uint8_t *xp_blocks_put_record(struct xp_blocks *blocks, uint32_t bytes)
{
	uint8_t *at = blocks->data + (blocks->put & (blocks->size - 1));

	if (!has_room(blocks, bytes)) {
		blocks->head->lost++;
		return NULL;
	}
	blocks->put += bytes;
	blocks->n_put++;
	return at;
}

/* Let the reader see what was put. */
void xp_blocks_publish(struct xp_blocks *blocks)
{
	if (!blocks->n_put)
		return;
	__atomic_store_n(&blocks->head->packets, blocks->head->packets + blocks->n_put,
			 __ATOMIC_RELAXED);
	blocks->n_put = 0;
	/* pairs with the acquire in xp_blocks_peek */
	__atomic_store_n(&blocks->head->producer, blocks->put, __ATOMIC_RELEASE);
}

/*
 * What can be read from byte `from` on, which the reader has reached: *data, so many bytes. -1: the
 * indices cannot be; the worker, which may be hostile, wrote nonsense.
 */
int64_t xp_blocks_peek(const struct xp_blocks *blocks, uint64_t from, uint8_t **data)
{
	/* pairs with the release in xp_blocks_publish */
	uint64_t there = __atomic_load_n(&blocks->head->producer, __ATOMIC_ACQUIRE) - from;

	if (there > blocks->size)
		return -1;
	*data = blocks->data + (from & (blocks->size - 1));
	return (int64_t)there;
}

/*
 * How many of n bytes are whole blocks of packets, of the first max_packets and of max_bytes at the
 * most. *packets is how many those are. Nothing of it is trusted: at what is no block it ends.
 */
uint64_t xp_blocks_whole(const uint8_t *data, uint64_t n, uint64_t max_bytes, uint64_t max_packets,
			 uint64_t *packets)
{
	uint64_t used = 0;

	*packets = 0;
	while (n - used >= SHORTEST_BLOCK && *packets < max_packets) {
		uint32_t kind, bytes, again;

		/* blocks begin at multiples of 4; each is read once, since it may change */
		kind = *(const volatile uint32_t *)(data + used);
		bytes = *(const volatile uint32_t *)(data + used + 4);
		if (kind != EPB || bytes < EPB_FIXED || bytes & 3 || bytes > n - used ||
		    bytes > max_bytes - used)
			break;
		again = *(const volatile uint32_t *)(data + used + bytes - 4);
		if (again != bytes)
			break;
		used += bytes;
		++*packets;
	}
	return used;
}

/* The reader has written down all before at.consumer; it is there, in that file, at that offset. */
void xp_blocks_release(struct xp_blocks *blocks, struct xp_blocks_at at)
{
	struct xp_blocks_head *head = blocks->head;

	/* the turn before is seen before what it made free is written over */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	head->at[(head->turn + 1) & 1] = at;
	/* pairs with the acquire in xp_blocks_position: what was read may be overwritten */
	__atomic_store_n(&head->turn, head->turn + 1, __ATOMIC_RELEASE);
}
