/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage FitMtu: drop undecided packets that are longer than a link takes, or cut them so
 * that they fit: lengths and checksums speak of what is left then.
 *
 *   802.3         length 2, right before LLC, which with SNAP has 8 bytes   IEEE 802.3, 3.2.6
 *   PPPoE         length 2, right before PPP's protocol field, 2 bytes      RFC 2516, 4
 *   IPv4          total length at 2, checksum at 10                         RFC 791
 *   IPv6          payload length at 4                                       RFC 8200
 *   UDP           length at 4                                               RFC 768
 *
 * IP's length is the shortest of what says how long a packet is: where only what is behind it is too
 * long (the frame was padded), nothing but that is cut.
 *
 * Left out: a header that is cut stays as it is, as do lengths within TCP's and UDP's payload, and the
 * UDP length and all checksums in fragments, which are of the whole datagram.
 */
#include "checksum.h"
#include "parse.h"
#include "rewrite.h"
#include "stages/fit_mtu.h"

enum { N_FITS, N_TRUNCATED, N_LEFT_OUT };

#define ETHERNET 14
#define TAG 4
#define SNAP 8
#define PPP 2
#define UDP 8

/* Have the length before the header that begins at offset `at` say that it goes on to offset `end`. */
static void shorten(struct xp_batch *b, uint32_t i, int32_t at, int32_t end)
{
	uint8_t *field = xp_packet(b, i) + at - 2;

	if (xp_within(b, i, at - 2, 2) && end > at && xp_get16(field) > end - at)
		xp_put16(field, (uint16_t)(end - at));
}

/* Have IPv4 or IPv6 and what it lies in end at offset `end`. */
static void shorten_ip(struct xp_batch *b, uint32_t i, uint8_t *ip, int32_t end)
{
	static const uint8_t llc[3] = {0xaa, 0xaa, 3}; /* else a VLAN tag is behind it */
	int is_ipv4 = b->ip_version[i] == 4;
	uint8_t *field = is_ipv4 ? ip + 2 : ip + 4;
	int32_t l3 = b->l3[i], from = is_ipv4 ? l3 : l3 + 40;
	uint8_t now[2];

	if (b->flags[i] & XP_FLAG_SNAP && memcmp(ip - SNAP, llc, sizeof(llc)) == 0)
		shorten(b, i, l3 - SNAP, end);
	if (b->flags[i] & XP_FLAG_PPPOE)
		shorten(b, i, l3 - PPP, end);
	if (end < from || xp_get16(field) <= end - from)
		return;
	xp_put16(now, (uint16_t)(end - from));
	if (is_ipv4)
		xp_fix_checksum(ip + 10, xp_change(field, now, 2));
	memcpy(field, now, 2);
}

/* Cut packet i, which lies in one frame, at offset `end`. */
static void cut(struct xp_batch *b, uint32_t i, int32_t end)
{
	uint8_t *ip = xp_ip_header(b, i);
	int32_t l4_end = b->payload[i] == XP_ABSENT ? 0 : b->payload[i] + b->payload_len[i];

	if (ip)
		shorten_ip(b, i, ip, end);
	if (ip && b->flags[i] & XP_FLAG_UDP && !(b->flags[i] & XP_FLAG_FRAGMENT) && l4_end > end &&
	    end - b->l4[i] >= UDP)
		xp_put16(xp_packet(b, i) + b->l4[i] + 4, (uint16_t)(end - b->l4[i]));
	b->len[i] = b->head_len[i] = end;
	xp_parse_headers(b, i, 0, end, XP_ETH_BRIDGED);
	if (ip && l4_end > end && !b->malformed[i])
		xp_compute_l4_checksum(b, i);
}

static int fit(struct xp_batch *b, uint32_t i, const struct xp_fit_mtu_state *s)
{
	int32_t most = s->mtu + ETHERNET + TAG * b->n_vlans[i];

	if (b->len[i] <= most)
		return N_FITS;
	if (!s->truncate || b->n_frames[i] > 1 || !xp_is_outermost(b, i)) {
		b->verdict[i] = XP_DROP;
		return N_LEFT_OUT;
	}
	cut(b, i, most);
	return N_TRUNCATED;
}

int xp_stage_fit_mtu(struct xp_batch *b, void *state)
{
	const struct xp_fit_mtu_state *s = state;

	for (uint32_t i = 0; i < b->n; i++)
		if (xp_is_chosen(b, i, s->only))
			s->counters[fit(b, i, s)]++;
	return 0;
}
