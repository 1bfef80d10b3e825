/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of NIC or kernel as a packet leaves, and the time at which it did.
 *
 * A frame comes back by the completion ring with the address that it went with, and before the packet,
 * still, the metadata, with the time. Before that lies the stage's tag; and the second byte of a frame
 * says whether there is any of this, so that also a next worker knows.
 */
#include "batch.h"
#include "frames.h"
#include "tx_metadata.h"

/* The bytes before a packet that leaves. */
struct before {
	uint64_t tag;
	struct xp_tx_metadata metadata;
};

/*
 * Note for packets where `where` is not 0 that the time at which they leave is wanted, and the number
 * that they are told by. Returns how many: none where nobody tells the time.
 */
uint32_t xp_want_tx_times(struct xp_batch *b, const uint8_t *where, const uint64_t *tags)
{
	uint32_t n = 0;

	if (!b->tx_times)
		return 0;
	for (uint32_t i = 0; i < b->n; i++) {
		if (!where[i])
			continue;
		b->tx_time_due[i] = 1;
		b->tx_tag[i] = tags[i];
		n++;
	}
	b->n_tx_times_due += n;
	b->tx_times_wanted |= n != 0;
	return n;
}

/* No time is wanted of packets of the batch, and those that were told are not told again. */
void xp_forget_tx_times(struct xp_batch *b)
{
	if (b->n_tx_times_due)
		memset(b->tx_time_due, 0, b->capacity);
	b->n_tx_times_due = b->n_sent = 0;
}

/*
 * Packet i of the batch goes to a tx ring: what is due is done or asked for. Returns the options of
 * its first descriptor.
 */
uint32_t xp_leaving(const struct xp_worker *w, const struct xp_port *out, uint32_t i)
{
	const struct xp_batch *b = w->batch;
	struct before before = {0};
	struct xp_tx_metadata *ask = &before.metadata;
	int time_due = b->n_tx_times_due && b->tx_time_due[i];

	if (b->n_checksums_due && b->checksum_due[i])
		xp_finish_checksum(b, i, out->tx_checksum ? ask : NULL);
	if (b->tx_times_wanted)
		*wants_time(w->umem, frame_of(w->umem, b->addr[i])) = (uint8_t)time_due;
	if (time_due) {
		ask->flags |= XDP_TXMD_FLAGS_TIMESTAMP;
		before.tag = b->tx_tag[i];
		memcpy(xp_packet(b, i) - sizeof(before), &before, sizeof(before));
	} else if (ask->flags) {
		memcpy(xp_packet(b, i) - sizeof(*ask), ask, sizeof(*ask));
	}
	return ask->flags ? XDP_TX_METADATA : 0;
}

/* The frame of a packet, or the first of several, has come back: take down when it left. */
void xp_has_left(struct xp_worker *w, uint64_t addr)
{
	struct xp_batch *b = w->batch;
	struct before before;

	if (!*wants_time(w->umem, frame_of(w->umem, addr)))
		return;
	if (b->n_sent == b->sent_capacity) {
		w->ports->counters->tx_times_lost++;
		return;
	}
	memcpy(&before, b->base + addr - sizeof(before), sizeof(before));
	b->sent_tag[b->n_sent] = before.tag;
	b->sent_time_ns[b->n_sent++] = before.metadata.time_ns;
}
