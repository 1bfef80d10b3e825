/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to a packet that leaves or asked of NIC or kernel, and the time at which it left.
 *
 * A frame comes back by the completion ring with the address that it went with, and before the packet,
 * still, the metadata, with the time. Before that lies the stage's tag; and the second byte of a frame
 * says whether there is any of this, so that also a next worker knows.
 */
#include "xp.h"
#include "frames.h"
#include "hints.h"
#include "tx_metadata.h"

#define MACS 12 /* bytes of a packet before its EtherType or tag */
#define VLAN_TAG 4
#define ETH_P_VLAN 0x8100

/* The bytes before a packet that leaves. */
struct before {
	uint64_t tag;
	struct xp_tx_metadata metadata;
};
_Static_assert(2 + sizeof(struct before) + VLAN_TAG <= FRAME_KEPT, "stages leave it room");

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
 * Put the tag that the NIC took out of packet i back in (IEEE 802.1Q): the addresses move to where the
 * hints stood. Offsets of headers are not what they were. Returns by how many bytes it has grown.
 */
uint32_t xp_put_tag_back(struct xp_batch *b, uint32_t i)
{
	uint8_t *p = xp_packet(b, i);

	if (!(b->nic_told[i] & XP_HINT_VLAN) || b->head_len[i] < MACS)
		return 0;
	b->nic_told[i] &= (uint8_t)~XP_HINT_VLAN;
	memmove(p - VLAN_TAG, p, MACS);
	xp_put16(p - VLAN_TAG + MACS, ETH_P_VLAN);
	xp_put16(p - VLAN_TAG + MACS + 2, b->nic_vlan_tci[i]);
	b->addr[i] -= VLAN_TAG;
	b->len[i] += VLAN_TAG;
	b->head_len[i] += VLAN_TAG;
	return VLAN_TAG;
}

/*
 * Packet i of the batch goes to a tx ring: what is due is done or asked for. Returns the options of
 * its first descriptor.
 */
uint32_t xp_leaving(const struct xp_worker *w, const struct xp_port *out, uint32_t i)
{
	struct xp_batch *b = w->batch;
	struct before before = {0};
	struct xp_tx_metadata *ask = &before.metadata;
	int time_due = b->n_tx_times_due && b->tx_time_due[i];

	if (b->n_checksums_due && b->checksum_due[i])
		xp_finish_checksum(b, i, out->tx_checksum ? ask : NULL);
	if (w->hints)
		ask->checksum_start += (uint16_t)xp_put_tag_back(b, i);
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
