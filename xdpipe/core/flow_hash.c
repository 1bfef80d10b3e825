/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of a flow's key: SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
 * 2012), a pseudo-random function of a secret key of 128 bits, as hash tables of Rust and Python use it
 * against those who choose what goes into them.
 */
#include "flow_table.h"

static uint64_t rotl(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
}

/*
 * SipHash-1-3 of a key: of its three words that are not the same for all of IPv4, or of all five. How
 * many those are stands in the last of them, which is what the block with the length is for elsewhere.
 */
uint64_t xp_flow_hash(const struct xp_flow_meter_state *s, const struct xp_flow_key *key)
{
	uint64_t k0 = s->table->key[0], k1 = s->table->key[1];
	uint64_t v[4] = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du,
			 k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u};

	if (key->rest >> XP_KEY_V6 & 1) {
		sip_word(v, key->low[0]);
		sip_word(v, key->high[0]);
	}
	sip_word(v, key->low[1]);
	sip_word(v, key->high[1]);
	sip_word(v, key->rest);
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
