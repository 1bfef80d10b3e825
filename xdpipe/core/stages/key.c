/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of packets, made of columns, and their hashes. */
#include "sip_hash.h"
#include "xp.h"
#include "stages/key.h"

#define TEXT_IS_LONG 255

/* `size` is a constant at each call: one move a packet. */
static inline __attribute__((always_inline)) void copy_values(const struct xp_keys *keys,
							       const uint8_t *column, uint8_t *out,
							       uint32_t step, uint32_t size)
{
	for (uint32_t k = 0; k < keys->n; k++, out += step)
		memcpy(out, column + (size_t)keys->packets[k] * size, size);
}

static void put_values(const struct xp_keys *keys, const uint8_t *column, uint8_t *out,
		       uint32_t step, uint32_t size)
{
	switch (size) {
	case 1:
		copy_values(keys, column, out, step, 1);
		break;
	case 2:
		copy_values(keys, column, out, step, 2);
		break;
	case 4:
		copy_values(keys, column, out, step, 4);
		break;
	case 8:
		copy_values(keys, column, out, step, 8);
		break;
	case 16:
		copy_values(keys, column, out, step, 16);
		break;
	default:
		copy_values(keys, column, out, step, size);
	}
}

static void put_addresses(const struct xp_keys *keys, const uint8_t *column, uint8_t *out,
			  uint32_t step, const struct xp_key_part *part)
{
	static const uint8_t ipv4[8] = {0, 0, 0, 0, 0, 0, 0xff, 0xff};
	uint64_t mapped;

	memcpy(&mapped, ipv4, 8);
	for (uint32_t k = 0; k < keys->n; k++, out += step) {
		const uint64_t *mask;
		uint64_t address[2], middle;

		memcpy(address, column + (size_t)keys->packets[k] * 16, 16);
		memcpy(&middle, column + (size_t)keys->packets[k] * 16 + 4, 8);
		mask = !address[0] && middle == mapped ? part->mask4 : part->mask6;
		address[0] &= mask[0];
		address[1] &= mask[1];
		memcpy(out, address, 16);
	}
}

static void put_texts(const struct xp_keys *keys, const struct xp_batch *b,
		      const struct xp_key *key, uint8_t *out, const struct xp_key_part *part)
{
	const xp_text_t *texts = xp_batch_column((struct xp_batch *)b, part->column);
	uint32_t room = part->size - 1;

	for (uint32_t k = 0; k < keys->n; k++, out += key->n_words * 8) {
		xp_text_t text = texts[keys->packets[k]];
		const uint8_t *p = b->texts + text.at;
		uint64_t hash;

		if ((uint64_t)text.at + text.len > b->text_capacity)
			text.len = 0; /* no stage has written it */
		if (text.len <= room) {
			out[0] = (uint8_t)text.len;
			if (text.len)
				memcpy(out + 1, p, text.len);
			continue;
		}
		out[0] = TEXT_IS_LONG;
		memcpy(out + 1, p, room - 8);
		hash = xp_sip_hash_bytes(key->secret, p, text.len);
		memcpy(out + 1 + room - 8, &hash, 8);
	}
}

/* Which end is the lower one matters to nobody, as long as it is the same for both directions. */
static void put_flows(const struct xp_keys *keys, const struct xp_batch *b, uint8_t *out,
		      uint32_t step)
{
	for (uint32_t k = 0; k < keys->n; k++, out += step) {
		uint32_t i = keys->packets[k];
		uint64_t src[2], dst[2];
		uint16_t sport = b->l4_sport[i], dport = b->l4_dport[i];
		int swapped;

		memcpy(src, b->src + 16 * (size_t)i, 16);
		memcpy(dst, b->dst + 16 * (size_t)i, 16);
		if (src[1] != dst[1])
			swapped = src[1] > dst[1];
		else if (src[0] != dst[0])
			swapped = src[0] > dst[0];
		else
			swapped = sport > dport;
		memcpy(out, swapped ? dst : src, 16);
		memcpy(out + 16, swapped ? src : dst, 16);
		memcpy(out + 32, swapped ? &dport : &sport, 2);
		memcpy(out + 34, swapped ? &sport : &dport, 2);
		out[36] = b->ip_proto[i];
	}
}

static inline __attribute__((always_inline)) void hash_words(const struct xp_key *key,
							      struct xp_keys *keys, uint32_t n_words)
{
	for (uint32_t k = 0; k < keys->n; k++)
		keys->hashes[k] =
			(uint32_t)xp_sip_hash(key->secret, keys->words + k * n_words, n_words);
}

static void hash_keys(const struct xp_key *key, struct xp_keys *keys)
{
	switch (key->n_words) {
	case 1:
		hash_words(key, keys, 1);
		break;
	case 2:
		hash_words(key, keys, 2);
		break;
	case 5:
		hash_words(key, keys, 5);
		break;
	default:
		hash_words(key, keys, key->n_words);
	}
}

/* First the chains, then the entries that they begin with: by then the chains are there. */
static void fetch(const struct xp_table *table, const struct xp_keys *keys)
{
	for (uint32_t k = 0; k < keys->n; k++)
		__builtin_prefetch(table->chains + (keys->hashes[k] & table->mask));
	for (uint32_t k = 0; k < keys->n; k++) {
		uint32_t number = table->chains[keys->hashes[k] & table->mask];
		const uint8_t *entry = (uint8_t *)xp_table_entry(table, number);

		__builtin_prefetch(entry);
		if (table->stride > 64)
			__builtin_prefetch(entry + 64);
	}
}

void xp_make_keys(const struct xp_key *key, const struct xp_batch *b, const struct xp_table *table,
		  struct xp_keys *keys)
{
	uint32_t step = key->n_words * 8;

	memset(keys->words, 0, (size_t)keys->n * step);
	for (const struct xp_key_part *part = key->parts; part < key->parts + key->n_parts; part++) {
		const uint8_t *column = xp_batch_column((struct xp_batch *)b, part->column);
		uint8_t *out = (uint8_t *)keys->words + part->at;

		switch (part->kind) {
		case XP_KEY_VALUE:
			put_values(keys, column, out, step, part->size);
			break;
		case XP_KEY_ADDRESS:
			put_addresses(keys, column, out, step, part);
			break;
		case XP_KEY_TEXT:
			put_texts(keys, b, key, out, part);
			break;
		case XP_KEY_FLOW:
			put_flows(keys, b, out, step);
			break;
		}
	}
	hash_keys(key, keys);
	fetch(table, keys);
}
