/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of flows: a fixed number of entries in one piece of memory, found by a hash, left by a sweep.
 *
 * Each head is the first of a chain of flows; a flow's entry has the next one's number. There are at
 * least twice as many heads as flows, so a chain has 1.25 entries or so to be looked at, and every entry
 * is usable. Nothing is ever rehashed or moved. The hash is keyed with a secret (flow_hash.c): who does
 * not know it cannot make flows that share a chain.
 *
 * Why a sweep and no list or wheel ordered by time: a packet then touches nothing but its own flow's
 * two cache lines; the memory is passed in the order that the CPU fetches ahead; and there is nothing
 * that a worker killed between two stores could leave linked into a knot. When a flow is over is decided
 * as its next packet comes, not by when the sweep comes by; the sweep only has what is over told
 * and its entry free within about a second.
 *
 * The memory may be a memfd that outlives the worker. What a next one believes of it is only the flows
 * themselves, each with its mark XP_FLOW_USED, written last; chains and the list of free entries it makes anew.
 * A flow that is told is noted before its record is published and until its entry is given back, with
 * the place of the record on the ring: so a next worker knows whether it was told, and no record is
 * lost or doubled.
 */
#include "flow_table.h"
#include "blocks.h"

#define MAGIC 0x31776f6c66707800u
#define PAGE 4096u
#define HEADS_PER_FLOW 2
#define SECOND 1000000000u
#define QUIETEST_OF 8 /* where one must go, the quietest of so many does */

static uint64_t padded(uint64_t bytes, uint64_t to)
{
	return (bytes + to - 1) / to * to;
}

static uint64_t n_heads(const struct xp_flow_options *options)
{
	uint64_t n = 16;

	while (n < (uint64_t)HEADS_PER_FLOW * options->n_flows)
		n *= 2;
	return n;
}

static uint32_t label_stride(const struct xp_flow_options *options)
{
	return (uint32_t)padded(options->n_labels * (1 + options->label_bytes), 8);
}

/* Bytes of memory for so many flows. */
uint64_t xp_flows_bytes(const struct xp_flow_options *options)
{
	uint64_t n = (uint64_t)options->n_flows + 1;

	return padded(padded(sizeof(struct xp_flow_table), PAGE) +
			      n_heads(options) * sizeof(uint32_t) + n * sizeof(struct xp_flow) +
			      n * label_stride(options),
		      PAGE);
}

static uint32_t *head_of(const struct xp_flow_meter_state *s, uint64_t hash)
{
	return s->heads + (hash & s->head_mask);
}

static void link_flow(struct xp_flow_meter_state *s, uint32_t flow, uint64_t hash)
{
	uint32_t *head = head_of(s, hash);

	xp_flow_at(s, flow)->next = *head;
	*head = flow;
}

static void unlink_flow(struct xp_flow_meter_state *s, uint32_t flow)
{
	uint32_t *at = head_of(s, xp_flow_hash(s, &xp_flow_at(s, flow)->key));

	while (*at != flow)
		at = &xp_flow_at(s, *at)->next;
	*at = xp_flow_at(s, flow)->next;
}

static void set_free(struct xp_flow_meter_state *s, uint32_t flow)
{
	xp_flow_at(s, flow)->next = s->table->free;
	s->table->free = flow;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b) < 0 ? b - a : a - b;
}

/*
 * Why a flow is over by now, if it is. One that was seen later than now, by more than the idle timeout, is as
 * much out of date as one that was seen so much earlier: the clock has been set back.
 */
enum xp_flow_end xp_flow_over(const struct xp_flow_meter_state *s, const struct xp_flow *flow)
{
	const struct xp_flow_table *t = s->table;
	uint64_t quiet = apart(t->clock, flow->seen);
	int old = apart(t->clock, flow->begun) >= t->options.active_ns && !xp_flow_is_empty(flow);

	if (flow->state & XP_FLOW_TCP_OVER && (quiet >= t->options.linger_ns || old))
		return XP_FLOW_ENDED;
	if (quiet >= t->options.idle_ns)
		return XP_FLOW_IDLE;
	return old ? XP_FLOW_ACTIVE : XP_FLOW_GOES_ON;
}

/* Why a flow ends that must end now: for what it would end by itself, or for the reason given. */
static enum xp_flow_end ending(const struct xp_flow_meter_state *s, const struct xp_flow *flow,
			       enum xp_flow_end given)
{
	enum xp_flow_end why = xp_flow_over(s, flow);

	if (flow->state & XP_FLOW_TCP_OVER)
		return XP_FLOW_ENDED;
	return why ? why : given;
}

/* Write down what there is to tell of a flow. */
static void put_record(const struct xp_flow_meter_state *s, uint32_t flow, enum xp_flow_end why,
		       uint8_t *out)
{
	const struct xp_flow *f = xp_flow_at(s, flow);
	const struct xp_flow_key *k = &f->key;
	int from_high = f->state & XP_FLOW_FROM_HIGH;
	uint16_t low_port = (uint16_t)k->rest;
	uint16_t high_port = (uint16_t)(k->rest >> XP_KEY_HIGH_PORT);
	struct xp_flow_record r = {
		.sport = from_high ? high_port : low_port,
		.dport = from_high ? low_port : high_port,
		.vlan = k->rest >> XP_KEY_VLAN & 0xfff,
		.ip_version = k->rest >> XP_KEY_V6 & 1 ? 6 : 4,
		.proto = (uint8_t)(k->rest >> XP_KEY_PROTO),
		.tcp_flags = {f->tcp_flags[0], f->tcp_flags[1]},
		.end_reason = (uint8_t)why,
	};

	memcpy(r.src, from_high ? k->high : k->low, sizeof(r.src));
	memcpy(r.dst, from_high ? k->low : k->high, sizeof(r.dst));
	for (int w = 0; w < 2; w++) {
		r.packets[w] = f->way[w].packets;
		r.bytes[w] = f->way[w].bytes;
		r.first_ns[w] = f->way[w].first_ns;
		r.last_ns[w] = f->way[w].last_ns;
	}
	memcpy(out, &r, sizeof(r));
	memcpy(out + sizeof(r), xp_flow_labels(s, flow), s->label_stride);
}

/* What has been told is over: the flow counts from 0 again, or is no more. */
static void settle(struct xp_flow *flow, int keep)
{
	if (!keep) {
		flow->state = 0;
		return;
	}
	memset(flow->way, 0, sizeof(flow->way));
	memset(flow->tcp_flags, 0, sizeof(flow->tcp_flags));
}

/* Put a flow's record on the ring, and settle it; how the two go together is said above. */
static void tell(struct xp_flow_meter_state *s, uint32_t flow, enum xp_flow_end why, int keep)
{
	struct xp_flow_table *t = s->table;
	struct xp_flow *f = xp_flow_at(s, flow);
	uint8_t *out = NULL;

	if (!xp_flow_is_empty(f)) {
		s->counters[XP_FLOW_N_REASONS + why - 1]++;
		if (s->ring) {
			out = xp_blocks_put_record(s->ring, s->record_bytes);
			s->counters[out ? XP_FLOW_N_EXPORTED : XP_FLOW_N_LOST]++;
		}
	}
	if (out) {
		put_record(s, flow, why, out);
		t->exporting_at = s->ring->put - s->record_bytes;
		t->exporting_keeps = (uint32_t)keep;
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		t->exporting = flow;
		xp_blocks_publish(s->ring);
	}
	settle(f, keep);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	t->exporting = 0;
}

/* A flow is over: tell it, and have its entry free. */
static void end_flow(struct xp_flow_meter_state *s, uint32_t flow, enum xp_flow_end why)
{
	tell(s, flow, why, 0);
	unlink_flow(s, flow);
	set_free(s, flow);
	s->table->n_now--;
}

/* Begin a flow in an entry that has its place in a chain. */
static void begin(struct xp_flow_meter_state *s, uint32_t flow)
{
	struct xp_flow *f = xp_flow_at(s, flow);

	memset(f->way, 0, sizeof(f->way));
	memset(f->tcp_flags, 0, sizeof(f->tcp_flags));
	if (s->label_stride)
		memset(xp_flow_labels(s, flow), 0, s->label_stride);
	f->begun = f->seen = s->table->clock;
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* it is there when all of it is */
	f->state = XP_FLOW_USED;
	s->counters[XP_FLOW_N_FLOWS]++;
}

/* A flow whose next packet has come is over: tell it, and begin anew. */
void xp_flow_renew(struct xp_flow_meter_state *s, uint32_t flow, enum xp_flow_end why)
{
	tell(s, flow, why, why == XP_FLOW_ACTIVE);
	if (why != XP_FLOW_ACTIVE)
		begin(s, flow);
}

static void note_top(struct xp_flow_meter_state *s, uint32_t flow)
{
	const struct xp_flow *f = xp_flow_at(s, flow);
	uint64_t bytes = f->way[0].bytes + f->way[1].bytes;
	uint32_t place = XP_FLOW_TOP - 1;

	if (bytes <= s->top_now[place].bytes)
		return;
	for (; place && s->top_now[place - 1].bytes < bytes; place--)
		s->top_now[place] = s->top_now[place - 1];
	s->top_now[place].bytes = bytes;
	s->top_now[place].flow = flow;
}

/*
 * Look at the flow that the sweep has come to. Returns 0, and stays there, where it would have to be
 * told and there is no room for that, unless it is to go all the same.
 */
static int sweep_one(struct xp_flow_meter_state *s, int lose)
{
	struct xp_flow_table *t = s->table;
	struct xp_flow *f;

	if (t->hand >= t->n_ever) {
		memcpy(s->top, s->top_now, sizeof(s->top));
		memset(s->top_now, 0, sizeof(s->top_now));
		t->hand = 0;
		if (!t->n_ever)
			return 0;
	}
	f = xp_flow_at(s, t->hand + 1);
	if (f->state) {
		enum xp_flow_end why = xp_flow_over(s, f);

		if (!why) {
			note_top(s, t->hand + 1);
		} else {
			if (s->ring && !lose && !xp_blocks_have_room(s->ring, s->record_bytes))
				return 0;
			if (why == XP_FLOW_ACTIVE)
				tell(s, t->hand + 1, why, 1); /* and it goes on */
			else
				end_flow(s, t->hand + 1, why);
		}
	}
	t->hand++;
	return 1;
}

/* Pass so many flows that the table is passed once a second by its clock, and `most` at the most. */
void xp_flows_sweep(struct xp_flow_meter_state *s, uint32_t most)
{
	struct xp_flow_table *t = s->table;
	int64_t elapsed = (int64_t)(t->clock - t->swept_at);
	uint64_t due;

	if (elapsed < 0 || !t->n_ever) {
		t->swept_at = t->clock;
		return;
	}
	due = elapsed >= (int64_t)SECOND ? t->n_ever : t->n_ever * (uint64_t)elapsed / SECOND;
	if (!due)
		return;
	if (due >= most || due == t->n_ever) {
		due = due < most ? due : most;
		t->swept_at = t->clock;
	} else {
		t->swept_at += due * SECOND / t->n_ever;
	}
	while (due-- && sweep_one(s, 0))
		;
}

/* Pass the whole table once; where nobody waits for it. */
void xp_flows_sweep_all(struct xp_flow_meter_state *s)
{
	s->table->hand = 0;
	memset(s->top_now, 0, sizeof(s->top_now));
	while (s->table->hand < s->table->n_ever && sweep_one(s, 0))
		;
	memcpy(s->top, s->top_now, sizeof(s->top));
}

/* Have the quietest of the flows that the sweep comes to next go. */
static void evict(struct xp_flow_meter_state *s)
{
	struct xp_flow_table *t = s->table;
	uint32_t n = t->n_ever < QUIETEST_OF ? t->n_ever : QUIETEST_OF;
	uint32_t quietest = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t flow = (t->hand + i) % t->n_ever + 1;

		if (!quietest || apart(t->clock, xp_flow_at(s, flow)->seen) >
					 apart(t->clock, xp_flow_at(s, quietest)->seen))
			quietest = flow;
	}
	t->hand = (t->hand + n) % t->n_ever;
	end_flow(s, quietest, ending(s, xp_flow_at(s, quietest), XP_FLOW_RESOURCES));
}

/*
 * Begin a flow. Where all entries are in use, s->looks of them may be looked at whether they are over
 * meanwhile. 0: there is no room.
 */
uint32_t xp_flow_new(struct xp_flow_meter_state *s, const struct xp_flow_key *key, uint64_t hash)
{
	struct xp_flow_table *t = s->table;
	uint32_t flow;

	if (!t->free && t->n_ever == t->options.n_flows) {
		for (; s->looks && !t->free; s->looks--)
			sweep_one(s, 1);
		if (!t->free && t->options.evict)
			evict(s);
		if (!t->free)
			return 0;
	}
	if (t->free) {
		flow = t->free;
		t->free = xp_flow_at(s, flow)->next;
	} else {
		flow = ++t->n_ever;
	}
	xp_flow_at(s, flow)->key = *key;
	begin(s, flow);
	link_flow(s, flow, hash);
	t->n_now++;
	return flow;
}

/* Forget all chains and the list of free entries; those in use stay as they are. */
static void forget_places(struct xp_flow_meter_state *s)
{
	memset(s->heads, 0, (s->head_mask + 1ull) * sizeof(*s->heads));
	s->table->free = s->table->hand = 0;
}

/* How many entries may be in use, as far as that can be: who has written it may have been hostile. */
static uint32_t n_entries(const struct xp_flow_meter_state *s)
{
	uint32_t n = *(const volatile uint32_t *)&s->table->n_ever;

	return n <= s->options.n_flows ? n : s->options.n_flows;
}

/*
 * End up to n flows that are left, as forced unless they were over anyway; for when no packet comes any
 * more. Returns how many flows are still there: some, where the ring is full or n was too few, and it is
 * to be called again before the table is used for anything else. No chain is followed, so that what
 * a worker has left in one leads nowhere.
 */
uint32_t xp_flows_finish(struct xp_flow_meter_state *s, uint32_t n)
{
	uint32_t end = n_entries(s), left = 0;

	for (uint32_t flow = 1; flow <= end; flow++) {
		const struct xp_flow *f = xp_flow_at(s, flow);

		if (!f->state)
			continue;
		if (!n || (s->ring && !xp_blocks_have_room(s->ring, s->record_bytes))) {
			left++;
			continue;
		}
		tell(s, flow, ending(s, f, XP_FLOW_FORCED), 0);
		n--;
	}
	if (!left) {
		forget_places(s);
		s->table->n_ever = 0;
	}
	s->table->n_now = left;
	return left;
}

uint32_t xp_flows_now(const struct xp_flow_meter_state *s)
{
	return s->table->n_now;
}

/* The record of one of the flows that had the most bytes as the sweep last came by; 0: there is none. */
int xp_flows_read_top(const struct xp_flow_meter_state *s, uint32_t place, uint8_t *record)
{
	const struct xp_flow_top *top = s->top + place;

	if (!top->bytes || !xp_flow_at(s, top->flow)->state)
		return 0;
	put_record(s, top->flow, XP_FLOW_GOES_ON, record);
	return 1;
}

static int is_of(const struct xp_flow_table *t, const struct xp_flow_options *options)
{
	return t->magic == MAGIC && t->options.n_flows == options->n_flows &&
	       t->options.n_labels == options->n_labels &&
	       t->options.label_bytes == options->label_bytes;
}

/* Go on with the flows that another process has left, which may have died anywhere. */
static void adopt(struct xp_flow_meter_state *s)
{
	struct xp_flow_table *t = s->table;
	uint32_t exporting = *(volatile uint32_t *)&t->exporting;

	if (exporting && exporting <= s->options.n_flows && s->ring &&
	    (int64_t)(xp_blocks_produced(s->ring) - t->exporting_at) > 0)
		settle(xp_flow_at(s, exporting), (int)t->exporting_keeps);
	t->exporting = 0;
	forget_places(s);
	t->n_now = 0;
	t->n_ever = n_entries(s);
	for (uint32_t flow = t->n_ever; flow; flow--) {
		struct xp_flow *f = xp_flow_at(s, flow);

		if (f->state & XP_FLOW_USED) {
			link_flow(s, flow, xp_flow_hash(s, &f->key));
			t->n_now++;
		} else {
			f->state = 0;
			set_free(s, flow);
		}
	}
}

/*
 * Lay the table of state->options out in memory: zeroed, or one that was used before, whose flows go on.
 * Returns how many do, or -1: there is too little memory. state->ring is attached before.
 */
int64_t xp_flows_open(struct xp_flow_meter_state *s, void *memory, uint64_t size,
		      const uint8_t key[16])
{
	uint64_t n = (uint64_t)s->options.n_flows + 1;
	uint8_t *at = memory;
	struct xp_flow_table *t = memory;
	int known;

	if (size < xp_flows_bytes(&s->options))
		return -1;
	s->label_stride = label_stride(&s->options);
	s->record_bytes = (uint32_t)sizeof(struct xp_flow_record) + s->label_stride;
	s->head_mask = (uint32_t)(n_heads(&s->options) - 1);
	s->table = t;
	at += padded(sizeof(*t), PAGE);
	s->heads = (uint32_t *)at;
	at += n_heads(&s->options) * sizeof(uint32_t);
	s->flows = (struct xp_flow *)at;
	s->labels = at + n * sizeof(struct xp_flow);
	known = is_of(t, &s->options);
	if (!known)
		memset(t, 0, sizeof(*t));
	t->options = s->options;
	memcpy(t->key, key, sizeof(t->key));
	if (known)
		adopt(s);
	t->magic = MAGIC;
	return t->n_now;
}
