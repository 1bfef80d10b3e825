/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batch, in which everything that a stage may touch is a heap block of its own and of exact size:
 * each column, each list, each frame of each packet. One step beyond any of them is ASan's to find.
 */
#include <stdlib.h>
#include <string.h>

#include <sanitizer/asan_interface.h>

#include "fuzz.h"

#define BASE ((uint8_t *)1) /* frames lie anywhere: addr is counted from (nearly) nowhere */
#define LINE 64

struct xp_batch *batch;
static uint8_t *tiny_texts, *texts;
uint32_t piece_capacity;
static const struct xp_column *headroom; /* the column; NULL: there is none */
static void *frames[PACKETS * PIECES];
static uint32_t n_frames;

static void *block(size_t size)
{
	void *p;

	if (posix_memalign(&p, LINE, size))
		abort();
	memset(p, 0, size);
	return p;
}

void make_batch(void)
{
	batch = xp_batch_init(block(xp_batch_bytes(PACKETS)), PACKETS, BASE, UINT64_MAX / 2);
	for (uint32_t i = 0; i < xp_n_columns; i++) {
		const struct xp_column *c = xp_columns + i;
		void *column = block((size_t)c->item_size * c->width * PACKETS);

		memcpy((uint8_t *)batch + c->field, &column, sizeof(column));
		if (strcmp(c->name, "headroom") == 0)
			headroom = c;
	}
	batch->more_addr = block(batch->more_capacity * sizeof(*batch->more_addr));
	batch->more_len = block(batch->more_capacity * sizeof(*batch->more_len));
	batch->sent_tag = block(batch->sent_capacity * sizeof(*batch->sent_tag));
	batch->sent_time_ns = block(batch->sent_capacity * sizeof(*batch->sent_time_ns));
	/* the arena has texts behind pieces, from a cache line on */
	piece_capacity = (uint32_t)((batch->texts - (uint8_t *)batch->pieces) / (int)sizeof(*batch->pieces));
	batch->pieces = block(piece_capacity * sizeof(*batch->pieces));
	texts = block((size_t)XP_TEXT_ROOM * PACKETS);
	tiny_texts = block(TINY_TEXTS);
}

/* A frame of so many bytes, behind what headroom there is; returns its address in the batch. */
static uint64_t frame(const uint8_t *p, int32_t n)
{
	uint8_t *at = malloc(target.headroom + (size_t)n + !n);

	frames[n_frames++] = at;
	if (!at)
		abort();
	if (n == 0) /* malloc gives at least a byte: nor may that be read */
		ASAN_POISON_MEMORY_REGION(at, 1);
	memset(at, 0xee, target.headroom);
	memcpy(at + target.headroom, p, (size_t)n);
	return (uint64_t)(at + target.headroom - BASE);
}

void free_packets(void)
{
	while (n_frames)
		free(frames[--n_frames]);
}

static void lay_packet(uint32_t i, const struct fuzz_packet *packet)
{
	const uint8_t *p = packet->p;

	batch->len[i] = packet->n;
	batch->head_len[i] = packet->piece[0];
	batch->n_frames[i] = (uint8_t)packet->n_pieces;
	batch->more[i] = batch->n_more;
	batch->time_ns[i] = packet->time_ns;
	if (headroom) /* little endian */
		memcpy((uint8_t *)xp_batch_column(batch, (uint32_t)(headroom - xp_columns)) +
			       i * headroom->item_size,
		       &target.headroom, headroom->item_size);
	batch->addr[i] = frame(p, packet->piece[0]);
	p += packet->piece[0];
	for (uint32_t k = 1; k < packet->n_pieces; k++) {
		batch->more_addr[batch->n_more] = frame(p, packet->piece[k]);
		batch->more_len[batch->n_more++] = packet->piece[k];
		p += packet->piece[k];
	}
}

/*
 * Make a batch of packets [first, first + n) of the input, as if received on the first of two ports.
 * The stages' columns are full of `fill`, as of what an earlier batch left.
 */
void lay_batch(const struct fuzz_input *input, uint32_t first, uint32_t n, uint8_t fill)
{
	int decided = input->how & HOW_DECIDED;
	uint32_t n_rows = n + ROWS_BEYOND < PACKETS ? n + ROWS_BEYOND : PACKETS;

	for (uint32_t i = 0; i < xp_n_columns; i++)
		if (target.filled[i])
			memset(xp_batch_column(batch, i), fill,
			       (size_t)xp_columns[i].item_size * xp_columns[i].width * n_rows);
	batch->texts = input->how & HOW_TINY ? tiny_texts : texts;
	batch->text_capacity = input->how & HOW_TINY ? TINY_TEXTS : XP_TEXT_ROOM * PACKETS;
	batch->partial_checksums = !!(input->how & HOW_PARTIAL);
	batch->n = n;
	/* no packet came for a minute after the last one */
	batch->now_ns = n || !first ? 0 : input->packets[first - 1].time_ns + 60000000000;
	batch->n_more = batch->n_text = 0;
	for (uint32_t i = 0; i < n; i++) {
		lay_packet(i, input->packets + first + i);
		batch->verdict[i] = decided && (first + i) & 1 ? XP_DROP : XP_UNDECIDED;
		batch->mark[i] = 0;
	}
	xp_batch_set_port(batch, 0, 2);
	xp_forget_checksums(batch);
	xp_forget_tx_times(batch);
}
