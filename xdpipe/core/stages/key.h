/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, made of columns, and a table of what is kept by key, in memory that never grows.
 *
 * A key is one to eight words of 8 bytes: the values of its parts one behind the other, as they
 * stand in their columns, the rest 0. Keys are hashed with a secret that each stage has of its own: who
 * sends packets cannot choose them so that their keys fall together.
 *
 * A table has `capacity` entries in an array and four times as many chains or more, which hold the
 * entries' numbers. No chain grows longer than XP_CHAIN_MAX entries. That one would is not to be
 * expected: with all entries in use a key finds 16 in its chain with the probability
 * 0.25^16 / 16! / e^0.25, some 1e-23.
 */
#ifndef XP_STAGE_KEY_H
#define XP_STAGE_KEY_H

#include "xp_batch.h"

#define XP_KEY_WORDS 8
#define XP_KEY_PARTS 16
#define XP_KEYS 64 /* are made at a time, so that what a table holds of them is fetched meanwhile */
#define XP_CHAIN_MAX 16

/* cdef begin */
enum xp_key_kind {
	XP_KEY_VALUE,	/* of a column, as it stands there */
	XP_KEY_ADDRESS, /* 16 bytes of a column, the bits of a prefix left */
	XP_KEY_TEXT,	/* length, bytes; a longer one: 255, as many bytes, a hash of the whole */
	XP_KEY_FLOW,	/* addresses, ports and protocol; the same for both directions: 37 bytes */
};

struct xp_key_part {
	uint32_t kind;
	uint32_t column; /* number in xp_columns */
	uint32_t at;	 /* offset in the key */
	uint32_t size;	 /* bytes in the key */
	uint64_t mask4[2]; /* of an address: bits that are left of ::ffff:0:0/96, which is IPv4, */
	uint64_t mask6[2]; /* and of others */
};

struct xp_key {
	uint64_t secret[2];
	uint32_t n_words;
	uint32_t n_parts;
	struct xp_key_part parts[16]; /* XP_KEY_PARTS */
};

/* What each entry of a table begins with. */
struct xp_entry {
	uint32_t next; /* in its chain; 0: none */
	uint32_t hash;
};

struct xp_table {
	uint32_t *chains;  /* number of the first entry of each; 0: none */
	uint8_t *entries;  /* number k is at k * stride; 0 is none */
	uint32_t mask;	   /* number of chains - 1, a power of two */
	uint32_t capacity; /* entries, without number 0 */
	uint32_t n_used;   /* numbers 1 to n_used are or were in use */
	uint32_t stride;   /* bytes of an entry */
	uint32_t key_at;   /* offset of the key in an entry */
	uint32_t n_words;  /* of a key */
};
/* cdef end */

/* Keys of some packets of a batch, one behind the other. */
struct xp_keys {
	uint32_t n;
	uint32_t packets[XP_KEYS];
	uint32_t hashes[XP_KEYS];
	uint64_t words[XP_KEYS * XP_KEY_WORDS];
};

/* Make the keys of keys->n packets of the batch, keys->packets; have the table's lines fetched. */
void xp_make_keys(const struct xp_key *key, const struct xp_batch *b, const struct xp_table *table,
		  struct xp_keys *keys);

static inline struct xp_entry *xp_table_entry(const struct xp_table *t, uint32_t number)
{
	return (struct xp_entry *)(t->entries + (uint64_t)number * t->stride);
}

static inline uint64_t *xp_entry_key(const struct xp_table *t, struct xp_entry *entry)
{
	return (uint64_t *)((uint8_t *)entry + t->key_at);
}

static inline int xp_same_key(const uint64_t *a, const uint64_t *b, uint32_t n_words)
{
	uint64_t different = 0;

	for (uint32_t i = 0; i < n_words; i++)
		different |= a[i] ^ b[i];
	return !different;
}

/* The number of a key's entry; 0: it has none, and *room says whether its chain may take one. */
static inline uint32_t xp_table_find(const struct xp_table *t, const uint64_t *words, uint32_t hash,
				     int *room)
{
	uint32_t number = t->chains[hash & t->mask];
	uint32_t n = 0;

	while (number) {
		struct xp_entry *entry = xp_table_entry(t, number);

		if (entry->hash == hash && xp_same_key(xp_entry_key(t, entry), words, t->n_words))
			return number;
		number = entry->next;
		n++;
	}
	*room = n < XP_CHAIN_MAX;
	return 0;
}

/* Give an entry that is in no chain this key, and put it into the key's chain, which has room. */
static inline void xp_table_put(struct xp_table *t, uint32_t number, const uint64_t *words,
				uint32_t hash)
{
	struct xp_entry *entry = xp_table_entry(t, number);
	uint32_t *chain = t->chains + (hash & t->mask);
	uint64_t *key = xp_entry_key(t, entry);

	for (uint32_t i = 0; i < t->n_words; i++)
		key[i] = words[i];
	entry->hash = hash;
	entry->next = *chain;
	*chain = number;
}

/* Take an entry out of its chain. */
static inline void xp_table_take_out(struct xp_table *t, uint32_t number)
{
	struct xp_entry *entry = xp_table_entry(t, number);
	uint32_t *from = t->chains + (entry->hash & t->mask);

	while (*from != number)
		from = &xp_table_entry(t, *from)->next;
	*from = entry->next;
}

#endif
