/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of packets as they are between two stages, or as they leave: for `xdpipe tap`, which comes and
 * goes while a pipeline runs, and for the stage Record. A copy is a side effect: the packet goes on as
 * if there was none, and where there is no room for it, it is counted as lost (blocks.c).
 */
#include "stages/record.h"
#include "xp.h"
#include "blocks.h"
#include "hints.h"

#define ADDRESSES 12 /* bytes of an Ethernet header before a VLAN tag, */
#define TAG 4	     /* and of the tag (IEEE 802.1Q) */

/* Which stage decided each packet of the batch; without it, that is not known. */
static uint8_t decided_by(const struct xp_taps *taps, uint32_t i)
{
	return taps ? taps->decided_by[i] : 0;
}

static int is_wanted(const struct xp_tap *tap, const struct xp_batch *b, uint32_t i, uint8_t verdict)
{
	if (verdict >= 32 || !(tap->verdicts >> verdict & 1))
		return 0;
	return !tap->program || tap->run_program(tap->program, xp_packet(b, i), (uint32_t)b->len[i],
					       (uint32_t)b->head_len[i]);
}

/* Did the NIC take a VLAN tag out of the packet? Then it is in the copy, as it was on the wire. */
static int has_tag_outside(const struct xp_batch *b, uint32_t i)
{
	return b->nic_told[i] & XP_HINT_VLAN && b->head_len[i] >= ADDRESSES;
}

/* Copy the first n bytes of a packet. */
static void copy_bytes(const struct xp_batch *b, uint32_t i, uint8_t *out, uint32_t n)
{
	if (!has_tag_outside(b, i)) {
		xp_batch_read(b, i, out, n);
	} else if (n <= ADDRESSES + TAG) {
		uint8_t start[ADDRESSES + TAG];

		memcpy(start, xp_packet(b, i), ADDRESSES);
		xp_put16(start + ADDRESSES, 0x8100);
		xp_put16(start + ADDRESSES + 2, b->nic_vlan_tci[i]);
		memcpy(out, start, n);
	} else {
		/* all behind the addresses goes further back by the tag's length */
		xp_batch_read(b, i, out, n - TAG);
		memmove(out + ADDRESSES + TAG, out + ADDRESSES, n - TAG - ADDRESSES);
		xp_put16(out + ADDRESSES, 0x8100);
		xp_put16(out + ADDRESSES + 2, b->nic_vlan_tci[i]);
	}
}

/* Copy what a tap wants of packet i of the batch, at a point that is its k-th. */
static void copy_packet(struct xp_tap *tap, const struct xp_batch *b, uint32_t i, uint32_t k,
			uint8_t verdict, uint8_t by)
{
	uint32_t len = (uint32_t)b->len[i] + (has_tag_outside(b, i) ? TAG : 0);
	struct xp_block block = {
		.interface = tap->interface + k * tap->n_ports + b->port,
		.time_ns = b->time_ns[i],
		.len = len,
		.captured = len < tap->snaplen ? len : tap->snaplen,
	};
	uint8_t *data;

	if (tap->options && verdict < tap->n_verdicts && by < tap->n_by) {
		const uint32_t *at = tap->option_at + verdict * tap->n_by + by;

		block.options = tap->options + at[0];
		block.options_len = at[1] - at[0];
	}
	data = xp_blocks_put(tap->blocks, &block);
	if (data)
		copy_bytes(b, i, data, block.captured);
	tap->copied += data != NULL;
	tap->lost += data == NULL;
}

static void copy_batch(struct xp_tap *tap, const struct xp_batch *b, uint32_t k, uint8_t undecided_is,
		       uint8_t undecided_by)
{
	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t v = b->verdict[i], by = decided_by(b->taps, i);

		if (v == XP_UNDECIDED) {
			v = undecided_is;
			by = undecided_by;
		}
		if (is_wanted(tap, b, i, v))
			copy_packet(tap, b, i, k, v, by);
	}
	xp_blocks_publish(tap->blocks);
}

static uint32_t n_set_below(uint64_t bits, uint32_t bit)
{
	return (uint32_t)__builtin_popcountll(bits & ((1ull << bit) - 1));
}

static void tap_all(struct xp_batch *b, uint32_t point, uint8_t undecided_is, uint8_t undecided_by)
{
	struct xp_taps *taps = b->taps;

	for (uint32_t t = 0; t < taps->n; t++) {
		struct xp_tap *tap = taps->taps[t];

		if (tap->points >> point & 1)
			copy_batch(tap, b, n_set_below(tap->points, point), undecided_is,
				   undecided_by);
	}
}

/* The batch has been received. To be called where b->taps is not NULL, as the others here. */
void xp_tap_received(struct xp_batch *b)
{
	memset(b->taps->decided_by, 0, b->n);
	tap_all(b, 0, XP_UNDECIDED, 0);
}

/* The first n stages of the chain have run. */
void xp_tap_stage(struct xp_batch *b, uint32_t n)
{
	uint8_t *by = b->taps->decided_by;

	for (uint32_t i = 0; i < b->n; i++)
		if (b->verdict[i] != XP_UNDECIDED && !by[i])
			by[i] = (uint8_t)n; /* stages are numbered from 1, 0 is nobody */
	tap_all(b, n, XP_UNDECIDED, 0);
}

/* All stages have run; undecided packets get this verdict. */
void xp_tap_leaving(struct xp_batch *b, uint32_t default_verdict)
{
	tap_all(b, XP_TAP_LEAVING, (uint8_t)default_verdict, (uint8_t)b->taps->by_default);
}

/* Record: a tap at its place in the chain. */
int xp_stage_record(struct xp_batch *b, void *state)
{
	struct xp_record_state *record = state;

	if (!record->tap)
		return 0; /* a check: nobody writes */
	copy_batch(record->tap, b, 0, XP_UNDECIDED, 0);
	record->counters[0] += record->tap->copied;
	record->counters[1] += record->tap->lost;
	record->tap->copied = record->tap->lost = 0;
	return 0;
}
