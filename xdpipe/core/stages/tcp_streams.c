/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage TcpStreams: which bytes of a segment come next in their stream (RFC 9293, 3.4).
 *
 * A table of connections, each with two directions; a direction knows the sequence number that comes
 * next. Bytes that come next are handed on where they lie, in the packet. Bytes that come too early
 * are copied into chunks of a pool and handed on with the packet that fills the gap before them. A gap
 * is given up, and counted, when another packet of its direction comes and
 *   - the other side has acknowledged what lies in it: then it is only here that it is missing;
 *   - as much is kept behind it as may be, or no chunk is free;
 *   - what is behind it has waited for longer than wait_ns.
 *
 * Of bytes that come twice the first count. Nothing is verified: checksums, windows and timestamps
 * (PAWS) are the ends' matter, so a segment that they throw away may be taken for the stream's here.
 * The addresses and ports are the key; the same ones in two VLANs would be one connection.
 */
#include "stages/tcp_table.h"

#define PREFETCH_AHEAD 8
#define CHUNKS_MAX 64        /* that a direction may have kept */
#define WINDOW (1 << 24)     /* what is further from the byte that comes next is not of the stream, */
#define OUTSIDE_MAX 8        /* unless so many come in a row */
#define QUIET_NS 30000000000 /* a connection that nothing came of for so long is quiet */

enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

/* Is sequence number a behind b? (RFC 9293, 3.4: modulo 2**32) */
static int32_t behind(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b);
}

/* Which end of its connection is the source of packet i: 0, the lesser one, or 1. */
static int source_end(const struct xp_batch *b, uint32_t i)
{
	int order = memcmp(b->src + 16 * (size_t)i, b->dst + 16 * (size_t)i, 16);

	if (order)
		return order > 0;
	return b->l4_sport[i] > b->l4_dport[i];
}

/* Begin a connection at this place, as packet i has it. */
static void begin(struct xp_tcp_table *t, const struct xp_batch *b, uint32_t i, uint32_t place,
		  int opener, uint64_t *n)
{
	struct connection *c = connection(t, place);

	memset(c->from, 0, sizeof(c->from));
	c->over = 0;
	c->opener = (uint8_t)opener;
	c->id = ++t->n_begun ? t->n_begun : ++t->n_begun;
	c->seen_ns = b->time_ns[i];
	n[N_CONNECTIONS]++;
}

struct segment {
	struct xp_batch *b;
	struct xp_tcp_table *t;
	uint64_t *n;
	uint32_t i;       /* number of the packet */
	uint32_t place;   /* of its direction */
	struct direction *d;
	uint32_t seq;     /* of its first byte of data */
	int32_t at, len;  /* where that lies in the packet */
	uint8_t told;
};

static void add_piece(struct segment *s, const uint8_t *p, uint32_t n)
{
	struct xp_batch *b = s->b;

	b->pieces[b->n_pieces++] = (struct xp_piece){p, n, s->d->lost};
	b->tcp_n_pieces[s->i]++;
	s->d->lost = 0;
	s->d->next += n;
	s->n[N_BYTES] += n;
}

/* Hand on what was kept and comes next now. Returns 0 where the batch's list has no room for it. */
static int hand_on_kept(struct segment *s)
{
	struct xp_tcp_table *t = s->t;
	struct direction *d = s->d;
	uint32_t place;

	if (!d->held)
		return 1;
	while ((place = d->held) != 0) {
		struct chunk *c = chunk(t, place);
		int32_t had = behind(d->next, c->seq);

		if (had < 0)
			return 1;
		d->held_since_ns = s->b->time_ns[s->i]; /* of the next gap, if there is one */
		/* what is left of the list is for the frames of the packets themselves */
		if (s->b->n_pieces >= XP_PIECES_KEPT * s->b->capacity)
			return 0;
		d->held = c->next;
		d->n_held--;
		if ((uint32_t)had < c->n) {
			add_piece(s, c->bytes + had, c->n - (uint32_t)had);
			c->next = t->handed_on;
			t->handed_on = place;
		} else {
			xp_tcp_free_chunk(t, place);
		}
	}
	xp_tcp_hold_no_more(t, d);
	return 1;
}

/* Hand on the packet's own bytes, of which `had` have come before. */
static void hand_on(struct segment *s, int32_t had)
{
	struct xp_batch *b = s->b;
	int32_t at = s->at + had, end = s->at + s->len;

	b->tcp_data[s->i] = at;
	b->tcp_data_len[s->i] = end - at;
	while (at < end) {
		int32_t run;
		const uint8_t *p = xp_byte(b, s->i, at, &run);

		if (run > end - at)
			run = end - at;
		add_piece(s, p, (uint32_t)run);
		at += run;
	}
}

static void copy_out(const struct segment *s, uint32_t from, uint8_t *out, uint32_t n)
{
	int32_t at = s->at + (int32_t)(from - s->seq);

	while (n) {
		int32_t run;
		const uint8_t *p = xp_byte(s->b, s->i, at, &run);
		uint32_t k = (uint32_t)run < n ? (uint32_t)run : n;

		memcpy(out, p, k);
		out += k;
		at += (int32_t)k;
		n -= k;
	}
}

/*
 * Keep those bytes of a segment that came too early and are not kept yet. Returns 0 where the direction
 * has kept as much as it may, or no chunk is free.
 */
static int keep(struct segment *s)
{
	struct xp_tcp_table *t = s->t;
	struct direction *d = s->d;
	uint32_t *link = &d->held;
	uint32_t from = s->seq, to = s->seq + (uint32_t)s->len;

	while (behind(to, from) > 0) {
		struct chunk *c = *link ? chunk(t, *link) : NULL;
		uint32_t end = c && behind(to, c->seq) > 0 ? c->seq : to;
		uint32_t size, place;
		struct chunk *fresh;

		if (behind(end, from) <= 0) { /* c has them, or lies before them */
			if (behind(c->seq + c->n, from) > 0)
				from = c->seq + c->n;
			link = &c->next;
			continue;
		}
		place = d->n_held < CHUNKS_MAX ? xp_tcp_take_chunk(t, d, s->n) : 0;
		if (!place)
			return 0;
		size = end - from < CHUNK ? end - from : CHUNK;
		fresh = chunk(t, place);
		fresh->seq = from;
		fresh->n = size;
		copy_out(s, from, fresh->bytes, size);
		if (!d->held) {
			xp_tcp_begin_to_hold(t, s->place);
			d->held_since_ns = s->b->time_ns[s->i];
		}
		fresh->next = *link;
		*link = place;
		link = &fresh->next;
		d->n_held++;
		from += size;
	}
	return 1;
}

/* Give up the bytes before `seq`. */
static void give_up(struct segment *s, uint32_t seq)
{
	uint32_t lost = seq - s->d->next;

	if (lost) {
		s->n[N_GAPS]++;
		s->n[N_LOST_BYTES] += lost;
		s->told |= XP_TCP_LOST;
	}
	s->d->lost = s->d->lost + lost < lost ? UINT32_MAX : s->d->lost + lost;
	s->d->next = seq;
}

/* Is the gap before `seq`, behind which bytes have come, not going to be filled? */
static int is_hopeless(const struct segment *s, uint32_t seq)
{
	const struct direction *d = s->d;
	uint64_t now = s->b->time_ns[s->i];

	if (d->is & ACKED && behind(d->acked, seq) >= 0)
		return 1;
	return d->held && now > d->held_since_ns && now - d->held_since_ns > s->t->wait_ns;
}

/* Where the gap ends that the byte that comes next is in: at what is kept, or at this segment. */
static uint32_t gap_ends(const struct segment *s)
{
	const struct direction *d = s->d;
	uint32_t kept;

	if (!d->held)
		return s->seq;
	kept = chunk(s->t, d->held)->seq;
	return s->len && behind(kept, s->seq) > 0 ? s->seq : kept;
}

/* What was kept, with gaps before it that will not be filled. */
static void take_kept(struct segment *s)
{
	while (hand_on_kept(s) && s->d->held && is_hopeless(s, chunk(s->t, s->d->held)->seq) &&
	       gap_ends(s) == chunk(s->t, s->d->held)->seq)
		give_up(s, gap_ends(s));
}

/* The segment's bytes: hand on, keep, or throw away. */
static void take_bytes(struct segment *s)
{
	/* Each round but the last gives up a gap, behind which at least one chunk lies. */
	for (int round = 0; round <= CHUNKS_MAX + 1; round++) {
		int32_t ahead = behind(s->seq, s->d->next);

		if (ahead <= 0) {
			if (ahead < 0) {
				s->told |= XP_TCP_AGAIN;
				s->n[N_AGAIN]++;
			}
			if (ahead + s->len > 0)
				hand_on(s, -ahead);
			hand_on_kept(s);
			return;
		}
		if (!is_hopeless(s, gap_ends(s)) && keep(s)) {
			s->told |= XP_TCP_EARLY;
			s->n[N_EARLY]++;
			return;
		}
		/* where it kept a part, that is handed on, and left out of the rest */
		give_up(s, gap_ends(s));
		if (!hand_on_kept(s))
			break;
	}
	s->n[N_THROWN_AWAY_BYTES] += (uint64_t)s->len;
}

/* A segment far from what is expected: of another connection, forged, or behind a long gap. */
static int is_outside(struct segment *s)
{
	struct direction *d = s->d;
	int32_t ahead = behind(s->seq, d->next);

	if (ahead > -WINDOW && ahead < WINDOW) {
		d->n_outside = 0;
		return 0;
	}
	if (s->len == 0)
		return 1;
	if (++d->n_outside < OUTSIDE_MAX) {
		s->told |= XP_TCP_OUTSIDE;
		s->n[N_OUTSIDE]++;
		return 1;
	}
	xp_tcp_throw_away(s->t, d, s->n);
	d->n_outside = 0;
	d->is &= (uint8_t)~(ENDS | ENDED | ACKED);
	s->n[N_GAPS]++;
	s->told |= XP_TCP_LOST;
	d->lost = UINT32_MAX;
	d->next = s->seq;
	return 0;
}

static void note_ack(struct direction *other, uint32_t ack)
{
	int32_t ahead = behind(ack, other->next);

	if (!(other->is & KNOWN) || ahead <= -WINDOW || ahead >= WINDOW)
		return;
	if (!(other->is & ACKED) || behind(ack, other->acked) > 0)
		other->acked = ack;
	other->is |= ACKED;
}

static void end_if_all_came(struct segment *s, struct connection *c)
{
	struct direction *d = s->d;

	if ((d->is & (ENDS | ENDED)) != ENDS || behind(d->next, d->last) < 0)
		return;
	d->is |= ENDED;
	s->told |= XP_TCP_ENDS;
	if (c->from[0].is & c->from[1].is & ENDED && !c->over) {
		xp_tcp_over(s->t, s->place / 2);
		s->n[N_ENDED]++;
	}
}

/*
 * Does the packet begin a connection anew in the place of one with the same ends? A SYN does, if it is
 * not the one that was there, and that one is over, was never answered, or is quiet. Into one that is
 * under way anybody may send a SYN (RFC 5961, 4), and nothing becomes of it.
 */
static int begins_anew(const struct xp_tcp_table *t, const struct connection *c,
		       const struct direction *d, const struct segment *s, uint8_t flags)
{
	uint64_t now = s->b->time_ns[s->i];
	uint64_t quiet_ns = now > c->seen_ns ? now - c->seen_ns : 0;

	if (quiet_ns > t->idle_ns)
		return 1;
	if (!(flags & TCP_SYN) || flags & TCP_ACK || !(d->is & KNOWN) || d->first == s->seq + 1)
		return 0;
	return c->over || !(c->from[0].is & c->from[1].is & KNOWN) || quiet_ns > QUIET_NS;
}

static void take_segment(struct xp_batch *b, struct xp_tcp_table *t, uint32_t i, uint32_t hash,
			 uint64_t *n)
{
	uint8_t flags = b->tcp_flags[i];
	const uint8_t *tcp = xp_packet(b, i) + b->l4[i];
	struct segment s = {.b = b, .t = t, .n = n, .i = i, .seq = xp_get32(tcp + 4),
			    .at = b->payload[i], .len = b->payload_len[i]};
	int end = source_end(b, i);
	uint32_t place = xp_tcp_find(t, b, i, hash, end);
	/* without a SYN: the port of the end that was connected to tends to be the lower one */
	int lower = b->l4_sport[i] < b->l4_dport[i];
	int opener = flags & TCP_SYN ? end ^ !!(flags & TCP_ACK) : end ^ lower;
	struct connection *c;
	int fresh = 0;

	if (!place) {
		if (flags & TCP_RST || (s.len == 0 && !(flags & TCP_SYN)))
			return; /* nothing to follow */
		place = xp_tcp_add(t, b, i, hash, end, n);
		begin(t, b, i, place, opener, n);
		fresh = 1;
	}
	c = connection(t, place);
	s.d = &c->from[end];
	if (!fresh && begins_anew(t, c, s.d, &s, flags)) {
		xp_tcp_throw_away(t, &c->from[0], n);
		xp_tcp_throw_away(t, &c->from[1], n);
		begin(t, b, i, place, opener, n);
	}
	if (b->time_ns[i] > c->seen_ns)
		c->seen_ns = b->time_ns[i];
	s.place = 2 * place + (uint32_t)end;
	b->tcp_stream[i] = place;
	b->tcp_stream_id[i] = c->id;
	b->tcp_stream_dir[i] = end != c->opener;
	if (flags & TCP_ACK)
		note_ack(&c->from[!end], xp_get32(tcp + 8));
	if (flags & TCP_SYN) {
		s.seq++;
		if (s.d->is & KNOWN && s.d->first == s.seq)
			s.told |= XP_TCP_AGAIN;
	}
	if (!(s.d->is & KNOWN) && (flags & TCP_SYN || s.len)) {
		s.d->is = KNOWN;
		s.d->first = s.d->next = s.seq;
		s.told |= XP_TCP_BEGINS;
		if (!(flags & TCP_SYN)) {
			s.told |= XP_TCP_MIDDLE;
			n[N_MIDDLE]++;
		}
	}
	/* who refuses a connection has sent nothing before */
	if (flags & TCP_RST || s.d->is & KNOWN) {
		if (s.d->is & KNOWN && is_outside(&s)) {
			b->tcp_stream_told[i] = s.told;
			return;
		}
		if (flags & TCP_RST) {
			xp_tcp_throw_away(t, &c->from[0], n);
			xp_tcp_throw_away(t, &c->from[1], n);
			s.told |= XP_TCP_RESET;
			n[N_RESET] += !c->over;
			xp_tcp_over(t, place);
		} else {
			take_kept(&s);
			if (s.len)
				take_bytes(&s);
			if (flags & TCP_FIN && !(s.d->is & ENDS)) {
				s.d->last = s.seq + (uint32_t)s.len;
				s.d->is |= ENDS;
			}
			end_if_all_came(&s, c);
		}
	}
	b->tcp_stream_told[i] = s.told;
}

static int is_segment(const struct xp_batch *b, uint32_t i)
{
	return (b->flags[i] & (XP_FLAG_TCP | XP_FLAG_FRAGMENT | XP_FLAG_MALFORMED)) == XP_FLAG_TCP;
}

int xp_stage_tcp_streams(struct xp_batch *b, void *state)
{
	struct xp_tcp_streams_state *s = state;
	struct xp_tcp_table *t = s->table;
	uint32_t hashes[PREFETCH_AHEAD];

	while (t->handed_on) {
		uint32_t place = t->handed_on;

		t->handed_on = chunk(t, place)->next;
		xp_tcp_free_chunk(t, place);
	}
	b->n_pieces = 0;
	for (uint32_t i = 0; i < b->n + PREFETCH_AHEAD; i++) {
		uint32_t k = i - PREFETCH_AHEAD;

		/* a packet's place in the table is looked for PREFETCH_AHEAD before it is used */
		if (i >= PREFETCH_AHEAD) {
			b->tcp_stream[k] = b->tcp_stream_id[k] = 0;
			b->tcp_stream_dir[k] = b->tcp_stream_told[k] = 0;
			b->tcp_data[k] = XP_ABSENT;
			b->tcp_data_len[k] = 0;
			b->tcp_pieces[k] = b->n_pieces;
			b->tcp_n_pieces[k] = 0;
			if (is_segment(b, k))
				take_segment(b, t, k, hashes[k % PREFETCH_AHEAD], s->counters);
			else if ((b->flags[k] & XP_FLAG_TCP) && (b->flags[k] & XP_FLAG_FRAGMENT))
				s->counters[N_FRAGMENTS]++;
		}
		if (i < b->n && is_segment(b, i)) {
			uint32_t hash = xp_tcp_hash(t, b, i);

			hashes[i % PREFETCH_AHEAD] = hash;
			__builtin_prefetch(&t->buckets[hash & t->mask]);
		}
		if (i >= PREFETCH_AHEAD / 2 && i - PREFETCH_AHEAD / 2 < b->n) {
			k = i - PREFETCH_AHEAD / 2;
			if (is_segment(b, k)) {
				uint32_t place = t->buckets[hashes[k % PREFETCH_AHEAD] & t->mask];

				if (place) {
					__builtin_prefetch(connection(t, place));
					__builtin_prefetch((char *)connection(t, place) + 64);
				}
			}
		}
	}
	return 0;
}
