/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pcap file, batch by batch (draft-ietf-opsawg-pcap), in the machine's byte order, as readers expect:
 *
 *   file     magic 0xa1b23c4d (nanoseconds), version 2.4, 0, 0, snap length, link type 1 (Ethernet)
 *   packet   seconds, nanoseconds, bytes that follow, bytes on the wire
 */
#include "traffic/capture_writer.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "xp_packet.h"

#define SNAPLEN 262144 /* libpcap's MAXIMUM_SNAPLEN */

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, accuracy, snaplen, link_type;
};

struct packet_header {
	uint32_t seconds, nanoseconds, len, wire_len;
};

static int write_all(int fd, const uint8_t *p, uint64_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);

		if (done < 0 && errno == EAGAIN) { /* somebody made the pipe non-blocking */
			struct pollfd wait = {.fd = fd, .events = POLLOUT};

			poll(&wait, 1, -1);
			continue;
		}
		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			p += done;
			n -= (uint64_t)done;
		}
	}
	return 0;
}

/* Write what is buffered. Returns 0 or -errno; what was buffered is gone either way. */
int xp_capture_flush(struct xp_capture_writer *w)
{
	uint64_t n = w->used;

	w->used = 0;
	return write_all(w->fd, w->buffer, n);
}

/* Put the file's header into the buffer, which is empty and has room for it. */
int xp_capture_begin(struct xp_capture_writer *w)
{
	struct file_header header = {0xa1b23c4d, 2, 4, 0, 0, SNAPLEN, 1};

	memcpy(w->buffer, &header, sizeof(header));
	w->used = sizeof(header);
	return 0;
}

/*
 * Write the packets of a batch where `where` is not 0, all if it is NULL. The buffer holds the longest
 * packet and its header at the least. Returns how many were written, or -errno.
 */
int64_t xp_capture_write(struct xp_capture_writer *w, const struct xp_batch *b, const uint8_t *where)
{
	int64_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		uint32_t len = (uint32_t)b->len[i];
		struct packet_header header = {(uint32_t)(b->time_ns[i] / 1000000000u),
					       (uint32_t)(b->time_ns[i] % 1000000000u), len, len};

		if (where && !where[i])
			continue;
		if (w->size - w->used < sizeof(header) + len) {
			int failed = xp_capture_flush(w);

			if (failed)
				return failed;
			if (w->size < sizeof(header) + len)
				return -EMSGSIZE;
		}
		memcpy(w->buffer + w->used, &header, sizeof(header));
		w->used += sizeof(header);
		xp_gather(b, i, 0, w->buffer + w->used, len);
		w->used += len;
		n++;
	}
	return n;
}
