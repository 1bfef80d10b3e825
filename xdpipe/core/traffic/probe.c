/* SPDX-License-Identifier: Apache-2.0 */
/* Where stamps go in packets, and what is read of them; probe.h draws one. */
#include "traffic/probe.h"

#define ECHO_REPLY4 0
#define ECHO_REQUEST4 8
#define ECHO_REQUEST6 128
#define ECHO_REPLY6 129

/* Does packet i carry bytes that may be others, under a checksum that we keep right? */
static int may_be_stamped(const struct xp_batch *b, uint32_t i)
{
	uint32_t flags = b->flags[i];
	uint8_t type = b->icmp_type[i];

	if (flags & (XP_FLAG_MALFORMED | XP_FLAG_FRAGMENT | XP_FLAG_TUNNEL))
		return 0;
	if (flags & XP_FLAG_ICMP)
		return type == ECHO_REQUEST4 || type == ECHO_REPLY4;
	if (flags & XP_FLAG_ICMP6)
		return type == ECHO_REQUEST6 || type == ECHO_REPLY6;
	return !!(flags & (XP_FLAG_TCP | XP_FLAG_UDP));
}

/*
 * Put an empty stamp of this run into packet i, whose headers are parsed, and bring the checksum of TCP, UDP or
 * ICMP up to date. Returns its offset, for xp_probe_stamp; 0: the packet stays as it is, for it carries
 * fewer than XP_PROBE_SIZE bytes, is a fragment, malformed, cut short, or neither TCP, UDP nor ICMP echo.
 *
 * Once for a packet, as it is laid where it is sent from.
 */
uint32_t xp_probe_place(struct xp_batch *b, uint32_t i, uint16_t run)
{
	int32_t at = b->payload[i] + b->payload_len[i] - XP_PROBE_SIZE;
	uint8_t fresh[XP_PROBE_SIZE] = {0};
	uint16_t change, fix;
	uint8_t *was;

	if (b->payload_len[i] < XP_PROBE_SIZE || !may_be_stamped(b, i) ||
	    !xp_within(b, i, at, XP_PROBE_SIZE))
		return 0;
	xp_put16(fresh, XP_PROBE_MAGIC);
	xp_put16(fresh + 2, run);
	fix = (uint16_t)~xp_fold(xp_probe_sum(fresh, XP_PROBE_SIZE - 2));
	memcpy(fresh + XP_PROBE_SIZE - 2, &fix, 2);
	was = xp_packet(b, i) + at;
	change = xp_fold(xp_change(was, fresh, XP_PROBE_SIZE));
	if ((at - b->l4[i]) & 1) /* across the checksum's words: RFC 1071, 2 (B) */
		change = __builtin_bswap16(change);
	xp_fix_l4_checksum(b, i, 0, change);
	memcpy(was, fresh, XP_PROBE_SIZE);
	return (uint32_t)at;
}

/* The same for all packets of a batch: at[i] is where; returns how many have a stamp. */
uint32_t xp_probe_place_all(struct xp_batch *b, uint16_t run, uint32_t *at)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		at[i] = xp_probe_place(b, i, run);
		n += at[i] != 0;
	}
	return n;
}

/* xp_probe_stamp for who cannot have it inline. */
void xp_probe_write(uint8_t *packet, uint32_t at, uint64_t seq, uint64_t time_ns)
{
	xp_probe_stamp(packet, at, seq, time_ns);
}

/* Read XP_PROBE_SIZE bytes; returns whether they are a stamp. */
int xp_probe_read(const uint8_t *stamp, struct xp_probe *probe)
{
	if (xp_get16(stamp) != XP_PROBE_MAGIC ||
	    xp_fold(xp_probe_sum(stamp, XP_PROBE_SIZE)) != 0xffff)
		return 0;
	probe->run = xp_get16(stamp + 2);
	probe->stream = stamp[4];
	probe->number = (uint64_t)stamp[5] << 32 | xp_get32(stamp + 6);
	probe->time = (uint64_t)xp_get16(stamp + 10) << 32 | xp_get32(stamp + 12);
	return 1;
}
