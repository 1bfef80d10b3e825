/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage SwapAddresses: send an undecided packet back to where it came from. Ethernet
 * and IP addresses and TCP or UDP ports change places, in the packet and in the columns; VLAN tags,
 * MPLS labels and the PPPoE session stay. Checksums stay right, since a sum does not depend on the order
 * of its words; where one of the addresses is not of that sum (pseudo_header.h), it is brought up to
 * date. The hash of a flow is that of both directions.
 */
#include "checksum.h"
#include "pseudo_header.h"
#include "rewrite.h"
#include "stages/swap_addresses.h"

enum { N_SWAPPED, N_LEFT_ALONE };

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
	uint8_t t[16];

	memcpy(t, a, size);
	memcpy(a, b, size);
	memcpy(b, t, size);
}

/* The addresses change places: by how much does the sum change that covers one of them? */
static uint64_t change_of_sum(const uint8_t *src, const uint8_t *dst, uint32_t size,
			      uint32_t covered)
{
	return (covered & XP_COVERS_SRC ? xp_change(src, dst, size) : 0) +
	       (covered & XP_COVERS_DST ? xp_change(dst, src, size) : 0);
}

static void swap_packet(struct xp_batch *b, uint32_t i, uint8_t *ip)
{
	int ipv4 = b->ip_version[i] == 4;
	uint8_t *src = ip + (ipv4 ? 12 : 8), *dst = ip + (ipv4 ? 16 : 24);
	uint8_t *p = xp_packet(b, i), *ports = xp_ports(b, i);
	uint32_t covered = xp_covered(b, i);
	size_t row = 16 * (size_t)i;

	if (covered != (XP_COVERS_SRC | XP_COVERS_DST))
		xp_fix_l4_checksum(b, i, change_of_sum(src, dst, ipv4 ? 4 : 16, covered), 0);
	swap(p, p + 6, 6);
	if (ipv4)
		swap(src, dst, 4);
	else
		swap(src, dst, 16);
	swap(b->src + row, b->dst + row, 16);
	if (ports) {
		swap(ports, ports + 2, 2);
		b->l4_sport[i] = xp_get16(ports);
		b->l4_dport[i] = xp_get16(ports + 2);
	}
}

int xp_stage_swap_addresses(struct xp_batch *b, void *state)
{
	const struct xp_swap_addresses_state *s = state;

	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t *ip;

		if (!xp_is_chosen(b, i, s->only))
			continue;
		ip = xp_ip_header(b, i);
		if (!ip) {
			s->counters[N_LEFT_ALONE]++;
			continue;
		}
		swap_packet(b, i, ip);
		s->counters[N_SWAPPED]++;
	}
	return 0;
}
