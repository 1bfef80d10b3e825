/* SPDX-License-Identifier: Apache-2.0 */
/* One packet of a batch, for stages of the kinds jit and packet: xp_packet.h as functions. */
#include "xp.h"
#include "xp_packet.h"

/* An offset that may be any number, as one that can be asked for: beyond every packet stays so. */
static int32_t bounded(int64_t at)
{
	return at < 0 || at > XP_ABSENT ? XP_ABSENT : (int32_t)at;
}

/* A big-endian load of 1, 2, 4 or 8 bytes; `missing` where it is not wholly within the packet. */
uint64_t xp_one_load(const struct xp_batch *b, uint32_t i, int64_t at, uint32_t width,
		     uint64_t missing)
{
	uint8_t copy[8];
	const uint8_t *p = xp_readable(b, i, bounded(at), width, copy);
	uint64_t value = 0;

	if (!p)
		return missing;
	for (uint32_t k = 0; k < width; k++)
		value = value << 8 | p[k];
	return value;
}

/* See xp_put. */
uint32_t xp_one_store(struct xp_batch *b, uint32_t i, int64_t at, uint64_t value, uint32_t width,
		      int fix_checksum)
{
	return xp_put(b, i, bounded(at), value, width, fix_checksum);
}

/* Give packet i this verdict if it is undecided, and for XP_FORWARD the port. Returns 1 or 0. */
uint32_t xp_one_decide(struct xp_batch *b, uint32_t i, uint32_t verdict, uint32_t port)
{
	return verdict == XP_FORWARD ? xp_forward_to(b, i, port)
				     : xp_decide_one(b, i, (enum xp_verdict)verdict);
}

/* What parsers say of packet i says nothing any more: stages that trust it would look elsewhere. */
static void forget(struct xp_batch *b, uint32_t i)
{
	for (uint32_t k = 0; k < xp_n_columns; k++) {
		const struct xp_column *c = xp_columns + k;
		xp_offset_t *offsets;

		if (strcmp(c->type, "xp_offset_t") != 0)
			continue;
		memcpy(&offsets, (uint8_t *)b + c->field, sizeof(offsets));
		for (uint32_t w = 0; w < c->width; w++)
			offsets[i * c->width + w] = XP_ABSENT;
	}
	b->checksum_due[i] = 0;
	b->flags[i] = 0;
	b->malformed[i] = b->ip_version[i] = b->ip_proto[i] = 0;
	b->payload_len[i] = 0;
}

/*
 * Put other bytes in place of packet i: as many or, where it lies in one frame, fewer, or more by as
 * much as it has headroom. Returns 0, or -1 for another length than that.
 */
int xp_one_replace(struct xp_batch *b, uint32_t i, const uint8_t *data, uint32_t n)
{
	uint32_t len = (uint32_t)b->len[i];

	if (n != len) {
		uint32_t more = n > len ? n - len : 0;

		if (b->n_frames[i] > 1 || more > b->headroom[i] || more > b->addr[i])
			return -1;
		b->addr[i] -= more;
		b->headroom[i] = (uint16_t)(b->headroom[i] - more);
		b->len[i] = b->head_len[i] = (int32_t)n;
		forget(b, i);
	}
	for (uint32_t at = 0; at < n;) {
		int32_t run;
		uint8_t *p = xp_byte(b, i, (int32_t)at, &run);
		uint32_t k = (uint32_t)run < n - at ? (uint32_t)run : n - at;

		memcpy(p, data + at, k);
		at += k;
	}
	return 0;
}
