/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage FixChecksums: compute the checksums of undecided packets anew.
 *
 *   IPv4 at 10, TCP at 16, UDP at 6, ICMP at 2, ICMPv6 at 2   (checksum.c has the RFCs)
 *
 * Left out: IGMP, and what xp_compute_l4_checksum leaves out.
 */
#include "checksum.h"
#include "rewrite.h"
#include "stages/fix_checksums.h"

enum { N_FIXED, N_RIGHT, N_LEFT_ALONE };

static uint16_t word_at(const uint8_t *p)
{
	uint16_t word;

	memcpy(&word, p, 2);
	return word;
}

static int fix(struct xp_batch *b, uint32_t i)
{
	uint8_t *ip = xp_ip_header(b, i);
	int32_t at = xp_checksum_in_l4(b->flags[i]);
	uint8_t *l4 = NULL;
	uint16_t was_ip = 0, was_l4 = 0;
	int is_ipv4 = b->ip_version[i] == 4;

	if (!ip)
		return N_LEFT_ALONE;
	if (xp_within(b, i, b->l4[i], (uint32_t)at + 2))
		l4 = xp_packet(b, i) + b->l4[i] + at;
	if (is_ipv4) {
		was_ip = word_at(ip + 10);
		xp_compute_ip_checksum(ip);
	}
	if (l4) {
		was_l4 = word_at(l4);
		if (!xp_compute_l4_checksum(b, i))
			l4 = NULL;
	}
	if (!is_ipv4 && !l4)
		return N_LEFT_ALONE;
	return (is_ipv4 && word_at(ip + 10) != was_ip) || (l4 && word_at(l4) != was_l4) ? N_FIXED
											: N_RIGHT;
}

int xp_stage_fix_checksums(struct xp_batch *b, void *state)
{
	const struct xp_fix_checksums_state *s = state;

	for (uint32_t i = 0; i < b->n; i++)
		if (xp_is_chosen(b, i, s->only))
			s->counters[fix(b, i)]++;
	return 0;
}
