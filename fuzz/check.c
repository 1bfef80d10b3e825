/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold of a batch behind a stage, by what the table of columns says of each column that it
 * or a stage before it fills:
 *
 *   "offset ..."                XP_ABSENT, or within the packet (its end included)
 *   NAME_len, NAME an offset    NAME + NAME_len within the packet; 0 where NAME is absent
 *   a text                      within the texts of the batch
 *   "... bits: ...", an enumeration    no bit or value without a name
 *   verdict                     in range, and final once decided
 *   tcp_pieces                  each byte of the pieces can be read
 *
 * and no row is written that is no packet's, no error returned, and "malformed" counted by reason.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fuzz.h"

#define REASONS 256

/* What there is to check of a column, found out once. */
struct column {
	const struct xp_column *c;
	int is_offset, is_text;
	const struct xp_column *length_of; /* of the offsets there */
	const struct xp_enum *names;
	int has_bits;
	uint64_t bits;
};

/* Where a stage counts what it calls malformed, and in which column it says so. */
struct malformed {
	int column;		/* -1: it does not */
	int counter[REASONS];	/* by reason; [0] in sum; -1: there is none */
	uint32_t n[REASONS];	/* packets in all batches of a run */
};

static struct column columns[COLUMNS];
static struct malformed malformed[STAGES];
static uint8_t verdicts[PACKETS]; /* before the stage that is checked */

void broken(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "fuzz: %s: ", target.name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, "\n");
	abort();
}

static const struct xp_column *find_column(const char *name, size_t n)
{
	for (uint32_t i = 0; i < xp_n_columns; i++)
		if (strlen(xp_columns[i].name) == n && memcmp(xp_columns[i].name, name, n) == 0)
			return xp_columns + i;
	return NULL;
}

static int is_offset(const struct xp_column *c)
{
	return strcmp(c->type, "xp_offset_t") == 0 ||
	       (strcmp(c->type, "int32_t") == 0 && strncmp(c->doc, "offset", 6) == 0);
}

static void prepare_column(struct column *column, const struct xp_column *c)
{
	size_t n = strlen(c->name);

	column->c = c;
	column->is_offset = is_offset(c);
	column->is_text = strcmp(c->type, "xp_text_t") == 0;
	if (strcmp(c->type, "int32_t") == 0 && n > 4 && strcmp(c->name + n - 4, "_len") == 0)
		column->length_of = find_column(c->name, n - 4);
	if (column->length_of &&
	    (!is_offset(column->length_of) || column->length_of->width != c->width))
		column->length_of = NULL;
	for (uint32_t i = 0; i < xp_n_enums; i++)
		if (strcmp(xp_enums[i].column, c->name) == 0 && c->width == 1)
			column->names = xp_enums + i;
	for (uint32_t k = 0; column->names && k < column->names->n; k++)
		column->bits |= column->names->names[k].value;
	column->has_bits = column->bits != 0;
	if (column->has_bits && !strstr(c->doc, "bits:")) /* a word of the packet: any bits */
		column->names = NULL;
}

static int find_counter(const struct fuzz_stage *stage, const char *reason)
{
	char name[128];

	snprintf(name, sizeof(name), "malformed%s%s", *reason ? "_" : "", reason);
	for (uint32_t k = 0; k < stage->n_counters; k++)
		if (strcasecmp(stage->counters[k], name) == 0)
			return (int)k;
	return -1;
}

/*
 * A stage that provides an enumeration [X_]malformed counts it if it has counters malformed and, for
 * each reason, malformed_REASON. Where another stage fills the same column, neither can be told.
 */
static void prepare_malformed(struct malformed *m, const struct fuzz_stage *stage)
{
	m->column = -1;
	for (uint32_t i = 0; i < xp_n_columns; i++) {
		const char *tail = strstr(xp_columns[i].name, "malformed");
		const struct xp_enum *names = columns[i].names;
		uint32_t n_fill = 0;

		for (uint32_t s = 0; s < target.n_stages; s++)
			n_fill += target.stages[s].provides[i];
		if (!stage->provides[i] || n_fill > 1 || !names || columns[i].has_bits || !tail ||
		    strcmp(tail, "malformed") != 0 || names->n >= REASONS)
			continue;
		m->column = (int)i;
		m->counter[0] = find_counter(stage, "");
		for (uint32_t k = 0; k < names->n; k++)
			m->counter[k + 1] = find_counter(stage, names->names[k].name);
	}
}

void prepare_checks(void)
{
	DEMAND(xp_n_columns <= COLUMNS, "%u columns; COLUMNS in fuzz.h is too small", xp_n_columns);
	for (uint32_t i = 0; i < xp_n_columns; i++)
		prepare_column(columns + i, xp_columns + i);
	for (uint32_t s = 0; s < target.n_stages; s++)
		prepare_malformed(malformed + s, target.stages + s);
}

static const void *values_of(const struct xp_column *c)
{
	return xp_batch_column(batch, (uint32_t)(c - xp_columns));
}

/* Little endian, as all that libFuzzer runs on here. */
static uint64_t value_of(const struct xp_column *c, uint32_t row)
{
	uint64_t value = 0;

	memcpy(&value, (const uint8_t *)values_of(c) + (size_t)row * c->item_size, c->item_size);
	return value;
}

static void check_offsets(const struct fuzz_stage *stage, const struct xp_column *c, uint32_t first)
{
	const int32_t *offsets = values_of(c);

	for (uint32_t k = 0; k < batch->n * c->width; k++) {
		uint32_t i = k / c->width;

		DEMAND(offsets[k] == XP_ABSENT || (offsets[k] >= 0 && offsets[k] <= batch->len[i]),
		       "packet %u: %s: %s is %d, and the packet has %d bytes", first + i,
		       stage->name, c->name, offsets[k], batch->len[i]);
	}
}

static void check_lengths(const struct fuzz_stage *stage, const struct column *column,
			  uint32_t first)
{
	const struct xp_column *c = column->c, *of = column->length_of;
	const int32_t *lengths = values_of(c), *offsets = values_of(of);

	for (uint32_t k = 0; k < batch->n * c->width; k++) {
		uint32_t i = k / c->width;

		DEMAND(offsets[k] != XP_ABSENT || lengths[k] == 0,
		       "packet %u: %s: %s is %d, and %s is absent", first + i, stage->name,
		       c->name, lengths[k], of->name);
		DEMAND(offsets[k] == XP_ABSENT ||
			       (lengths[k] >= 0 &&
				(int64_t)offsets[k] + lengths[k] <= batch->len[i]),
		       "packet %u: %s: %s %d + %s %d, and the packet has %d bytes", first + i,
		       stage->name, of->name, offsets[k], c->name, lengths[k], batch->len[i]);
	}
}

static void check_texts(const struct fuzz_stage *stage, const struct xp_column *c, uint32_t first)
{
	const xp_text_t *all = values_of(c);

	for (uint32_t i = 0; i < batch->n; i++)
		DEMAND((uint64_t)all[i].at + all[i].len <= batch->n_text,
		       "packet %u: %s: %s is %u bytes at %u, of %u bytes of texts", first + i,
		       stage->name, c->name, all[i].len, all[i].at, batch->n_text);
}

static void check_names(const struct fuzz_stage *stage, const struct column *column, uint32_t first)
{
	for (uint32_t i = 0; i < batch->n; i++) {
		uint64_t value = value_of(column->c, i);

		DEMAND(column->has_bits ? !(value & ~column->bits) : value <= column->names->n,
		       "packet %u: %s: %s is %#llx, which has no name", first + i, stage->name,
		       column->c->name, (unsigned long long)value);
	}
}

/* Before the first stage. */
void note_verdicts(void)
{
	memcpy(verdicts, batch->verdict, batch->n);
}

static void check_verdicts(const struct fuzz_stage *stage, uint32_t first)
{
	for (uint32_t i = 0; i < batch->n; i++) {
		uint8_t verdict = batch->verdict[i];

		DEMAND(verdict <= XP_FORWARD, "packet %u: %s: verdict %u", first + i, stage->name,
		       verdict);
		DEMAND(verdicts[i] == XP_UNDECIDED || verdicts[i] == verdict,
		       "packet %u: %s: verdict was %u and is %u", first + i, stage->name,
		       verdicts[i], verdict);
		DEMAND(batch->out_port[i] < 2, "packet %u: %s: out_port %u of 2", first + i,
		       stage->name, batch->out_port[i]);
		verdicts[i] = verdict;
	}
}

void check_stage(const struct fuzz_stage *stage, uint32_t first)
{
	struct malformed *m = malformed + (stage - target.stages);
	uint8_t filled[COLUMNS] = {0};

	for (const struct fuzz_stage *s = target.stages; s <= stage; s++)
		for (uint32_t i = 0; i < xp_n_columns; i++)
			filled[i] |= s->provides[i];
	DEMAND(batch->n_text <= batch->text_capacity, "%s: %u bytes of texts where %u have room",
	       stage->name, batch->n_text, batch->text_capacity);
	check_verdicts(stage, first);
	for (uint32_t i = 0; i < xp_n_columns; i++) {
		if (!filled[i])
			continue;
		if (columns[i].is_offset)
			check_offsets(stage, xp_columns + i, first);
		if (columns[i].length_of)
			check_lengths(stage, columns + i, first);
		if (columns[i].is_text)
			check_texts(stage, xp_columns + i, first);
		if (columns[i].names)
			check_names(stage, columns + i, first);
	}
	for (uint32_t i = 0; m->column >= 0 && i < batch->n; i++)
		m->n[value_of(xp_columns + m->column, i)]++;
}

/* The next rows behind the last packet's must be as they were. */
void check_rows_beyond(uint8_t fill)
{
	uint32_t end = batch->n + ROWS_BEYOND < PACKETS ? batch->n + ROWS_BEYOND : PACKETS;

	for (uint32_t i = 0; i < xp_n_columns; i++) {
		size_t row = (size_t)xp_columns[i].item_size * xp_columns[i].width;
		const uint8_t *p = values_of(xp_columns + i);

		for (size_t k = batch->n * row; target.filled[i] && k < end * row; k++)
			DEMAND(p[k] == fill, "%s: row %zu of a batch of %u is written",
			       xp_columns[i].name, k / row, batch->n);
	}
}

void forget_malformed(void)
{
	for (uint32_t s = 0; s < target.n_stages; s++)
		memset(malformed[s].n, 0, sizeof(malformed[s].n));
}

/*
 * Behind all batches: what a stage counted is what its column said, of as many packets or, where it
 * counts several faults of one, at least of so many.
 */
void check_malformed(const struct fuzz_stage *stage)
{
	const struct malformed *m = malformed + (stage - target.stages);
	uint64_t by_reason = 0;

	if (m->column < 0 || m->counter[0] < 0)
		return;
	for (uint32_t k = 1; k <= columns[m->column].names->n; k++) {
		uint64_t n;

		if (m->counter[k] < 0)
			return;
		n = stage->counts[m->counter[k]];
		by_reason += n;
		DEMAND(target.many_faults ? n >= m->n[k] : n == m->n[k],
		       "%s: %s counts %llu, and the column says %u", stage->name,
		       stage->counters[m->counter[k]], (unsigned long long)n, m->n[k]);
	}
	DEMAND(stage->counts[m->counter[0]] == by_reason,
	       "%s: malformed counts %llu, and the reasons together %llu", stage->name,
	       (unsigned long long)stage->counts[m->counter[0]], (unsigned long long)by_reason);
}
