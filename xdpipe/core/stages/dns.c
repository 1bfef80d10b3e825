/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Dns: which packets carry DNS messages, and what these say, in columns. What a
 * message is, and how far it is looked at, stands in dns_message.c.
 *
 * Over UDP the payload of a packet from or to one of the ports is one message (RFC 1035, 4.2.1).
 * Read is what lies in the packet's first frame, and of a datagram in fragments the first one; the
 * rest is missing, and said to be.
 *
 * Over TCP the messages lie in the streams that TcpStreams makes (dns_stream.c). A packet's columns
 * tell of the first message that ends in it; any others are counted only.
 */
#include "xp.h"
#include "stages/dns.h"
#include "stages/dns_message.h"
#include "stages/dns_stream.h"

#define MDNS 5353
#define PREFETCH_AHEAD 8
#define PREFETCH_MAX 1024 /* bytes of a packet */
#define OPCODE 0x7800
#define N_RCODES 6 /* that have a counter each; all others share one */
#define RARE                                                                                       \
	(XP_DNS_FOUND_TRUNCATED | XP_DNS_FOUND_PARTIAL | XP_DNS_FOUND_TRAILING |                   \
	 XP_DNS_FOUND_MANY_RECORDS | XP_DNS_FOUND_MALFORMED)

/* In the order of Dns.counters in xdpipe/stages/dns.py; behind malformed, one a reason. */
enum { N_MESSAGES, N_QUERIES, N_RESPONSES, N_NOERROR, N_FORMERR, N_SERVFAIL, N_NXDOMAIN, N_NOTIMP,
       N_REFUSED, N_OTHER_RCODE, N_EDNS, N_TRUNCATED, N_PARTIAL, N_TRAILING, N_MANY_RECORDS,
       N_NO_TEXT, N_TCP, N_TCP_UNREAD, N_TCP_STREAMS, N_MALFORMED = N_TCP_STREAMS + N_DNS_TCP };

/* A message, as far as it lies in a row. */
struct message {
	const uint8_t *p;
	int32_t n;
	int32_t len; /* of all of it */
	uint16_t found; /* what is known beforehand */
};

typedef uint16_t ports8 __attribute__((vector_size(2 * XP_DNS_PORTS)));
typedef uint64_t words2 __attribute__((vector_size(16)));

static int is_one_of(const uint16_t *ports, uint16_t a, uint16_t b)
{
	ports8 p;
	words2 found;

	memcpy(&p, ports, sizeof(p));
	found = (words2)((p == a) | (p == b));
	return (found[0] | found[1]) != 0;
}

static void count(uint64_t *n, const struct xp_dns_message *r)
{
	int response = !!(r->found & XP_DNS_FOUND_RESPONSE);
	int code = r->rcode < N_RCODES ? N_NOERROR + r->rcode : N_OTHER_RCODE;

	/* no branch that depends on which way a message goes, or what it has */
	n[N_MESSAGES]++;
	n[N_RESPONSES] += (uint64_t)response;
	n[response ? code : N_QUERIES] += !!(r->found & XP_DNS_FOUND_MESSAGE);
	n[N_EDNS] += !!(r->found & XP_DNS_FOUND_EDNS);
	if (!(r->found & RARE))
		return;
	n[N_TRUNCATED] += !!(r->found & XP_DNS_FOUND_TRUNCATED);
	n[N_PARTIAL] += !!(r->found & XP_DNS_FOUND_PARTIAL);
	n[N_TRAILING] += !!(r->found & XP_DNS_FOUND_TRAILING);
	n[N_MANY_RECORDS] += !!(r->found & XP_DNS_FOUND_MANY_RECORDS);
	if (r->malformed) {
		n[N_MALFORMED]++;
		n[N_MALFORMED + r->malformed]++;
	}
}

/* The columns of bytes last: after a store of a byte all of b has to be loaded again. */
static void store(struct xp_batch *b, uint32_t i, const struct xp_dns_message *r)
{
	b->dns_found[i] = r->found;
	b->dns_id[i] = r->id;
	b->dns_flags[i] = r->flags;
	b->dns_rcode[i] = r->rcode;
	b->dns_n_questions[i] = r->n_questions;
	b->dns_n_answers[i] = r->n_answers;
	b->dns_n_authority[i] = r->n_authority;
	b->dns_n_additional[i] = r->n_additional;
	b->dns_name_hash[i] = r->name_hash;
	b->dns_type[i] = r->type;
	b->dns_class[i] = r->class_;
	b->dns_udp_size[i] = r->udp_size;
	b->dns_edns_flags[i] = r->edns_flags;
	b->dns_malformed[i] = r->malformed;
	b->dns_opcode[i] = r->flags >> 11 & 15;
	b->dns_n_labels[i] = r->n_labels;
	b->dns_edns_version[i] = r->edns_version;
}

static int is_mdns(const struct xp_batch *b, uint32_t i)
{
	return b->l4_sport[i] == MDNS || b->l4_dport[i] == MDNS;
}

static void look_at(struct xp_batch *b, uint32_t i, struct xp_dns_state *s,
		    struct message message, uint8_t *room, struct xp_dns_message *r)
{
	xp_dns_parse(message.p, (uint32_t)message.n, (uint32_t)message.len, room, r);
	r->found |= message.found;
	if (r->n_questions > 1 && !r->malformed && (r->flags & OPCODE) == 0 && !is_mdns(b, i)) {
		r->malformed = XP_DNS_MALFORMED_MANY_QUESTIONS;
		r->found |= XP_DNS_FOUND_MALFORMED;
	}
	count(s->counters, r);
}

/* The message that the columns of packet i tell of. */
static void tell(struct xp_batch *b, uint32_t i, struct xp_dns_state *s, struct message message)
{
	uint8_t *room = xp_text_room(b, XP_DNS_TEXT_ROOM);
	struct xp_dns_message r;

	look_at(b, i, s, message, room ? room : s->scratch, &r);
	store(b, i, &r);
	b->dns_len[i] = message.len;
	if (room) {
		xp_text_t kept = xp_keep_text(b, r.name_at + r.name_len);

		b->dns_name[i].at = kept.at + r.name_at;
		b->dns_name[i].len = r.name_len;
	} else if (r.name_len) {
		s->counters[N_NO_TEXT]++;
	}
}

static void look_at_datagram(struct xp_batch *b, uint32_t i, struct xp_dns_state *s)
{
	int32_t payload = b->payload[i], there = b->head_len[i] - payload;
	struct message message = {.n = b->payload_len[i], .len = b->payload_len[i]};

	if (there < 0)
		return;
	message.p = xp_packet(b, i) + payload;
	if (b->flags[i] & XP_FLAG_FRAGMENT && xp_within(b, i, b->l4[i], 8))
		message.len = xp_get16(xp_packet(b, i) + b->l4[i] + 4) - 8;
	if (message.n > there)
		message.n = there;
	b->dns_n_messages[i] = 1;
	tell(b, i, s, message);
}

static void note_message(struct xp_batch *b, uint32_t i, struct xp_dns_state *s,
			 struct xp_dns_whole whole)
{
	struct message message = {.p = whole.p, .n = (int32_t)whole.n, .len = (int32_t)whole.n,
				  .found = XP_DNS_FOUND_TCP};
	struct xp_dns_message r;

	s->counters[N_TCP]++;
	if (b->dns_n_messages[i] == 0)
		tell(b, i, s, message);
	else
		look_at(b, i, s, message, s->scratch, &r);
	b->dns_n_messages[i] += b->dns_n_messages[i] < UINT16_MAX;
}

/* Its place among the directions of all connections; none, where it is beyond them. */
static uint32_t direction_of(const struct xp_batch *b, uint32_t i)
{
	return b->tcp_stream[i] ? 2 * (b->tcp_stream[i] - 1) + b->tcp_stream_dir[i] : UINT32_MAX;
}

static void look_at_segment(struct xp_batch *b, uint32_t i, struct xp_dns_state *s)
{
	struct xp_dns_streams *streams = s->streams;
	uint32_t direction = direction_of(b, i);
	uint8_t told = b->tcp_stream_told[i];

	if (direction >= streams->n_directions)
		return;
	if (streams->directions[direction].id != b->tcp_stream_id[i] || told & XP_TCP_BEGINS)
		xp_dns_begin(streams, direction, b->tcp_stream_id[i], told & XP_TCP_MIDDLE);
	for (uint32_t k = 0; k < b->tcp_n_pieces[i]; k++) {
		struct xp_piece piece = b->pieces[b->tcp_pieces[i] + k];

		xp_dns_lose(streams, direction, piece.lost);
		while (piece.n) {
			struct xp_dns_whole whole;
			uint32_t used = xp_dns_feed(streams, direction, piece.p, piece.n, &whole);

			if (whole.p)
				note_message(b, i, s, whole);
			piece.p += used;
			piece.n -= used;
		}
	}
	if (told & (XP_TCP_ENDS | XP_TCP_RESET))
		xp_dns_end(streams, direction);
	if (told & XP_TCP_RESET)
		xp_dns_end(streams, direction ^ 1);
}

static int is_dns(const struct xp_batch *b, uint32_t i, const struct xp_dns_state *s)
{
	return b->flags[i] & (XP_FLAG_UDP | XP_FLAG_TCP) &&
	       is_one_of(s->ports, b->l4_dport[i], b->l4_sport[i]);
}

/*
 * Fetch what of packet i Headers has not: what is behind its first cache line. Where one record ends
 * and the next begins is known only from the first, so nothing else fetches them in time.
 */
static void prefetch(const struct xp_batch *b, uint32_t i, const struct xp_dns_state *s)
{
	int32_t end = b->head_len[i] < PREFETCH_MAX ? b->head_len[i] : PREFETCH_MAX;

	for (int32_t at = 64; at < end; at += 64)
		__builtin_prefetch(xp_packet(b, i) + at);
	if (s->streams && b->tcp_stream[i])
		__builtin_prefetch(s->streams->directions + direction_of(b, i));
}

int xp_stage_dns(struct xp_batch *b, void *state)
{
	struct xp_dns_state *s = state;
	uint8_t found[PREFETCH_AHEAD] = {0}; /* which of the packets ahead are DNS */

#define X(name, type, width, writable, by, doc) memset(b->name, 0, sizeof(*b->name) * b->n);
	XP_DNS_COLUMNS(X)
#undef X
	for (uint32_t i = 0; i < b->n + PREFETCH_AHEAD; i++) {
		uint32_t k = i - PREFETCH_AHEAD; /* it was fetched so many packets ago */
		uint8_t *ahead = &found[i % PREFETCH_AHEAD];
		int fetched = *ahead;

		*ahead = i < b->n && is_dns(b, i, s);
		if (*ahead)
			prefetch(b, i, s);
		if (!fetched)
			continue;
		if (b->flags[k] & XP_FLAG_UDP)
			look_at_datagram(b, k, s);
		else if (s->streams)
			look_at_segment(b, k, s);
		else
			s->counters[N_TCP_UNREAD] += b->payload_len[k] > 0;
	}
	return 0;
}
