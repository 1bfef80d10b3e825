/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Decap: have the columns of Headers speak of the packet within a tunnel.
 *
 *   VXLAN      flags 1 (I: 0x08), reserved 3, VNI 3, reserved 1; Ethernet     RFC 7348, 5
 *   Geneve     version 2 bits, options' length 6 bits (in 4 bytes), flags 1,  RFC 8926, 3.4
 *              protocol type 2, VNI 3, reserved 1, options
 *   GRE        flags and version 2, protocol type 2,                          RFC 2784, 2
 *              if C checksum 2 and reserved 2, if K key 4, if S sequence 4    RFC 2890, 2
 *   ERSPAN I   GRE without S, protocol 0x88be; Ethernet right behind          draft-foschiano-
 *   ERSPAN II  GRE with S, protocol 0x88be; version 4 bits (1), VLAN 12 bits, erspan-03
 *              COS and flags 6 bits, session 10 bits, index 4; Ethernet
 *   ERSPAN III protocol 0x22eb; version 2, ..., session, timestamp 4, SGT 2,
 *              P 1 bit, frame type 5 bits, ..., O 1 bit: 8 bytes more
 *   GTP-U      version 3 bits (1), PT 1 bit (1), -, E, S, PN; type 1 (255),   3GPP TS 29.281, 5.1
 *              length 2, TEID 4; if E, S or PN: sequence 2, N-PDU 1, next
 *              extension 1; extensions: length 1 (in 4 bytes), ..., next 1
 *   IP in IP   protocol 4 or 41                                               RFC 2003, 4213, 2473
 *
 * The packet within is parsed by the parser of Headers, within the bounds of what carries it.
 *
 * Left out, so the columns go on to speak of what carries it: GRE version 1 (PPTP), and GRE, Geneve and
 * ERSPAN with other protocols than Ethernet, IPv4, IPv6, ARP and MPLS; Geneve's control packets, which
 * nobody between the ends may look into (flag O); ERSPAN III with other frames than Ethernet and IP;
 * GTP-U's other messages and other PDUs than IP; VXLAN-GPE; tunnels in fragments, of which no part has
 * the whole packet. Checksums of GRE are not verified.
 */
#include "xp.h"
#include "parse.h"
#include "stages/decap.h"

#define AT_ONCE 64 /* packets that are looked at before the first of them is entered */
#define LINE 64
#define GTPU_EXTENSIONS_MAX 8

enum { PROTO_IPV4 = 4, PROTO_UDP = 17, PROTO_IPV6 = 41, PROTO_GRE = 47 };
enum { GRE_CHECKSUM = 0x8000, GRE_ROUTING = 0x4000, GRE_KEY = 0x2000, GRE_SEQUENCE = 0x1000,
       GRE_RESERVED = 0x0c00, GRE_VERSION = 7 };
enum { GRE_ERSPAN = 0x88be, GRE_ERSPAN3 = 0x22eb };

/* In the order of Decap.counters in xdpipe/stages/decap.py; at N_PACKETS + kind, one a kind; behind
 * malformed, one a reason. */
enum { N_PACKETS, N_DEEPER = XP_N_TUNNELS, N_PARTIAL_CHECKSUM, N_INNER_MALFORMED, N_MALFORMED };

/*
 * A tunnel in a packet. Offsets count from p, the packet's first byte; the bytes from `at` on are the
 * tunnel's header, later what it carries, up to `end`; only those before `head` are read.
 */
struct tunnel {
	const uint8_t *p;
	int32_t at, head, end;
	uint32_t kind; /* enum xp_tunnel */
	uint32_t id;
	uint16_t eth_type; /* of what it carries; 0: nothing that is looked into */
};

static int is_wanted(const struct xp_decap_state *d, uint32_t kind)
{
	return d->kinds >> kind & 1;
}

/* Does the parser of Headers know what this protocol type, an EtherType, says? */
static uint16_t known(uint16_t type)
{
	switch (type) {
	case XP_ETH_BRIDGED:
	case XP_ETH_IPV4:
	case XP_ETH_IPV6:
	case XP_ETH_ARP:
	case XP_ETH_MPLS:
	case XP_ETH_MPLS_UPSTREAM:
		return type;
	default:
		return 0;
	}
}

/* IPv4, IPv6 or neither, by the version field at an offset. */
static uint16_t ip_at(const struct tunnel *t, int32_t at)
{
	if (t->head <= at)
		return 0;
	switch (t->p[at] >> 4) {
	case 4:
		return XP_ETH_IPV4;
	case 6:
		return XP_ETH_IPV6;
	default:
		return 0;
	}
}

static uint8_t vxlan(struct tunnel *t)
{
	const uint8_t *p = t->p + t->at;

	if (t->head - t->at < 8)
		return XP_DECAP_MALFORMED_VXLAN_SHORT;
	if (!(p[0] & 0x08))
		return XP_DECAP_MALFORMED_VXLAN_FLAGS;
	t->id = xp_get32(p + 4) >> 8;
	t->eth_type = XP_ETH_BRIDGED;
	t->at += 8;
	return 0;
}

static uint8_t geneve(struct tunnel *t)
{
	const uint8_t *p = t->p + t->at;
	int32_t size;

	if (t->head - t->at < 8)
		return XP_DECAP_MALFORMED_GENEVE_SHORT;
	if (p[0] >> 6)
		return XP_DECAP_MALFORMED_GENEVE_VERSION;
	size = 8 + (p[0] & 0x3f) * 4;
	if (size > t->end - t->at)
		return XP_DECAP_MALFORMED_GENEVE_OPTIONS;
	t->id = xp_get32(p + 4) >> 8;
	t->eth_type = p[1] & 0x80 ? 0 : known(xp_get16(p + 2));
	t->at += size;
	return 0;
}

/* Behind GRE; `sequence` says that it had a sequence number, which type I has not. */
static uint8_t erspan(struct tunnel *t, uint16_t type, int sequence)
{
	const uint8_t *p = t->p + t->at;
	int32_t size = type == GRE_ERSPAN ? 8 : 12;
	int frame_type = 0;

	t->id = 0;
	t->eth_type = XP_ETH_BRIDGED;
	if (type == GRE_ERSPAN && !sequence)
		return 0;
	if (t->head - t->at < size)
		return XP_DECAP_MALFORMED_ERSPAN_SHORT;
	if (p[0] >> 4 != (type == GRE_ERSPAN ? 1 : 2))
		return XP_DECAP_MALFORMED_ERSPAN_VERSION;
	t->id = xp_get16(p + 2) & 0x3ff;
	if (type == GRE_ERSPAN3) {
		frame_type = p[10] >> 2 & 0x1f;
		size += p[11] & 1 ? 8 : 0;
		if (size > t->end - t->at)
			return XP_DECAP_MALFORMED_ERSPAN_SHORT;
	}
	t->at += size;
	if (frame_type == 2)
		t->eth_type = ip_at(t, t->at);
	else if (frame_type != 0)
		t->eth_type = 0;
	return 0;
}

static uint8_t gre(const struct xp_decap_state *d, struct tunnel *t)
{
	const uint8_t *p = t->p + t->at;
	int32_t size = 4;
	uint16_t flags, type;

	if (t->head - t->at < 4)
		return is_wanted(d, XP_TUNNEL_GRE) ? XP_DECAP_MALFORMED_GRE_SHORT : 0;
	flags = xp_get16(p);
	type = xp_get16(p + 2);
	if (type == GRE_ERSPAN || type == GRE_ERSPAN3)
		t->kind = XP_TUNNEL_ERSPAN;
	else if (!known(type))
		return 0;
	if (!is_wanted(d, t->kind) || (flags & GRE_VERSION) == 1)
		return 0;
	if (flags & GRE_VERSION)
		return XP_DECAP_MALFORMED_GRE_VERSION;
	if (flags & (GRE_ROUTING | GRE_RESERVED))
		return XP_DECAP_MALFORMED_GRE_FLAGS;
	if (flags & GRE_CHECKSUM)
		size += 4;
	if (flags & GRE_KEY)
		size += 4;
	if (t->head - t->at < size + (flags & GRE_SEQUENCE ? 4 : 0))
		return XP_DECAP_MALFORMED_GRE_SHORT;
	if (flags & GRE_KEY)
		t->id = xp_get32(p + size - 4);
	t->at += size + (flags & GRE_SEQUENCE ? 4 : 0);
	if (t->kind == XP_TUNNEL_ERSPAN)
		return erspan(t, type, flags & GRE_SEQUENCE);
	t->eth_type = type;
	return 0;
}

static uint8_t gtpu(struct tunnel *t)
{
	const uint8_t *p = t->p + t->at;
	int32_t size = 8, end, next = 0;

	if (t->head - t->at < 8)
		return XP_DECAP_MALFORMED_GTPU_SHORT;
	if (p[0] >> 4 != 3)
		return XP_DECAP_MALFORMED_GTPU_VERSION;
	if (p[1] != 255)
		return 0;
	end = 8 + xp_get16(p + 2);
	if (end > t->end - t->at)
		return XP_DECAP_MALFORMED_GTPU_LEN;
	t->end = t->at + end;
	if (t->head > t->end)
		t->head = t->end;
	t->id = xp_get32(p + 4);
	if (p[0] & 7) {
		size = 12;
		if (end < 12)
			return XP_DECAP_MALFORMED_GTPU_LEN;
		if (t->head - t->at < 12)
			return XP_DECAP_MALFORMED_GTPU_SHORT;
		next = p[0] & 4 ? p[11] : 0;
	}
	for (int i = 0; next != 0; i++) {
		int32_t more;

		if (i == GTPU_EXTENSIONS_MAX || t->head - t->at <= size)
			return XP_DECAP_MALFORMED_GTPU_EXTENSION;
		more = p[size] * 4;
		if (more == 0 || more > t->head - t->at - size)
			return XP_DECAP_MALFORMED_GTPU_EXTENSION;
		size += more;
		next = p[size - 1];
	}
	t->at += size;
	t->eth_type = ip_at(t, t->at);
	return 0;
}

/*
 * What tunnel packet i may be, of those that are wanted, by its columns; XP_TUNNEL_GRE may be ERSPAN,
 * which only a look into it tells. Fragments and what is malformed are none.
 */
static inline uint32_t kind_of(const struct xp_decap_state *d, const struct xp_batch *b, uint32_t i)
{
	uint32_t flags = b->flags[i], kind;

	if (flags & (XP_FLAG_FRAGMENT | XP_FLAG_MALFORMED | XP_FLAG_TCP))
		return XP_TUNNEL_NONE;
	if (flags & XP_FLAG_UDP) {
		uint16_t port = b->l4_dport[i];

		kind = port == d->vxlan_port   ? XP_TUNNEL_VXLAN
		       : port == d->geneve_port ? XP_TUNNEL_GENEVE
		       : port == d->gtpu_port   ? XP_TUNNEL_GTPU
						: XP_TUNNEL_NONE;
	} else if (b->ip_proto[i] == PROTO_IPV4) {
		kind = flags & XP_FLAG_IPV4 ? XP_TUNNEL_IPIP : XP_TUNNEL_4IN6;
	} else if (b->ip_proto[i] == PROTO_IPV6) {
		kind = flags & XP_FLAG_IPV4 ? XP_TUNNEL_6IN4 : XP_TUNNEL_6IN6;
	} else if (b->ip_proto[i] == PROTO_GRE) {
		return d->kinds & (1u << XP_TUNNEL_GRE | 1u << XP_TUNNEL_ERSPAN) ? XP_TUNNEL_GRE
										  : XP_TUNNEL_NONE;
	} else {
		return XP_TUNNEL_NONE;
	}
	return is_wanted(d, kind) ? kind : XP_TUNNEL_NONE;
}

/* Look into packet i, of that kind; returns 0 or why it contradicts itself. */
static uint8_t look(const struct xp_decap_state *d, const struct xp_batch *b, uint32_t i,
		    uint32_t kind, struct tunnel *t)
{
	t->p = xp_packet(b, i);
	t->at = b->payload[i];
	t->end = t->at + b->payload_len[i];
	t->head = b->head_len[i] < t->end ? b->head_len[i] : t->end;
	t->kind = kind;
	t->id = 0;
	t->eth_type = 0;
	switch (kind) {
	case XP_TUNNEL_VXLAN:
		return vxlan(t);
	case XP_TUNNEL_GENEVE:
		return geneve(t);
	case XP_TUNNEL_GTPU:
		return gtpu(t);
	case XP_TUNNEL_IPIP:
	case XP_TUNNEL_4IN6:
		t->eth_type = XP_ETH_IPV4;
		return 0;
	case XP_TUNNEL_6IN4:
	case XP_TUNNEL_6IN6:
		t->eth_type = XP_ETH_IPV6;
		return 0;
	default:
		return gre(d, t);
	}
}

/*
 * Enter a tunnel of packet i, its n-th. Returns 1 if the packet within came without a checksum that is
 * due now.
 */
static uint32_t enter(struct xp_batch *b, uint32_t i, uint32_t n, const struct tunnel *t)
{
	xp_fill_checksum_of_outer(b, i);
	if (n == 0) {
		b->outer_l3[i] = b->l3[i];
		memcpy(b->outer_src + 16 * (size_t)i, b->src + 16 * (size_t)i, 16);
		memcpy(b->outer_dst + 16 * (size_t)i, b->dst + 16 * (size_t)i, 16);
	}
	b->tunnels[4 * i + n] = (uint8_t)t->kind;
	b->tunnel_id[4 * i + n] = t->id;
	b->inner[i] = t->at;
	xp_parse_headers(b, i, t->at, t->end, t->eth_type);
	return xp_note_partial_checksum_of_inner(b, i);
}

static void decap(const struct xp_decap_state *d, struct xp_batch *b, uint32_t i)
{
	uint64_t *counters = d->counters;
	uint32_t n = 0, kind;

	while ((kind = kind_of(d, b, i)) != XP_TUNNEL_NONE) {
		struct tunnel t;
		uint8_t malformed = look(d, b, i, kind, &t);

		if (!malformed && !t.eth_type)
			break;
		if (n == d->depth) {
			counters[N_DEEPER]++;
			break;
		}
		if (malformed) {
			b->decap_malformed[i] = malformed;
			counters[N_MALFORMED]++;
			counters[N_MALFORMED + malformed]++;
			break;
		}
		counters[N_PARTIAL_CHECKSUM] += enter(b, i, n++, &t);
		counters[N_PACKETS + t.kind]++;
	}
	if (n == 0)
		return;
	counters[N_PACKETS]++;
	counters[N_INNER_MALFORMED] += b->malformed[i] != 0;
	b->flags[i] |= XP_FLAG_TUNNEL;
	b->n_tunnels[i] = (uint8_t)n;
}

/* Have the columns say that there is no tunnel. */
static void clear_batch(struct xp_batch *b)
{
#define CLEAR(column, width) memset(b->column, 0, b->n * sizeof(*b->column) * (width))
	CLEAR(n_tunnels, 1);
	CLEAR(tunnels, 4);
	CLEAR(tunnel_id, 4);
	CLEAR(outer_src, 16);
	CLEAR(outer_dst, 16);
	CLEAR(decap_malformed, 1);
#undef CLEAR
	for (uint32_t i = 0; i < b->n; i++)
		b->inner[i] = XP_ABSENT;
	for (uint32_t i = 0; i < b->n; i++)
		b->outer_l3[i] = XP_ABSENT;
}

int xp_stage_decap(struct xp_batch *b, void *state)
{
	const struct xp_decap_state *d = state;

	clear_batch(b);
	for (uint32_t first = 0; first < b->n; first += AT_ONCE) {
		uint32_t end = b->n - first < AT_ONCE ? b->n : first + AT_ONCE;
		uint32_t tunnels[AT_ONCE], n = 0;

		for (uint32_t i = first; i < end; i++) {
			if (kind_of(d, b, i) == XP_TUNNEL_NONE)
				continue;
			tunnels[n++] = i;
			__builtin_prefetch(xp_packet(b, i) + LINE); /* the packet within begins there */
		}
		for (uint32_t k = 0; k < n; k++)
			decap(d, b, tunnels[k]);
	}
	return 0;
}
