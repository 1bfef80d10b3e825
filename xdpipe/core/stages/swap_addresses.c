/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage SwapAddresses: send an undecided packet back to where it came from. Ethernet
 * and IP addresses and TCP or UDP ports change places; VLAN tags, MPLS labels and the PPPoE session
 * stay. Checksums stay right, since a sum does not depend on the order of its words. A packet of
 * which the columns tell what lies within a tunnel stays as it is: its Ethernet header is another's.
 */
#include "xp.h"
#include "stages/swap_addresses.h"

enum { N_SWAPPED, N_LEFT_ALONE };

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
	uint8_t t[16];

	memcpy(t, a, size);
	memcpy(a, b, size);
	memcpy(b, t, size);
}

int xp_stage_swap_addresses(struct xp_batch *b, void *state)
{
	struct xp_counts_state *s = state;

	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t *p = xp_packet(b, i);

		if (b->verdict[i] != XP_UNDECIDED)
			continue;
		if (b->malformed[i] || b->ip_version[i] == 0 || b->flags[i] & XP_FLAG_TUNNEL) {
			s->counters[N_LEFT_ALONE]++;
			continue;
		}
		swap(p, p + 6, 6);
		p += b->l3[i];
		if (b->ip_version[i] == 4)
			swap(p + 12, p + 16, 4);
		else
			swap(p + 8, p + 24, 16);
		if (b->flags[i] & (XP_FLAG_TCP | XP_FLAG_UDP)) {
			p = xp_packet(b, i) + b->l4[i];
			swap(p, p + 2, 2);
		}
		s->counters[N_SWAPPED]++;
	}
	return 0;
}
