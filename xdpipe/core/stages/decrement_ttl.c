/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage DecrementTtl: what a router does to the time to live of the packets that it forwards.
 *
 *   IPv4   8: time to live, protocol; checksum at 10   RFC 791; RFC 1812, 5.3.1
 *   IPv6   7: hop limit, which no checksum covers      RFC 8200, 3
 *
 * Left out: the ICMP message to the source of a packet whose time is up.
 */
#include "checksum.h"
#include "rewrite.h"
#include "stages/decrement_ttl.h"

enum { N_DECREMENTED, N_EXPIRED, N_LEFT_ALONE };

int xp_stage_decrement_ttl(struct xp_batch *b, void *state)
{
	const struct xp_decrement_ttl_state *s = state;

	for (uint32_t i = 0; i < b->n; i++) {
		uint8_t *ip, *ttl;

		if (!xp_is_chosen(b, i, s->only))
			continue;
		ip = xp_ip_header(b, i);
		if (!ip) {
			s->counters[N_LEFT_ALONE]++;
			continue;
		}
		ttl = ip + (b->ip_version[i] == 4 ? 8 : 7);
		if (*ttl <= s->by) {
			b->verdict[i] = s->expired;
			s->counters[N_EXPIRED]++;
			continue;
		}
		if (b->ip_version[i] == 4)
			xp_fix_checksum(ip + 10, xp_change_of_byte(*ttl, (uint8_t)(*ttl - s->by), 0));
		*ttl = (uint8_t)(*ttl - s->by);
		b->ip_ttl[i] = *ttl;
		s->counters[N_DECREMENTED]++;
	}
	return 0;
}
