/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage FlowMeter: packets and bytes of flows, both directions in one (RFC 5103). What a flow
 * is, and what becomes of it, is in flow_table.c; here is what a packet adds to it.
 *
 * A flow is what has the same two ends (address and port), protocol, and outer VLAN id. Who sends its
 * first packet is the initiator. Its bytes are those of IP, header and payload, as its length fields say
 * (octetDeltaCount, IANA 1), Ethernet and its padding excluded. ICMP and ICMPv6 have type << 8 | code for
 * ports, as in NetFlow v9 (IANA 32, 139); of a question, such as an echo request, the other end's
 * is the answer's, so that both are one flow. Later fragments have no ports: 0 and 0.
 *
 * A batch is gone through in groups: first all keys and their heads are fetched, then the first
 * flow of each head, then they are counted; so that what is not in the cache is waited for once a group.
 */
#include "flow_table.h"

#define AHEAD 16	/* a packet's key is made so many packets before it is counted; */
#define HEAD_CAME 5	/* so many behind that, the head of its chain has been fetched, */
#define FIRST_CAME 10	/* and the first flow of that */
#define SWEEP_MOST 8192 /* flows that the sweep passes in one batch, some 30 us, */
#define IDLE_SWEEP_MOST 65536 /* and when no packet came */

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

/* What a packet is to be counted by. */
struct packet {
	struct xp_flow_key key;
	uint64_t hash;
	uint32_t number;   /* in the batch */
	uint8_t metered;   /* it is to be */
	uint8_t from_high; /* the high end sent it */
};

/* The type that answers, or that this one answers; or the same, where there is no such pair. */
static uint8_t counterpart(int v6, uint8_t type)
{
	static const uint8_t pairs4[][2] = {{8, 0}, {10, 9}, {13, 14}, {15, 16}, {17, 18}};
	static const uint8_t pairs6[][2] = {{128, 129}, {130, 131}, {133, 134},
					    {135, 136}, {139, 140}, {144, 145}};
	const uint8_t(*pairs)[2] = v6 ? pairs6 : pairs4;
	size_t n = v6 ? sizeof(pairs6) / sizeof(*pairs6) : sizeof(pairs4) / sizeof(*pairs4);

	for (size_t i = 0; i < n; i++) {
		if (pairs[i][0] == type)
			return pairs[i][1];
		if (pairs[i][1] == type)
			return pairs[i][0];
	}
	return type;
}

static int is_less(const uint64_t a[2], const uint64_t b[2])
{
	return a[0] != b[0] ? a[0] < b[0] : a[1] < b[1];
}

/* Make the key of packet i. Returns 0 if it is not metered, and counts why. */
static int make_key(const struct xp_flow_meter_state *s, const struct xp_batch *b, uint32_t i,
		    struct packet *out)
{
	uint64_t src[2], dst[2], sport = b->l4_sport[i], dport = b->l4_dport[i], rest;
	int v6 = b->ip_version[i] == 6;

	if (b->ip_version[i] == 0 || b->malformed[i]) {
		s->counters[b->malformed[i] ? XP_FLOW_N_MALFORMED : XP_FLOW_N_OTHER]++;
		return 0;
	}
	if (b->flags[i] & (XP_FLAG_ICMP | XP_FLAG_ICMP6)) {
		sport = (uint64_t)b->icmp_type[i] << 8 | b->icmp_code[i];
		dport = (uint64_t)counterpart(v6, b->icmp_type[i]) << 8 | b->icmp_code[i];
	}
	memcpy(src, b->src + 16 * (size_t)i, sizeof(src));
	memcpy(dst, b->dst + 16 * (size_t)i, sizeof(dst));
	rest = (uint64_t)v6 << XP_KEY_V6 | (uint64_t)b->ip_proto[i] << XP_KEY_PROTO;
	if (s->options.by_vlan)
		rest |= (b->vlan_tci[2 * (size_t)i] & 0xfffull) << XP_KEY_VLAN;
	out->number = i;
	out->from_high = is_less(dst, src) || (!is_less(src, dst) && dport < sport);
	if (out->from_high) {
		memcpy(out->key.low, dst, sizeof(dst));
		memcpy(out->key.high, src, sizeof(src));
		out->key.rest = rest | sport << XP_KEY_HIGH_PORT | dport;
	} else {
		memcpy(out->key.low, src, sizeof(src));
		memcpy(out->key.high, dst, sizeof(dst));
		out->key.rest = rest | dport << XP_KEY_HIGH_PORT | sport;
	}
	out->hash = xp_flow_hash(s, &out->key);
	return 1;
}

/* Bytes of IP: total length (RFC 791), or 40 and payload length (RFC 8200). */
static uint64_t ip_bytes(const struct xp_batch *b, uint32_t i)
{
	const uint8_t *p = xp_packet(b, i) + b->l3[i];

	if (!xp_within(b, i, b->l3[i], 20))
		return 0; /* Headers has seen them */
	return b->ip_version[i] == 4 ? xp_get16(p + 2) : 40u + xp_get16(p + 4);
}

static int is_same(const struct xp_flow_key *a, const struct xp_flow_key *b)
{
	return ((a->low[1] ^ b->low[1]) | (a->high[1] ^ b->high[1]) | (a->rest ^ b->rest) |
		(a->low[0] ^ b->low[0]) | (a->high[0] ^ b->high[0])) == 0;
}

static uint32_t *head_of(const struct xp_flow_meter_state *s, uint64_t hash)
{
	return s->heads + (hash & s->head_mask);
}

/* Have both cache lines of a flow fetched. */
static void fetch(const struct xp_flow_meter_state *s, uint32_t flow)
{
	const uint8_t *f = (const uint8_t *)xp_flow_at(s, flow);

	__builtin_prefetch(f, 1);
	__builtin_prefetch(f + 64, 1);
}

/* The head has come: fetch the first flow of the chain. */
static void fetch_first(const struct xp_flow_meter_state *s, const struct packet *packet)
{
	if (packet->metered)
		fetch(s, *head_of(s, packet->hash));
}

/* That has come, too: if it is another one, fetch the next. */
static void fetch_next(const struct xp_flow_meter_state *s, const struct packet *packet)
{
	const struct xp_flow *f;

	if (!packet->metered)
		return;
	f = xp_flow_at(s, *head_of(s, packet->hash));
	if (!is_same(&f->key, &packet->key))
		fetch(s, f->next);
}

static uint32_t find(const struct xp_flow_meter_state *s, const struct packet *packet)
{
	uint32_t flow = *head_of(s, packet->hash);

	while (flow && !is_same(&xp_flow_at(s, flow)->key, &packet->key))
		flow = xp_flow_at(s, flow)->next;
	return flow;
}

/* Have both sides said FIN? */
static int has_both_fins(const struct xp_flow *f)
{
	return (f->state & (XP_FLOW_FIN | XP_FLOW_FIN << 1)) == (XP_FLOW_FIN | XP_FLOW_FIN << 1);
}

/* See whether TCP ends the flow: RST, or FIN of both and an ACK behind them (RFC 9293, 3.6). */
static void note_tcp(struct xp_flow *f, int way, uint8_t flags)
{
	int both = has_both_fins(f);

	f->tcp_flags[way] |= flags;
	if (flags & TCP_RST)
		f->state |= XP_FLOW_TCP_OVER;
	if (flags & TCP_FIN && !both) {
		f->state |= (uint8_t)(XP_FLOW_FIN << way);
		if (has_both_fins(f) && way)
			f->state |= XP_FLOW_LAST_FIN;
	}
	if (both && flags & TCP_ACK && way == !(f->state & XP_FLOW_LAST_FIN))
		f->state |= XP_FLOW_TCP_OVER;
}

/* Keep the texts that the flow has none of yet. */
static void note_labels(const struct xp_flow_meter_state *s, const struct xp_batch *b, uint32_t i,
			uint32_t flow)
{
	for (uint32_t l = 0; l < s->options.n_labels; l++) {
		const xp_text_t *column;
		xp_text_t text;
		uint8_t *label;

		memcpy(&column, (const uint8_t *)b + s->label_field[l], sizeof(column));
		text = column[i];
		if (!text.len || text.at > b->n_text || text.len > b->n_text - text.at)
			continue;
		label = xp_flow_labels(s, flow) + l * (1 + s->options.label_bytes);
		if (label[0])
			continue;
		if (text.len > s->options.label_bytes)
			text.len = s->options.label_bytes;
		memcpy(label + 1, b->texts + text.at, text.len);
		label[0] = (uint8_t)text.len;
	}
}

/* A packet that there is no room for. Flows are told apart as far as there are marks for them. */
static void refuse(struct xp_flow_meter_state *s, uint64_t hash)
{
	uint32_t mark = (uint32_t)(hash >> 32) | 1;
	uint32_t *place = s->refused + hash % XP_FLOW_REFUSED;

	s->counters[XP_FLOW_N_NO_ROOM_FLOWS] += *place != mark;
	*place = mark;
	s->counters[XP_FLOW_N_NO_ROOM]++;
}

/* Find the flow of a packet, or begin it; 0: there is no room. */
static uint32_t flow_of(struct xp_flow_meter_state *s, const struct packet *packet,
			uint8_t tcp_flags)
{
	uint32_t flow = find(s, packet);
	struct xp_flow *f;
	enum xp_flow_end why;

	if (flow) {
		f = xp_flow_at(s, flow);
		why = xp_flow_over(s, f);
		if ((tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
		    (f->state & XP_FLOW_TCP_OVER || has_both_fins(f)) && s->options.linger_ns)
			why = XP_FLOW_ENDED;
		if (!why)
			return flow;
		xp_flow_renew(s, flow, why);
		if (why == XP_FLOW_ACTIVE)
			return flow;
	} else {
		flow = xp_flow_new(s, &packet->key, packet->hash);
		if (!flow)
			return 0;
		f = xp_flow_at(s, flow);
	}
	if (packet->from_high)
		f->state |= XP_FLOW_FROM_HIGH;
	return flow;
}

static void meter(struct xp_flow_meter_state *s, const struct xp_batch *b,
		  const struct packet *packet)
{
	struct xp_flow_table *t = s->table;
	uint32_t i = packet->number, flow;
	uint64_t now = b->time_ns[i];
	struct xp_flow_way *w;
	struct xp_flow *f;
	int way;

	if ((int64_t)(now - t->clock) > 0)
		t->clock = now;
	flow = flow_of(s, packet, b->tcp_flags[i]);
	if (!flow) {
		refuse(s, packet->hash);
		return;
	}
	f = xp_flow_at(s, flow);
	way = packet->from_high != !!(f->state & XP_FLOW_FROM_HIGH);
	w = f->way + way;
	if (xp_flow_is_empty(f))
		f->begun = t->clock;
	if (w->packets == 0)
		w->first_ns = w->last_ns = now;
	else if ((int64_t)(now - w->last_ns) > 0)
		w->last_ns = now;
	else if ((int64_t)(now - w->first_ns) < 0)
		w->first_ns = now;
	w->packets++;
	w->bytes += ip_bytes(b, i);
	f->seen = t->clock;
	if (b->flags[i] & XP_FLAG_TCP) {
		if (s->options.linger_ns)
			note_tcp(f, way, b->tcp_flags[i]);
		else
			f->tcp_flags[way] |= b->tcp_flags[i];
	}
	if (s->options.n_labels)
		note_labels(s, b, i, flow);
	s->counters[XP_FLOW_N_METERED]++;
}

/*
 * The clock goes on as packets come (meter), or by itself while none come. If all of a batch is older than
 * it, by more than any delay explains, it has been set back.
 */
static void look_at_clock(struct xp_flow_table *t, const struct xp_batch *b)
{
	uint64_t newest = b->n ? b->time_ns[0] : b->now_ns;

	for (uint32_t i = 1; i < b->n; i++)
		if ((int64_t)(b->time_ns[i] - newest) > 0)
			newest = b->time_ns[i];
	if (!t->n_ever && b->n)
		t->clock = b->time_ns[0];
	else if ((int64_t)(t->clock - newest) >= (int64_t)t->options.idle_ns)
		t->clock = newest;
	else if (!b->n && (int64_t)(newest - t->clock) > 0)
		t->clock = newest;
}

int xp_stage_flow_meter(struct xp_batch *b, void *state)
{
	struct xp_flow_meter_state *s = state;
	struct packet ahead[AHEAD];

	if (b->n || b->now_ns)
		look_at_clock(s->table, b);
	s->looks = SWEEP_MOST;
	for (uint32_t i = 0; i < b->n + AHEAD; i++) {
		struct packet *packet = ahead + i % AHEAD;

		if (i >= AHEAD && packet->metered)
			meter(s, b, packet);
		packet->metered = i < b->n && make_key(s, b, i, packet);
		if (packet->metered)
			__builtin_prefetch(head_of(s, packet->hash));
		if (i >= HEAD_CAME)
			fetch_first(s, ahead + (i - HEAD_CAME) % AHEAD);
		if (i >= FIRST_CAME)
			fetch_next(s, ahead + (i - FIRST_CAME) % AHEAD);
	}
	xp_flows_sweep(s, b->n ? SWEEP_MOST : IDLE_SWEEP_MOST);
	return 0;
}
