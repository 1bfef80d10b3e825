/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets made of templates, as fast as they are copied: a template's bytes, the values of the variations
 * in their places, the lengths, and the checksums over it all.
 *
 * A checksum (RFC 1071) is ~ of a sum of 16-bit words, in any order: what a template has that never
 * changes was summed up before (`base`), and what is written adds to that. A value that is written at
 * an odd byte of the words adds with its bytes swapped (RFC 1071, 2 B). So nothing is read again, and the
 * sum is 0 only if all words are 0, as where it is computed over the packet.
 *
 * Which packet is which depends on its number alone: one may begin anywhere (xp_craft_seek).
 */
#include "traffic/craft.h"

#include <string.h>

static uint32_t fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint32_t)((sum >> 16) + (sum & 0xffff));
}

static void put64(uint8_t *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	memcpy(p, &v, sizeof(v));
}

static void add(uint64_t *sums, const struct xp_craft_link *links, uint32_t n, uint32_t word)
{
	for (uint32_t k = 0; k < n; k++)
		sums[links[k].sum] += links[k].swapped ? __builtin_bswap16((uint16_t)word) : word;
}

/* The finalizer of splitmix64 (Steele, Lea and Flood 2014): each bit depends on all. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/*
 * The place of x in an order of [0, n) that looks random: a Feistel network over the next power of 4,
 * gone through again while what comes out is beyond n (Black and Rogaway 2002), four times at the most
 * on average. n is at most 2^62.
 */
static uint64_t permute(uint64_t n, uint64_t key, uint64_t x)
{
	uint32_t half;
	uint64_t mask;

	if (n < 2)
		return 0;
	half = (65 - (uint32_t)__builtin_clzll(n - 1)) / 2;
	mask = ((uint64_t)1 << half) - 1;
	do {
		uint64_t left = x >> half, right = x & mask;

		for (uint64_t round = 1; round <= 4; round++) {
			uint64_t next = left ^ (mix(right + key + round * 0x9e3779b97f4a7c15u) & mask);

			left = right;
			right = next;
		}
		x = left << half | right;
	} while (x >= n);
	return x;
}

/* A number below n (0: 2^64), by where in [0, 2^64) the bits lie. */
static uint64_t below(uint64_t n, uint64_t bits)
{
	return n ? (uint64_t)((unsigned __int128)bits * n >> 64) : bits;
}

static void seek_axis(struct xp_craft_axis *a, uint64_t number)
{
	a->at = (number % a->n + number / a->period % a->shifts) % a->n;
	a->left = a->period - number % a->period;
}

static void step_axis(struct xp_craft_axis *a, uint64_t number)
{
	if (--a->left == 0) {
		seek_axis(a, number);
		return;
	}
	if (++a->at == a->n)
		a->at = 0;
}

/* Find where each variation is, of those that do not just step. */
static void settle(struct xp_craft *c)
{
	const struct xp_craft_axis *last = NULL;
	uint64_t at = 0;

	for (uint32_t k = 0; k < c->n_variations; k++) {
		struct xp_craft_variation *v = &c->variations[k];
		const struct xp_craft_axis *a = &c->axes[v->axis];

		if (v->kind == XP_CRAFT_NOISE) {
			v->index = c->flow;
		} else if (!a->shuffled) {
			v->index = a->at;
		} else if (a->too_many) {
			v->index = below(v->n, mix(mix(c->seed + v->key) ^ mix(c->flow)));
		} else {
			if (a != last)
				at = permute(a->n, a->key, a->at);
			last = a;
			v->index = at / v->divisor % v->n;
		}
	}
}

static void seek_flow(struct xp_craft *c, uint64_t flow)
{
	c->flow = flow;
	for (uint32_t k = 0; k < c->n_axes; k++)
		seek_axis(&c->axes[k], flow);
	settle(c);
}

static void step(struct xp_craft *c)
{
	c->packet++;
	step_axis(&c->turn, c->packet);
	if (c->sizes)
		step_axis(&c->size, c->packet);
	if (++c->held < c->hold)
		return;
	c->held = 0;
	if (++c->flow == c->n_flows) {
		seek_flow(c, 0);
		return;
	}
	for (uint32_t k = 0; k < c->n_axes; k++)
		step_axis(&c->axes[k], c->flow);
	settle(c);
}

/* Go to a packet by its number, from 0. */
void xp_craft_seek(struct xp_craft *c, uint64_t packet)
{
	c->packet = packet;
	c->held = packet % c->hold;
	seek_axis(&c->turn, packet);
	if (c->sizes)
		seek_axis(&c->size, packet);
	seek_flow(c, packet / c->hold % c->n_flows);
}

static uint64_t value(const struct xp_craft *c, const struct xp_craft_place *place)
{
	const struct xp_craft_variation *v = &c->variations[place->variation];

	if (v->kind == XP_CRAFT_RANGE)
		return v->start + v->step * v->index;
	if (v->kind == XP_CRAFT_TABLE)
		return v->table[v->index * v->words + place->word];
	return mix(mix(c->seed + v->key + ((uint64_t)place->word << 32)) ^ mix(v->index));
}

static const struct xp_craft_template *choose(struct xp_craft *c)
{
	uint32_t number = c->turns[c->turn.at];
	struct xp_craft_member *member = &c->members[number];
	const uint32_t *moves = c->choices + (uint64_t)number * c->n_variations;
	uint64_t at = member->template;

	member->n_made++;
	for (uint32_t k = 0; k < c->n_variations; k++)
		if (moves[k])
			at += c->variations[k].index * moves[k];
	return &c->templates[at];
}

/* Write a packet, with so many zeros behind the template's bytes. */
static void make(const struct xp_craft *c, const struct xp_craft_template *t, uint32_t more, uint8_t *p)
{
	uint64_t sums[XP_CRAFT_SUMS];

	memcpy(p, t->data, t->len);
	if (more)
		memset(p + t->len, 0, more);
	for (uint32_t k = 0; k < t->n_sums; k++)
		sums[k] = t->sums[k].base + (uint64_t)t->sums[k].weight * more;
	for (uint32_t k = 0; k < t->n_places; k++) {
		const struct xp_craft_place *place = &t->places[k];
		uint64_t bits = value(c, place) << place->shift & place->mask;

		put64(p + place->at, (xp_get64(p + place->at) & ~place->mask) | bits);
		add(sums, t->links + place->link, place->n_links, fold(bits));
	}
	for (uint32_t k = 0; more && k < t->n_lengths; k++)
		xp_put16(p + t->lengths[k].at, (uint16_t)(t->lengths[k].was + more));
	for (uint32_t k = 0; k < t->n_sums; k++) {
		const struct xp_craft_sum *sum = &t->sums[k];
		uint16_t is = (uint16_t)~fold(sums[k]);

		if (is == 0 && sum->never_zero)
			is = 0xffff;
		xp_put16(p + sum->at, is);
		add(sums, t->links + sum->link, sum->n_links, is);
	}
}

/*
 * Fill the batch with the next packets, at most so many, one behind the other from its base, each with
 * XP_HEADROOM before it, until it or its memory is full. Returns how many there are.
 */
uint32_t xp_craft(struct xp_craft *c, struct xp_batch *b, uint64_t most)
{
	uint64_t at = 0;

	b->n_text = 0;
	for (b->n = 0; b->n < b->capacity && b->n < most; b->n++) {
		uint32_t i = b->n;
		const struct xp_craft_template *t;
		uint32_t more = 0, len;

		/* whose turn it is is counted, so look for room for the longest before */
		if (b->size - at < XP_HEADROOM + 65664 + XP_CRAFT_SLACK)
			break;
		t = choose(c);
		if (c->sizes) {
			uint64_t number = c->size.shuffled ? permute(c->size.n, c->size.key, c->size.at)
							   : c->size.at;

			if (c->sizes[number] < t->len)
				c->n_longer++;
			else
				more = c->sizes[number] - t->len;
		}
		at += XP_HEADROOM;
		len = t->len + more;
		make(c, t, more, b->base + at);
		b->addr[i] = at;
		b->headroom[i] = XP_HEADROOM;
		b->len[i] = b->head_len[i] = (int32_t)len;
		b->n_frames[i] = 1;
		b->time_ns[i] = c->time_ns + (uint64_t)((double)c->packet * c->gap_ns);
		b->verdict[i] = XP_UNDECIDED;
		b->mark[i] = 0;
		c->n_bytes += len;
		at += (len + XP_CRAFT_SLACK + 63) / 64 * 64;
		step(c);
	}
	return b->n;
}
