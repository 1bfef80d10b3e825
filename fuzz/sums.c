/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage that rewrites packets must leave a checksum right that was right. Their headers are read
 * anew, before and after, from copies that lie in one piece, by the stage Headers.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "stages/headers.h"

#define ROOM (INPUT_MAX + PACKETS * 256)

enum { SUM_IP = 1, SUM_L4 = 2, NO_UDP_SUM = 4, HAS_IP = 8, HAS_L4 = 16 };

static struct xp_batch *copies;
static uint8_t room[ROOM];
static uint8_t before[PACKETS];

static uint32_t sum16(uint32_t sum, const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/*
 * Which checksums a packet has, and which of them are right (RFC 1071). With options or extension
 * headers, other addresses than those of the IP header may be summed (RFC 8200, 8.1): not looked at.
 */
static uint8_t sums(uint32_t i)
{
	uint32_t flags = copies->flags[i], n, sum;
	const uint8_t *ip = xp_packet(copies, i) + copies->l3[i], *l4;
	uint8_t found = 0;

	if (copies->malformed[i] || !copies->ip_version[i])
		return 0;
	if (copies->ip_version[i] == 4)
		found |= HAS_IP | (sum16(0, ip, (ip[0] & 15) * 4u) == 0xffff ? SUM_IP : 0);
	if (!(flags & (XP_FLAG_TCP | XP_FLAG_UDP | XP_FLAG_ICMP | XP_FLAG_ICMP6)) ||
	    flags & (XP_FLAG_FRAGMENT | XP_FLAG_IP_OPTIONS))
		return found;
	l4 = xp_packet(copies, i) + copies->l4[i];
	n = (uint32_t)(copies->payload[i] + copies->payload_len[i] - copies->l4[i]);
	if (flags & XP_FLAG_UDP && xp_get16(l4 + 6) == 0)
		return found | NO_UDP_SUM;
	sum = flags & XP_FLAG_ICMP ? 0 : n + copies->ip_proto[i];
	if (flags & XP_FLAG_ICMP)
		;
	else if (copies->ip_version[i] == 4)
		sum = sum16(sum, ip + 12, 8);
	else
		sum = sum16(sum, ip + 8, 32);
	return found | HAS_L4 | (sum16(sum, l4, n) == 0xffff ? SUM_L4 : 0);
}

/* Read the packets of the batch as they are now. */
static void read_copies(void)
{
	static uint64_t counters[64];
	struct xp_counts_state state = {counters};
	uint64_t at = 0;

	if (!copies) {
		void *arena = calloc(1, xp_batch_bytes(PACKETS));

		if (!arena)
			abort();
		copies = xp_batch_init(arena, PACKETS, room, sizeof(room));
	}
	copies->n = batch->n;
	for (uint32_t i = 0; i < batch->n; i++) {
		DEMAND(batch->len[i] >= 0 && at + (uint32_t)batch->len[i] <= ROOM,
		       "packet %u of the batch has %d bytes", i, batch->len[i]);
		xp_batch_read(batch, i, room + at, (uint32_t)batch->len[i]);
		copies->addr[i] = at;
		copies->len[i] = batch->len[i];
		at += (uint32_t)batch->len[i];
	}
	xp_batch_whole(copies);
	xp_stage_headers(copies, &state);
}

void note_sums(void)
{
	read_copies();
	for (uint32_t i = 0; i < batch->n; i++)
		before[i] = sums(i);
}

void check_sums(uint32_t first)
{
	read_copies();
	for (uint32_t i = 0; i < batch->n; i++) {
		uint8_t now = sums(i);

		DEMAND(!(before[i] & SUM_IP) || !(now & HAS_IP) || now & SUM_IP,
		       "packet %u: the IPv4 checksum was right and is not", first + i);
		DEMAND(!(before[i] & SUM_L4) || !(now & HAS_L4) || now & SUM_L4,
		       "packet %u: the checksum of TCP, UDP or ICMP was right and is not",
		       first + i);
		DEMAND(!(before[i] & NO_UDP_SUM) || !(now & HAS_L4) || now & NO_UDP_SUM,
		       "packet %u: it had no UDP checksum and has one now", first + i);
		DEMAND(!(before[i] & SUM_L4) || !(now & NO_UDP_SUM),
		       "packet %u: its UDP checksum is gone", first + i);
	}
}
