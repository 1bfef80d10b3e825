/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One packet of a batch: load, store, decide; what Batch does with whole columns, for stages that go
 * packet by packet.
 *
 * Offsets are in bytes from the packet's start; the bounds are those of the whole packet (`len`),
 * whichever frames it lies in. XP_ABSENT, and XP_ABSENT plus a few bytes, is beyond every packet.
 */
#ifndef XP_PACKET_H
#define XP_PACKET_H

#include "checksum.h"
#include "xp_batch.h"

/* Copy `size` bytes from offset `at` of a packet on, which lie within it. */
static inline void xp_gather(const struct xp_batch *b, uint32_t i, int32_t at, uint8_t *out,
			     uint32_t size)
{
	while (size) {
		int32_t run;
		const uint8_t *p = xp_byte(b, i, at, &run);
		uint32_t n = (uint32_t)run < size ? (uint32_t)run : size;

		memcpy(out, p, n);
		out += n;
		at += (int32_t)n;
		size -= n;
	}
}

/* Where `size` bytes, up to 8, can be read: in place, or from a copy; NULL: not in the packet. */
static inline const uint8_t *xp_readable(const struct xp_batch *b, uint32_t i, int32_t at,
					 uint32_t size, uint8_t copy[8])
{
	if (xp_within(b, i, at, size))
		return xp_packet(b, i) + at;
	if (b->n_frames[i] < 2 || !xp_within_any(b, i, at, size))
		return NULL;
	xp_gather(b, i, at, copy, size);
	return copy;
}

/* Big-endian loads; 0 where the value does not lie wholly within the packet. */
static inline uint8_t xp_u8(const struct xp_batch *b, uint32_t i, int32_t at)
{
	uint8_t copy[8];
	const uint8_t *p = xp_readable(b, i, at, 1, copy);

	return p ? *p : 0;
}

static inline uint16_t xp_u16(const struct xp_batch *b, uint32_t i, int32_t at)
{
	uint8_t copy[8];
	const uint8_t *p = xp_readable(b, i, at, 2, copy);

	return p ? xp_get16(p) : 0;
}

static inline uint32_t xp_u32(const struct xp_batch *b, uint32_t i, int32_t at)
{
	uint8_t copy[8];
	const uint8_t *p = xp_readable(b, i, at, 4, copy);

	return p ? xp_get32(p) : 0;
}

static inline uint64_t xp_u64(const struct xp_batch *b, uint32_t i, int32_t at)
{
	uint8_t copy[8];
	const uint8_t *p = xp_readable(b, i, at, 8, copy);

	return p ? xp_get64(p) : 0;
}

/*
 * Bring the checksum of packet i up to date for a byte at offset `at` that goes from `was` to
 * `is`. It covers the header and what the packet's own lengths call payload, not the Ethernet
 * padding behind; its own bytes are the caller's to set.
 */
static inline void xp_fix_byte(struct xp_batch *b, uint32_t i, int32_t at, uint8_t was, uint8_t is)
{
	int32_t l4 = b->l4[i], field = xp_checksum_in_l4(b->flags[i]);

	if (at < l4 || at >= b->payload[i] + b->payload_len[i])
		return;
	if (at - l4 == field || at - l4 == field + 1)
		return;
	xp_fix_l4_checksum(b, i, 0, xp_change_of_byte(was, is, (at - l4) & 1));
}

/*
 * Store a value of 1, 2, 4 or 8 bytes, big-endian, if it lies wholly within the packet. fix_checksum:
 * bring the checksum of TCP, UDP, ICMP or ICMPv6 up to date; needs the columns of Headers. Returns
 * how many were stored: 1 or 0.
 */
static inline uint32_t xp_put(struct xp_batch *b, uint32_t i, int32_t at, uint64_t value,
			      uint32_t width, int fix_checksum)
{
	if (!xp_within_any(b, i, at, width))
		return 0;
	for (uint32_t k = 0; k < width; k++) {
		int32_t run, to = at + (int32_t)k;
		uint8_t *p = xp_byte(b, i, to, &run);
		uint8_t byte = (uint8_t)(value >> (8 * (width - 1 - k)));

		if (fix_checksum)
			xp_fix_byte(b, i, to, *p, byte);
		*p = byte;
	}
	return 1;
}

/* Decisions touch only a packet that is still undecided, and return how many that were: 1 or 0. */
static inline uint32_t xp_decide_one(struct xp_batch *b, uint32_t i, enum xp_verdict verdict)
{
	uint32_t hit = b->verdict[i] == XP_UNDECIDED;

	b->verdict[i] = hit ? (uint8_t)verdict : b->verdict[i];
	return hit;
}

static inline uint32_t xp_drop(struct xp_batch *b, uint32_t i)
{
	return xp_decide_one(b, i, XP_DROP);
}

/* Out of the port that it came by. */
static inline uint32_t xp_tx(struct xp_batch *b, uint32_t i)
{
	return xp_decide_one(b, i, XP_TX);
}

/* Back to the kernel. */
static inline uint32_t xp_pass(struct xp_batch *b, uint32_t i)
{
	return xp_decide_one(b, i, XP_PASS);
}

/* Out of a port by its number, the place of its name in the pipeline's `ports`, from 0. */
static inline uint32_t xp_forward_to(struct xp_batch *b, uint32_t i, uint32_t port)
{
	uint32_t hit = xp_decide_one(b, i, XP_FORWARD);

	if (hit)
		b->out_port[i] = (uint8_t)port;
	return hit;
}

#endif
