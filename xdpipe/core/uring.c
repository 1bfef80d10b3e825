/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes to files by io_uring(7): many under way, of memory as it lies, one system call to begin each.
 * One kind of request, so without liburing, which every worker would have to load with this core.
 *
 * The ring's descriptor is readable when something has ended (io_uring_poll in io_uring/io_uring.c).
 */
#define _GNU_SOURCE
#include "xp.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGISTER_IOWQ_AFF 17 /* IORING_REGISTER_IOWQ_AFF, Linux 5.14; older headers lack it */

struct xp_uring {
	int fd;
	uint8_t *rings; /* both, in one mapping (IORING_FEAT_SINGLE_MMAP, Linux 5.4) */
	size_t rings_bytes;
	struct io_uring_sqe *sqes;
	size_t sqes_bytes;
	uint32_t *sq_tail, *sq_array, sq_mask;
	uint32_t *cq_head, *cq_tail, cq_mask;
	struct io_uring_cqe *cqes;
};

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* The kernel's own threads, which write what cannot be written at once, run where we may. */
static void stay_on_our_cores(int fd)
{
	cpu_set_t cores;

	if (!sched_getaffinity(0, sizeof(cores), &cores))
		syscall(__NR_io_uring_register, fd, REGISTER_IOWQ_AFF, &cores, sizeof(cores));
}

/* Returns NULL with errno set where there is no io_uring, or none for us. */
struct xp_uring *xp_uring_open(uint32_t n)
{
	struct io_uring_params p = {0};
	struct xp_uring *u = calloc(1, sizeof(*u));
	int error;

	if (!u)
		return NULL;
	u->rings = MAP_FAILED;
	u->fd = (int)syscall(__NR_io_uring_setup, n, &p);
	if (u->fd < 0)
		goto failed;
	if (!(p.features & IORING_FEAT_SINGLE_MMAP)) {
		errno = ENOSYS;
		goto failed;
	}
	u->rings_bytes = larger(p.sq_off.array + p.sq_entries * (uint32_t)sizeof(uint32_t),
				p.cq_off.cqes + p.cq_entries * (uint32_t)sizeof(*u->cqes));
	u->rings = mmap(NULL, u->rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			u->fd, IORING_OFF_SQ_RING);
	if (u->rings == MAP_FAILED)
		goto failed;
	u->sqes_bytes = p.sq_entries * sizeof(*u->sqes);
	u->sqes = mmap(NULL, u->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd,
		       IORING_OFF_SQES);
	if (u->sqes == MAP_FAILED)
		goto failed;
	u->sq_tail = (uint32_t *)(u->rings + p.sq_off.tail);
	u->sq_array = (uint32_t *)(u->rings + p.sq_off.array);
	u->sq_mask = *(uint32_t *)(u->rings + p.sq_off.ring_mask);
	u->cq_head = (uint32_t *)(u->rings + p.cq_off.head);
	u->cq_tail = (uint32_t *)(u->rings + p.cq_off.tail);
	u->cq_mask = *(uint32_t *)(u->rings + p.cq_off.ring_mask);
	u->cqes = (struct io_uring_cqe *)(u->rings + p.cq_off.cqes);
	stay_on_our_cores(u->fd);
	return u;
failed:
	error = errno;
	xp_uring_close(u);
	errno = error;
	return NULL;
}

void xp_uring_close(struct xp_uring *u)
{
	if (u->rings != MAP_FAILED)
		munmap(u->rings, u->rings_bytes);
	if (u->sqes && u->sqes != MAP_FAILED)
		munmap(u->sqes, u->sqes_bytes);
	if (u->fd >= 0)
		close(u->fd);
	free(u);
}

int xp_uring_fd(const struct xp_uring *u)
{
	return u->fd;
}

/*
 * Begin to write n bytes of a file. They must stay until xp_uring_reap gives the tag back. No more may be
 * under way than the ring was opened for. Returns 0 or -errno.
 */
int xp_uring_write(struct xp_uring *u, int fd, const uint8_t *data, uint32_t n, uint64_t offset,
		   uint64_t tag)
{
	uint32_t tail = *u->sq_tail, at = tail & u->sq_mask;
	long done;

	u->sqes[at] = (struct io_uring_sqe){
		.opcode = IORING_OP_WRITE,
		.fd = fd,
		.addr = (uint64_t)(uintptr_t)data,
		.len = n,
		.off = offset,
		.user_data = tag,
	};
	u->sq_array[at] = at;
	/* pairs with the kernel's acquire of the tail (io_sqring_entries) */
	__atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);
	do
		done = syscall(__NR_io_uring_enter, u->fd, 1, 0, 0, NULL, 0);
	while (done < 0 && errno == EINTR);
	if (done == 1)
		return 0;
	__atomic_store_n(u->sq_tail, tail, __ATOMIC_RELEASE); /* not taken */
	return done < 0 ? -errno : -EAGAIN;
}

/* Whether a write has ended: which, and the bytes written or -errno. */
int xp_uring_reap(struct xp_uring *u, uint64_t *tag, int32_t *result)
{
	uint32_t head = *u->cq_head;
	const struct io_uring_cqe *c = u->cqes + (head & u->cq_mask);

	/* pairs with the kernel's release of the tail (io_commit_cqring) */
	if (head == __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE))
		return 0;
	*tag = c->user_data;
	*result = c->res;
	/* pairs with the kernel's acquire of the head: the entry may be written again */
	__atomic_store_n(u->cq_head, head + 1, __ATOMIC_RELEASE);
	return 1;
}
