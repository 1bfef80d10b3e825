/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF_PROG_TEST_RUN in live frames mode (Documentation/bpf/bpf_prog_run.rst, Linux 5.18): the kernel makes
 * frames, runs an XDP program on each, and does what it returns.
 */
#ifndef XP_LIVE_H
#define XP_LIVE_H

#include <stdint.h>

#define XP_LIVE_FIRST_LEN 64 /* of a frame before the program sets its length; what it grows by is cleared */

/* Run a program n times, `batch` frames at a time, 256 at the most. 0 or -errno. */
int xp_live_run(int prog_fd, uint32_t ifindex, uint32_t n, uint32_t batch);

#endif
