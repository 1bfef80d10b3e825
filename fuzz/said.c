/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stages said of each packet, as digests by column, so that two runs can be compared: of
 * texts and pieces their bytes count and not where they lie.
 */
#include <string.h>

#include "fuzz.h"

static uint64_t digest_of_pieces(uint32_t i, const uint32_t *at, const void *n, size_t size)
{
	uint64_t hash = DIGEST;
	uint32_t count = 0;

	memcpy(&count, (const uint8_t *)n + i * size, size);
	DEMAND((uint64_t)at[i] + count <= batch->n_pieces && batch->n_pieces <= piece_capacity,
	       "packet %u of the batch: %u pieces at %u, of %u", i, count, at[i], batch->n_pieces);
	for (uint32_t k = at[i]; k < at[i] + count; k++) {
		const struct xp_piece *piece = batch->pieces + k;

		hash = digest(hash, &piece->n, sizeof(piece->n));
		hash = digest(hash, &piece->lost, sizeof(piece->lost));
		hash = digest(hash, piece->p, piece->n); /* ASan: it must be readable */
	}
	return hash;
}

static struct {
	uint8_t noted, is_text;
} columns[COLUMNS];
static uint32_t pieces, n_pieces; /* the columns of pieces of streams; COLUMNS: there is none */

static int is_one_of_ours(uint32_t c)
{
	const char *name = xp_columns[c].name;

	return target.filled[c] || strcmp(name, "verdict") == 0 || strcmp(name, "mark") == 0 ||
	       strcmp(name, "out_port") == 0;
}

void prepare_said(void)
{
	pieces = n_pieces = COLUMNS;
	for (uint32_t c = 0; c < xp_n_columns; c++) {
		columns[c].noted = (uint8_t)is_one_of_ours(c);
		columns[c].is_text = strcmp(xp_columns[c].type, "xp_text_t") == 0;
		if (target.filled[c] && strcmp(xp_columns[c].name, "tcp_pieces") == 0)
			pieces = c;
		if (target.filled[c] && strcmp(xp_columns[c].name, "tcp_n_pieces") == 0)
			n_pieces = c;
	}
}

static uint64_t digest_of_packet(uint32_t i)
{
	uint64_t hash = digest(DIGEST, batch->len + i, sizeof(*batch->len));
	int32_t at = 0, run;

	while (at < batch->len[i]) {
		const uint8_t *p = xp_byte(batch, i, at, &run);

		hash = digest(hash, p, (size_t)run);
		at += run;
	}
	return hash;
}

void note_bytes(struct fuzz_said *said, uint32_t first)
{
	for (uint32_t i = 0; i < batch->n; i++)
		said->bytes[first + i] = digest_of_packet(i);
}

static uint64_t digest_of_value(uint32_t c, uint32_t i)
{
	size_t row = (size_t)xp_columns[c].item_size * xp_columns[c].width;
	const uint8_t *values = xp_batch_column(batch, c);
	const xp_text_t *text = (const xp_text_t *)(const void *)values + i;

	if (columns[c].is_text)
		return digest(text->len, batch->texts + text->at, text->len);
	if (c == pieces && n_pieces < COLUMNS)
		return digest_of_pieces(i, (const uint32_t *)(const void *)values,
					xp_batch_column(batch, n_pieces),
					xp_columns[n_pieces].item_size);
	return digest(DIGEST, values + i * row, row);
}

/* Note what is said of the packets of this batch, the first of which is the input's `first`. */
void note_said(struct fuzz_said *said, uint32_t first)
{
	for (uint32_t c = 0; c < xp_n_columns; c++)
		for (uint32_t i = 0; columns[c].noted && i < batch->n; i++)
			said->columns[first + i][c] = digest_of_value(c, i);
	note_bytes(said, first);
}

void note_counts(struct fuzz_said *said)
{
	for (uint32_t s = 0; s < target.n_stages; s++)
		memcpy(said->counts[s], target.stages[s].counts,
		       target.stages[s].n_counters * sizeof(uint64_t));
}

void compare_said(const struct fuzz_said *a, const struct fuzz_said *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t c = 0; c < xp_n_columns; c++)
			DEMAND(a->columns[i][c] == b->columns[i][c],
			       "packet %u: %s differs when it is run again: not written, or "
			       "dependent on what stood in the columns%s",
			       i, xp_columns[c].name,
			       target.by_batch ? "" : " or on where batches end");
		DEMAND(a->bytes[i] == b->bytes[i],
		       "packet %u: its bytes differ when it is run again", i);
	}
	for (uint32_t s = 0; s < target.n_stages; s++)
		for (uint32_t k = 0; k < target.stages[s].n_counters; k++)
			DEMAND(a->counts[s][k] == b->counts[s][k],
			       "%s: %s counts %llu, and %llu when it is run again",
			       target.stages[s].name, target.stages[s].counters[k],
			       (unsigned long long)a->counts[s][k],
			       (unsigned long long)b->counts[s][k]);
}
