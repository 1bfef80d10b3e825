/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage SetVlan: change the outer VLAN tag of undecided packets, put one in, take one out,
 * or put one in where there is none to change.
 *
 *   dst 6, src 6, [TPID 2, TCI 2], [TPID 2, TCI 2], type 2, ...   IEEE 802.1Q, 9.3
 *   TCI: PCP 3 bits, DEI 1, VID 12                                IEEE 802.1Q, 9.6
 *
 * A tag comes or goes by moving the two MAC addresses before it: the packet begins 4 bytes earlier, in
 * its headroom (xp_batch.h), or later. All that columns of type xp_offset_t say moves along.
 *
 * A tag that the NIC took out of the packet is the outer one, and is put back as the packet leaves
 * (tx_metadata.c): that one is changed or forgotten, or put back now, for another to go before it.
 *
 * Left out: the packet is not padded to Ethernet's 60 bytes when it becomes shorter, which NICs do; a
 * third tag is not pushed, since Headers reads two; what lies behind a third tag is not parsed when it
 * becomes the second.
 */
#include "hints.h"
#include "stages/set_vlan.h"
#include "rewrite.h"

#define MACS 12 /* bytes of a packet before its EtherType or tag */
#define TAG 4
#define TAGS_MAX 2 /* that columns tell of */
#define ETH_P_VLAN 0x8100
#define ETH_P_QINQ 0x88a8

enum { N_CHANGED, N_LEFT_ALONE, N_NO_ROOM };

static inline void move(xp_offset_t *at, uint32_t width, int32_t from, int32_t by)
{
	for (uint32_t k = 0; k < width; k++)
		if (at[k] >= from && at[k] < XP_ABSENT)
			at[k] += by;
}

/* What lies in packet i from offset `from` on lies `by` bytes further from its start now. */
static void move_offsets(struct xp_batch *b, uint32_t i, int32_t from, int32_t by)
{
#define X(name, type, width, writable, who, doc)                                                   \
	if (__builtin_strcmp(#type, "xp_offset_t") == 0)                                           \
		move((xp_offset_t *)(void *)b->name + (size_t)i * (width), width, from, by);
	XP_COLUMNS(X)
#undef X
}

static int is_tag(uint16_t type)
{
	return type == ETH_P_VLAN || type == ETH_P_QINQ;
}

/* Did the NIC take the outer tag out? */
static int is_outside(const struct xp_batch *b, uint32_t i)
{
	return b->nic_told[i] & XP_HINT_VLAN;
}

static void forget_outside(struct xp_batch *b, uint32_t i)
{
	b->nic_told[i] &= (uint8_t)~XP_HINT_VLAN;
	b->nic_vlan_tci[i] = 0;
}

/* Put a tag in before all others; there is room. */
static void put_in(struct xp_batch *b, uint32_t i, uint16_t tpid, uint16_t tci)
{
	uint8_t *p = xp_packet(b, i) - TAG;

	memmove(p, p + TAG, MACS);
	xp_put16(p + MACS, tpid);
	xp_put16(p + MACS + 2, tci);
	b->addr[i] -= TAG;
	b->headroom[i] -= TAG;
	b->len[i] += TAG;
	b->head_len[i] += TAG;
	move_offsets(b, i, MACS, TAG);
	b->vlan_tci[2 * i + 1] = b->vlan_tci[2 * i];
	b->vlan_tci[2 * i] = tci;
	b->n_vlans[i]++;
	b->flags[i] |= XP_FLAG_VLAN;
}

static int push(struct xp_batch *b, uint32_t i, const struct xp_set_vlan_state *s)
{
	int outside = is_outside(b, i);
	uint32_t n = outside ? 2 : 1;

	if (b->n_vlans[i] + n > TAGS_MAX)
		return N_LEFT_ALONE;
	if (b->headroom[i] < n * TAG || b->addr[i] < n * TAG)
		return N_NO_ROOM;
	if (outside) {
		put_in(b, i, ETH_P_VLAN, b->nic_vlan_tci[i]);
		forget_outside(b, i);
	}
	put_in(b, i, s->tpid, s->set);
	return N_CHANGED;
}

/* The outer tag in the packet's bytes; NULL: there is none. */
static uint8_t *outer_tag(const struct xp_batch *b, uint32_t i)
{
	uint8_t *tag = xp_packet(b, i) + MACS;

	if (b->n_vlans[i] == 0 || !xp_within(b, i, MACS, TAG + 2) || !is_tag(xp_get16(tag)))
		return NULL;
	return tag;
}

static int pop(struct xp_batch *b, uint32_t i)
{
	uint8_t *tag = outer_tag(b, i);
	uint16_t third = 0;

	if (is_outside(b, i)) {
		forget_outside(b, i);
		return N_CHANGED;
	}
	if (!tag)
		return N_LEFT_ALONE;
	if (b->n_vlans[i] == TAGS_MAX && xp_within(b, i, MACS, TAGS_MAX * TAG + 2) &&
	    is_tag(xp_get16(tag + TAGS_MAX * TAG))) {
		if (!xp_within(b, i, MACS, (TAGS_MAX + 1) * TAG + 2))
			return N_LEFT_ALONE;
		third = xp_get16(tag + TAGS_MAX * TAG + 2);
		b->eth_type[i] = xp_get16(tag + TAGS_MAX * TAG + 4);
	} else {
		b->n_vlans[i]--;
	}
	memmove(tag - MACS + TAG, tag - MACS, MACS);
	b->addr[i] += TAG;
	b->headroom[i] += TAG;
	b->len[i] -= TAG;
	b->head_len[i] -= TAG;
	move_offsets(b, i, MACS + TAG, -TAG);
	b->vlan_tci[2 * i] = b->vlan_tci[2 * i + 1];
	b->vlan_tci[2 * i + 1] = third;
	if (b->n_vlans[i] == 0)
		b->flags[i] &= ~(uint32_t)XP_FLAG_VLAN;
	return N_CHANGED;
}

static int set(struct xp_batch *b, uint32_t i, const struct xp_set_vlan_state *s)
{
	uint8_t *tag = outer_tag(b, i);
	uint16_t tci;

	if (is_outside(b, i)) {
		b->nic_vlan_tci[i] = (uint16_t)((b->nic_vlan_tci[i] & s->keep) | s->set);
		return N_CHANGED;
	}
	if (!tag)
		return s->deed == XP_SET_VLAN_PUT && b->n_vlans[i] == 0 ? push(b, i, s)
									 : N_LEFT_ALONE;
	tci = (uint16_t)((xp_get16(tag + 2) & s->keep) | s->set);
	xp_put16(tag + 2, tci);
	b->vlan_tci[2 * i] = tci;
	return N_CHANGED;
}

int xp_stage_set_vlan(struct xp_batch *b, void *state)
{
	const struct xp_set_vlan_state *s = state;

	for (uint32_t i = 0; i < b->n; i++) {
		int count = N_LEFT_ALONE;

		if (!xp_is_chosen(b, i, s->only))
			continue;
		if (!b->malformed[i] && xp_is_outermost(b, i) && xp_within(b, i, 0, MACS + 2))
			count = s->deed == XP_SET_VLAN_PUSH  ? push(b, i, s)
				: s->deed == XP_SET_VLAN_POP ? pop(b, i)
							     : set(b, i, s);
		s->counters[count]++;
	}
	return 0;
}
