/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Sample: one packet in n, or the packets of one flow in n.
 *
 * Packets: the number that is skipped before each sample is random, so that traffic which comes in a
 * rhythm does not fall into step with it; its mean is n - 1 (RFC 3176, section 2, "Sampling of Switched
 * Flows"). It is evenly drawn from 0 to 2n - 2.
 *
 * Random numbers are SipHash of how many were drawn before, and whether a flow is taken is a question of
 * SipHash of its flow_hash: who does not know the secret cannot keep out of the sample.
 */
#include "sip_hash.h"
#include "stages/sample.h"

/* In the order of Sample.counters in xdpipe/stages/sample.py. */
enum { N_SAMPLED, N_OTHER };

static uint64_t scaled(uint64_t random, uint64_t n)
{
	return (uint64_t)((__uint128_t)random * n >> 64); /* evenly 0 to n - 1 */
}

static uint64_t draw(struct xp_sample_state *s)
{
	uint64_t n = s->n_drawn++;

	return scaled(xp_sip_hash(s->secret, &n, 1), 2 * s->n - 1);
}

static void finish(struct xp_sample_state *s, const struct xp_batch *b, uint32_t n_sampled)
{
	s->counters[N_SAMPLED] += n_sampled;
	s->counters[N_OTHER] += b->n - n_sampled;
}

int xp_stage_sample_packets(struct xp_batch *b, void *state)
{
	struct xp_sample_state *s = state;
	uint32_t n_sampled = 0;

	if (s->n_drawn == 0)
		s->skip = draw(s);
	for (uint32_t i = 0;; i++) {
		uint32_t end = s->skip < b->n - i ? i + (uint32_t)s->skip : b->n;

		s->skip -= end - i;
		if (s->acts_on_others)
			for (; i < end; i++)
				xp_act(b, i, s->other);
		i = end;
		if (i == b->n)
			break;
		s->skip = draw(s);
		xp_act(b, i, s->sampled);
		n_sampled++;
	}
	finish(s, b, n_sampled);
	return 0;
}

int xp_stage_sample_flows(struct xp_batch *b, void *state)
{
	struct xp_sample_state *s = state;
	uint32_t n_sampled = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		uint64_t flow = b->flow_hash[i];
		int sampled = scaled(xp_sip_hash(s->secret, &flow, 1), s->n) == 0;

		n_sampled += (uint32_t)sampled;
		xp_act(b, i, sampled ? s->sampled : s->other);
	}
	finish(s, b, n_sampled);
	return 0;
}
