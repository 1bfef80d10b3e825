/* SPDX-License-Identifier: Apache-2.0 */
/* A batch from a capture file that libpcap reads: the same columns as from a socket. */
#include <string.h>
#include <sys/time.h>

#include "xp.h"

#define LONGEST 262144 /* libpcap's MAXIMUM_SNAPLEN: it refuses longer packets */

/* struct pcap_pkthdr (pcap/pcap.h); with nanosecond precision tv_usec holds nanoseconds. */
struct capture_header {
	struct timeval time;
	uint32_t captured;
	uint32_t on_wire;
};

typedef int next_ex_fn(void *handle, struct capture_header **header, const uint8_t **data);

/*
 * Fill the batch with the next packets, copied one behind the other to its base, each with XP_HEADROOM
 * before it, until it or its memory is full. next_ex is the address of pcap_next_ex, handle a pcap_t.
 * Returns 1 if there may be more, else what pcap_next_ex returned: -2 at the end of the file, -1 for an
 * error.
 */
int xp_fill_from_capture(struct xp_batch *b, void *next_ex, void *handle)
{
	next_ex_fn *next;
	uint64_t at = 0;

	memcpy(&next, &next_ex, sizeof(next));
	b->n_text = 0;
	for (b->n = 0; b->n < b->capacity && b->size - at >= XP_HEADROOM + LONGEST; b->n++) {
		struct capture_header *header;
		const uint8_t *data;
		int status = next(handle, &header, &data);

		if (status != 1)
			return status;
		if (header->captured > LONGEST)
			return -1;
		at += XP_HEADROOM;
		memcpy(b->base + at, data, header->captured);
		b->addr[b->n] = at;
		b->headroom[b->n] = XP_HEADROOM;
		b->len[b->n] = b->head_len[b->n] = (int32_t)header->captured;
		b->n_frames[b->n] = 1;
		b->time_ns[b->n] = (uint64_t)header->time.tv_sec * 1000000000u +
				   (uint64_t)header->time.tv_usec;
		b->verdict[b->n] = XP_UNDECIDED;
		b->mark[b->n] = 0;
		at += (header->captured + 63) / 64 * 64;
	}
	return 1;
}
