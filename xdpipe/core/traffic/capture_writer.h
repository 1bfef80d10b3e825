/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_CAPTURE_WRITER_H
#define XP_CAPTURE_WRITER_H

#include "xp_batch.h"

/* cdef begin */
struct xp_capture_writer {
	int fd;
	uint8_t *buffer;
	uint64_t size; /* bytes of it */
	uint64_t used;
};
int xp_capture_begin(struct xp_capture_writer *w);
int64_t xp_capture_write(struct xp_capture_writer *w, const struct xp_batch *b, const uint8_t *where);
int xp_capture_flush(struct xp_capture_writer *w);
/* cdef end */

#endif
