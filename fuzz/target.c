/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target's image: the stages of its chain and their states, as Python made them (image.py).
 *
 *   target NAME PORT HEADROOM REWRITES BY_BATCH MANY_FAULTS
 *   block SIZE MODULO64            memory that a state lies in or points to, by its number from 0
 *   bytes BLOCK OFFSET HEX         what stands in it; all else is 0
 *   pointer BLOCK OFFSET TO AT     there, the address of byte AT of block TO
 *   symbol BLOCK OFFSET NAME FILE  there, the address of a function or table of the core (-) or of
 *                                  a library
 *   stage NAME FUNCTION BLOCK AT COUNTS COUNTS_AT
 *   counter NAME                   of the stage named last, in their order
 *   provides COLUMN                likewise
 *
 * Each block is a heap block of its own, so that ASan sees a step out of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sanitizer/asan_interface.h>

#include "fuzz.h"

#define BLOCKS 4096
#define LINE 65536

struct block {
	uint8_t *now;
	uint8_t *fresh; /* what stands in it when a run begins */
	size_t size;
};

struct fuzz_target target;
static struct block blocks[BLOCKS];
static uint32_t n_blocks;
static const char *path_of_image;
static unsigned int n_line;

static void demand(int holds)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz: %s:%u: not as image.py writes it\n", path_of_image, n_line);
	exit(2);
}

static uint8_t *place(unsigned int block, size_t at, size_t size)
{
	demand(block < n_blocks && at <= blocks[block].size && size <= blocks[block].size - at);
	return blocks[block].now + at;
}

static void put_address(unsigned int block, size_t at, void *address)
{
	place(block, at, sizeof(address));
	memcpy(blocks[block].fresh + at, &address, sizeof(address));
}

/* Where a block begins within a cache line is as it was in Python: states may count on it. */
static void add_block(size_t size, size_t modulo)
{
	void *memory;

	demand(n_blocks < BLOCKS && modulo < 64);
	demand(posix_memalign(&memory, 64, modulo + size) == 0);
	ASAN_POISON_MEMORY_REGION(memory, modulo);
	blocks[n_blocks].now = (uint8_t *)memory + modulo;
	blocks[n_blocks].fresh = calloc(1, size);
	demand(blocks[n_blocks].fresh != NULL);
	blocks[n_blocks++].size = size;
}

static void add_bytes(unsigned int block, size_t at, const char *hex)
{
	size_t n = strlen(hex) / 2;

	place(block, at, n);
	for (size_t i = 0; i < n; i++) {
		unsigned int byte;

		demand(sscanf(hex + 2 * i, "%2x", &byte) == 1);
		blocks[block].fresh[at + i] = (uint8_t)byte;
	}
}

static uint32_t column_named(const char *name)
{
	for (uint32_t i = 0; i < xp_n_columns; i++)
		if (strcmp(xp_columns[i].name, name) == 0)
			return i;
	demand(0);
	return 0;
}

static void *find_symbol(const char *name, const char *file)
{
	void *library = strcmp(file, "-") ? dlopen(file, RTLD_NOW | RTLD_GLOBAL) : RTLD_DEFAULT;
	void *address = dlsym(library, name);

	if (!address)
		fprintf(stderr, "fuzz: no %s in %s\n", name, file);
	demand(address != NULL);
	return address;
}

static void read_line(char *line)
{
	struct fuzz_stage *stage = target.n_stages ? target.stages + target.n_stages - 1 : NULL;
	static char text[LINE];
	char name[64];
	unsigned int block, to;
	size_t at, to_at;

	if (sscanf(line, "target %63s %u %u %u %u %u", target.name, &target.port, &target.headroom,
		   &target.rewrites, &target.by_batch, &target.many_faults) == 6)
		return;
	if (sscanf(line, "block %zu %zu", &at, &to_at) == 2) {
		add_block(at, to_at);
	} else if (sscanf(line, "bytes %u %zu %65535s", &block, &at, text) == 3) {
		add_bytes(block, at, text);
	} else if (sscanf(line, "pointer %u %zu %u %zu", &block, &at, &to, &to_at) == 4) {
		put_address(block, at, place(to, to_at, 0));
	} else if (sscanf(line, "symbol %u %zu %63s %65535s", &block, &at, name, text) == 4) {
		put_address(block, at, find_symbol(name, text));
	} else if (sscanf(line, "stage %63s %65535s", name, text) == 2) {
		void *run = dlsym(RTLD_DEFAULT, text);

		demand(run && target.n_stages < STAGES);
		stage = target.stages + target.n_stages++;
		demand(sscanf(line, "stage %*s %*s %u %zu %u %zu", &block, &at, &to, &to_at) == 4);
		strcpy(stage->name, name);
		memcpy(&stage->run, &run, sizeof(run));
		stage->state = place(block, at, 0);
		stage->counts = (uint64_t *)(void *)place(to, to_at, 0);
	} else if (sscanf(line, "counter %63s", name) == 1) {
		demand(stage && stage->n_counters < COUNTERS);
		strcpy(stage->counters[stage->n_counters++], name);
	} else if (sscanf(line, "provides %63s", name) == 1) {
		uint32_t column = column_named(name);

		demand(stage && column < COLUMNS);
		stage->provides[column] = target.filled[column] = 1;
	} else {
		demand(0);
	}
}

void load_target(const char *path)
{
	static char line[LINE + 256];
	FILE *file = fopen(path, "r");

	path_of_image = path;
	if (!file) {
		fprintf(stderr, "fuzz: no image %s; ./dev fuzz makes it\n", path);
		exit(2);
	}
	for (n_line = 1; fgets(line, sizeof(line), file); n_line++)
		read_line(line);
	fclose(file);
	demand(target.n_stages > 0);
}

/* Put every state back to what it was when it was made. */
void reset_target(void)
{
	for (uint32_t i = 0; i < n_blocks; i++)
		memcpy(blocks[i].now, blocks[i].fresh, blocks[i].size);
}
