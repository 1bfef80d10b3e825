/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libFuzzer calls. Each input is run twice from the same states: with other rubbish in the
 * columns and, where what stages say must not depend on it, in batches of another size. Both must say
 * the same of every packet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

/* ASan's, in clang's sanitizer/allocator_interface.h; gcc's has the function, without a header. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
					      void (*on_free)(const volatile void *));

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * A stage allocates nothing. Told when it has returned: a sanitizer that speaks allocates, too. So does
 * libFuzzer, in a thread of its own that looks at the memory used.
 */
static _Thread_local volatile int in_stage, n_allocations;

static void on_malloc(const volatile void *p, size_t size)
{
	(void)p, (void)size;
	n_allocations += in_stage;
}

static void on_free(const volatile void *p)
{
	(void)p;
	n_allocations += in_stage;
}

static void run_stage(const struct fuzz_stage *stage, uint32_t first)
{
	uint32_t n = batch->n;
	int result;

	in_stage = 1;
	result = stage->run(batch, stage->state);
	in_stage = 0;
	DEMAND(n_allocations == 0, "%s allocates or frees memory", stage->name);
	DEMAND(result == 0, "%s returns %d", stage->name, result);
	DEMAND(batch->n == n, "%s: the batch had %u packets and has %u", stage->name, n, batch->n);
	check_stage(stage, first);
}

static void run_batch(const struct fuzz_input *input, uint32_t first, uint32_t n, uint8_t fill,
		      struct fuzz_said *said)
{
	static struct fuzz_said before;
	static uint8_t decided[PACKETS];
	int may_change = input->how & HOW_PARTIAL; /* Decap fills in what is due outside */

	lay_batch(input, first, n, fill);
	note_verdicts();
	note_bytes(&before, first);
	memcpy(decided, batch->verdict, n);
	if (target.rewrites)
		note_sums();
	for (uint32_t s = 0; s < target.n_stages; s++)
		run_stage(target.stages + s, first);
	check_rows_beyond(fill);
	note_said(said, first);
	for (uint32_t i = 0; i < n; i++)
		DEMAND(may_change || (target.rewrites && decided[i] == XP_UNDECIDED) ||
			       said->bytes[first + i] == before.bytes[first + i],
		       "packet %u is changed%s", first + i,
		       target.rewrites ? " though it had been decided" : "");
	xp_fill_checksums(batch); /* as a worker does before packets leave */
	if (target.rewrites)
		check_sums(first);
	free_packets();
}

static void run(const struct fuzz_input *input, uint32_t size, uint8_t fill, struct fuzz_said *said)
{
	reset_target();
	forget_malformed();
	for (uint32_t first = 0; first < input->n; first += size) {
		uint32_t rest = input->n - first;

		run_batch(input, first, rest < size ? rest : size, fill, said);
	}
	run_batch(input, input->n, 0, fill, said); /* an empty one does no harm */
	for (uint32_t s = 0; s < target.n_stages; s++)
		check_malformed(target.stages + s);
	note_counts(said);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t sizes[4] = {1, 2, 5, PACKETS};
	static struct fuzz_input input;
	static struct fuzz_said said[2];
	uint32_t in_batch, in_other;

	read_input(data, size, &input);
	in_batch = in_other = sizes[input.how & HOW_BATCH];
	if (!target.by_batch && !(input.how & HOW_TINY))
		in_other = in_batch == PACKETS ? 1 : PACKETS;
	run(&input, in_batch, 0xa5, said);
	run(&input, in_other, 0x5a, said + 1);
	compare_said(said, said + 1, input.n);
	return 0;
}

/* The target's name is the program's, its image beside it: PROGRAM.image. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char path[4096];

	(void)argc;
	snprintf(path, sizeof(path), "%s.image", (*argv)[0]);
	load_target(path);
	prepare_checks();
	prepare_said();
	make_batch();
	__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
	return 0;
}
