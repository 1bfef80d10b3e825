/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an input to packets.
 *
 *   how 1, record, SEPARATOR 4, record, SEPARATOR 4, ...
 *   record: kind 1, flow 1, body; one of fewer than 2 bytes is a frame as it is
 *
 * A separator and not lengths, so that a packet may grow or shrink in a mutation and the others stay
 * what they are; it stands in every dictionary. Parsers that lie deep are reached by records whose
 * body is payload alone: headers, their lengths and checksums, and TCP's sequence numbers are made
 * here. With HOW_ONE all behind `how` is one frame, so that a capture's packet is an input as it is.
 *
 *   kind   low 4 bits: enum kind; high 4 bits: in sixteenths, where the packet's second frame begins;
 *          0: all of it lies in one. An odd number: a third frame has half of the rest.
 *   flow   low 4 bits: which connection; 0x40: with a VLAN tag; 0x80: IPv6
 *
 * seeds.py writes the same form.
 */
#define _GNU_SOURCE
#include <string.h>

#include "fuzz.h"

#define HEADERS_MAX 128 /* bytes that are put before a body */
#define BODY_MAX 9000
#define FLOWS 16
#define FLOW_VLAN 0x40
#define FLOW_IPV6 0x80

enum kind {
	FRAME,	     /* a frame as it is */
	UDP_TO,	     /* payload of UDP, to the server's port */
	UDP_FROM,    /* from it */
	TCP_TO,	     /* what comes next in the stream to the server */
	TCP_FROM,    /* from it */
	TCP_TO_AT,   /* the first two bytes say how far from there it lies: lost, late, or again */
	TCP_FROM_AT,
	TCP_CONTROL, /* flags 1, direction 1 (0: to the server), then payload */
	IP_PROTO,    /* protocol 1, then what IP carries */
	ETHER_TYPE,  /* EtherType 2, then what Ethernet carries */
	KINDS
};

enum { ETH_P_IPV4 = 0x0800, ETH_P_VLAN = 0x8100, ETH_P_IPV6 = 0x86dd };
enum { PROTO_TCP = 6, PROTO_UDP = 17 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_PUSH_ACK = 0x18 };

static const uint8_t separator[4] = {0xfa, 0xce, 0x5e, 0xb1};
static uint8_t made[INPUT_MAX + PACKETS * HEADERS_MAX];
static uint32_t n_made;
static uint32_t next_seq[FLOWS][2]; /* to the server, from it */

static uint8_t *room(uint32_t n)
{
	uint8_t *p = made + n_made;

	n_made += n;
	return p;
}

static void put32(uint8_t *p, uint32_t v)
{
	xp_put16(p, (uint16_t)(v >> 16));
	xp_put16(p + 2, (uint16_t)v);
}

static uint32_t sum16(uint32_t sum, const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	return sum;
}

static uint16_t folded(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void put_ethernet(uint8_t flow, uint16_t type)
{
	static const uint8_t addresses[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};

	memcpy(room(12), addresses, 12);
	if (flow & FLOW_VLAN) {
		uint8_t *tag = room(4);

		xp_put16(tag, ETH_P_VLAN);
		xp_put16(tag + 2, 7);
	}
	xp_put16(room(2), type);
}

/* A client is 10.0.0.FLOW or 2001:db8::FLOW, the server 10.0.1.1 or 2001:db8::101. */
static void put_address(uint8_t *p, uint8_t flow, int server)
{
	static const uint8_t prefix[16] = {0x20, 0x01, 0x0d, 0xb8};

	if (flow & FLOW_IPV6) {
		memcpy(p, prefix, 16);
		xp_put16(p + 14, server ? 0x101 : flow % FLOWS);
	} else {
		put32(p, 0x0a000000u | (server ? 0x101 : flow % FLOWS));
	}
}

/* Put Ethernet and IP before n bytes; return the sum of the pseudo header. */
static uint32_t put_ip(uint8_t flow, int to_server, uint8_t proto, uint32_t n)
{
	uint32_t sum = proto + n;

	if (flow & FLOW_IPV6) {
		uint8_t *ip;

		put_ethernet(flow, ETH_P_IPV6);
		ip = room(40);
		memset(ip, 0, 8);
		ip[0] = 0x60;
		xp_put16(ip + 4, (uint16_t)n);
		ip[6] = proto;
		ip[7] = 64;
		put_address(ip + 8, flow, !to_server);
		put_address(ip + 24, flow, to_server);
		return sum16(sum, ip + 8, 32);
	}
	put_ethernet(flow, ETH_P_IPV4);
	uint8_t *ip = room(20);

	memset(ip, 0, 12);
	ip[0] = 0x45;
	xp_put16(ip + 2, (uint16_t)(20 + n));
	ip[8] = 64;
	ip[9] = proto;
	put_address(ip + 12, flow, !to_server);
	put_address(ip + 16, flow, to_server);
	xp_put16(ip + 10, folded(sum16(0, ip, 20)));
	return sum16(sum, ip + 12, 8);
}

static void put_ports(uint8_t *p, uint8_t flow, int to_server)
{
	uint16_t client = (uint16_t)(40000 + flow % FLOWS);

	xp_put16(p, to_server ? client : (uint16_t)target.port);
	xp_put16(p + 2, to_server ? (uint16_t)target.port : client);
}

static void make_udp(uint8_t flow, int to_server, const uint8_t *body, uint32_t n)
{
	uint32_t sum = put_ip(flow, to_server, PROTO_UDP, 8 + n);
	uint8_t *udp = room(8 + n);

	put_ports(udp, flow, to_server);
	xp_put16(udp + 4, (uint16_t)(8 + n));
	xp_put16(udp + 6, 0);
	memcpy(udp + 8, body, n);
	sum = folded(sum16(sum, udp, 8 + n));
	xp_put16(udp + 6, sum ? (uint16_t)sum : 0xffff);
}

/* A segment that lies `at` bytes from where its direction's stream has come to. */
static void make_tcp(uint8_t flow, int to_server, uint8_t flags, int32_t at, const uint8_t *body,
		     uint32_t n)
{
	uint32_t *next = &next_seq[flow % FLOWS][!to_server];
	uint32_t seq = *next + (uint32_t)at;
	uint32_t end = seq + n + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
	uint32_t sum = put_ip(flow, to_server, PROTO_TCP, 20 + n);
	uint8_t *tcp = room(20 + n);

	memset(tcp, 0, 20);
	put_ports(tcp, flow, to_server);
	put32(tcp + 4, seq);
	put32(tcp + 8, next_seq[flow % FLOWS][to_server]);
	tcp[12] = 0x50;
	tcp[13] = flags;
	xp_put16(tcp + 14, 0xffff);
	memcpy(tcp + 20, body, n);
	xp_put16(tcp + 16, folded(sum16(sum, tcp, 20 + n)));
	if ((int32_t)(end - *next) > 0)
		*next = end;
}

static void make_packet(uint8_t kind, uint8_t flow, const uint8_t *body, uint32_t n)
{
	uint32_t skip = 0;

	switch (kind) {
	case UDP_TO:
	case UDP_FROM:
		make_udp(flow, kind == UDP_TO, body, n);
		return;
	case TCP_TO:
	case TCP_FROM:
		make_tcp(flow, kind == TCP_TO, TCP_PUSH_ACK, 0, body, n);
		return;
	case TCP_TO_AT:
	case TCP_FROM_AT:
		skip = n < 2 ? n : 2;
		make_tcp(flow, kind == TCP_TO_AT, TCP_PUSH_ACK,
			 skip == 2 ? (int16_t)xp_get16(body) : 0, body + skip, n - skip);
		return;
	case TCP_CONTROL:
		skip = n < 2 ? n : 2;
		make_tcp(flow, skip < 2 || !(body[1] & 1), n ? body[0] : TCP_SYN, 0, body + skip,
			 n - skip);
		return;
	case IP_PROTO:
		skip = n < 1 ? n : 1;
		put_ip(flow, 1, n ? body[0] : 0, n - skip);
		break;
	case ETHER_TYPE:
		skip = n < 2 ? n : 2;
		put_ethernet(flow, skip == 2 ? xp_get16(body) : 0);
		break;
	default:
		break;
	}
	memcpy(room(n - skip), body + skip, n - skip);
}

/* Cut a packet into frames; none of them is empty, but for that of an empty packet. */
static void cut(struct fuzz_packet *packet, uint8_t sixteenths)
{
	int32_t at = (int32_t)((int64_t)packet->n * sixteenths / 16);
	int32_t rest = packet->n - at;

	packet->n_pieces = 1;
	packet->piece[0] = packet->n;
	if (at == 0)
		return;
	packet->n_pieces = 2;
	packet->piece[0] = at;
	packet->piece[1] = rest;
	if (sixteenths & 1 && rest > 1) {
		packet->n_pieces = 3;
		packet->piece[1] = rest / 2;
		packet->piece[2] = rest - rest / 2;
	}
}

static void add_record(struct fuzz_input *input, const uint8_t *p, size_t n)
{
	static const uint64_t step_ns[4] = {1000, 1000000, 1000000000, 100000000000};
	struct fuzz_packet *packet = input->packets + input->n;
	uint32_t from = n_made;
	uint8_t kind = 0, flow = 0;

	if (!(input->how & HOW_ONE) && n >= 2) {
		kind = p[0];
		flow = p[1];
		p += 2;
		n -= 2;
	}
	make_packet((kind & 15) % KINDS, flow, p, n < BODY_MAX ? (uint32_t)n : BODY_MAX);
	packet->p = made + from;
	packet->n = (int32_t)(n_made - from);
	packet->time_ns = 1700000000000000000u + input->n * step_ns[(input->how & HOW_TIME) >> 2];
	cut(packet, kind >> 4);
	input->n++;
}

void read_input(const uint8_t *data, size_t size, struct fuzz_input *input)
{
	const uint8_t *end;

	input->n = n_made = 0;
	input->how = HOW_ONE;
	for (uint32_t i = 0; i < FLOWS; i++) /* some begin where the numbers wrap */
		next_seq[i][0] = next_seq[i][1] = i & 1 ? 0xfffffff0u : i * 100000;
	if (size > INPUT_MAX)
		size = INPUT_MAX;
	end = data + size;
	if (size)
		input->how = *data++;
	while (data <= end && input->n < PACKETS) {
		const uint8_t *stop = NULL;

		if (!(input->how & HOW_ONE))
			stop = memmem(data, (size_t)(end - data), separator, sizeof(separator));
		if (!stop)
			stop = end;
		add_record(input, data, (size_t)(stop - data));
		if (stop == end)
			break;
		data = stop + sizeof(separator);
	}
}
