/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often C code asks for memory: preloaded (LD_PRELOAD), it stands before glibc's allocator, counts,
 * and passes on.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static uint64_t n_calls;

void *malloc(size_t size)
{
	n_calls++;
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	n_calls++;
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	n_calls++;
	return __libc_realloc(p, size);
}

void *memalign(size_t alignment, size_t size)
{
	n_calls++;
	return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
	*p = memalign(alignment, size);
	return *p ? 0 : ENOMEM;
}

typedef void run_stages_fn(void *batch, void *stages, uint32_t n);

/* Call xp_run_stages; return how often memory was asked for meanwhile. */
uint64_t count_calls(run_stages_fn *run, void *batch, void *stages, uint32_t n)
{
	uint64_t before = n_calls;

	run(batch, stages, n);
	return n_calls - before;
}

/* Stands for a stage that allocates once; the count must show it. */
void allocate(void *batch, void *stages, uint32_t n)
{
	void *volatile p = malloc(n);

	(void)batch, (void)stages;
	free(p);
}
