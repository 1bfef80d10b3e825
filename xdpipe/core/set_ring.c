/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys for sets of addresses, on their way from a worker, which may not write the kernel's maps, to
 * the supervisor, which may. A ring in memory that both have: one producer, one consumer, as AF_XDP's
 * rings are (ring.h). A full one loses keys, which are counted: nobody waits.
 */
#include <string.h>
#include <time.h>

#include "frames.h"

#define RECENT 1024            /* keys that a worker remembers having handed over */
#define AGAIN_NS 100000000ull /* for so long it does not do it again */

struct xp_set_ring {
	_Alignas(64) uint64_t producer; /* the worker's */
	uint64_t lost;                  /* likewise */
	_Alignas(64) uint64_t consumer; /* the supervisor's */
	_Alignas(64) struct xp_set_key keys[XP_SET_RING];
};

struct xp_set_recent {
	struct {
		struct xp_set_key key;
		uint64_t at_ns;
	} keys[RECENT];
};

uint64_t xp_set_ring_bytes(void)
{
	return sizeof(struct xp_set_ring);
}

uint64_t xp_set_recent_bytes(void)
{
	return sizeof(struct xp_set_recent);
}

uint64_t xp_set_ring_lost(const void *memory)
{
	return ((const volatile struct xp_set_ring *)memory)->lost;
}

/* Whether a key was handed over just before; from now on it was. */
static int known(struct xp_set_recent *recent, const struct xp_set_key *key, uint64_t now)
{
	uint64_t words[sizeof(*key) / 8], hash = 0;

	memcpy(words, key, sizeof(*key));
	for (uint32_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull;
	hash = hash >> 32 & (RECENT - 1);
	if (!memcmp(&recent->keys[hash].key, key, sizeof(*key)) &&
	    now - recent->keys[hash].at_ns < AGAIN_NS)
		return 1;
	recent->keys[hash].key = *key;
	recent->keys[hash].at_ns = now;
	return 0;
}

/* Clear what is behind the first `length` bits of an address. */
static void cut(uint8_t address[16], uint32_t length)
{
	if (length >= 128)
		return;
	address[length / 8] &= (uint8_t)(0xff00 >> length % 8);
	memset(address + length / 8 + 1, 0, 15 - length / 8);
}

static int is_mapped(const uint8_t *address)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(address, prefix, sizeof(prefix));
}

/*
 * Hand n addresses of 16 bytes over for a set, cut to prefixes of length4 bits (IPv4: 96 to 128, those
 * of ::ffff:0:0/96 counted) or length6. Those that were handed over just before are left out. Returns
 * how many are on the ring now that were not.
 */
uint32_t xp_set_ring_put(void *memory, void *recent, uint32_t set, const uint8_t *addresses,
			 uint32_t n, uint32_t length4, uint32_t length6)
{
	struct xp_set_ring *ring = memory;
	/* pairs with the release in xp_set_ring_take: what was read may be overwritten */
	uint64_t room = XP_SET_RING - (ring->producer -
				       __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE));
	uint64_t now = now_ns(CLOCK_MONOTONIC);
	uint32_t put = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct xp_set_key key = {.set = set};

		memcpy(key.address, addresses + 16 * i, 16);
		key.length = is_mapped(key.address) ? length4 : length6;
		cut(key.address, key.length);
		if (known(recent, &key, now))
			continue;
		if (put == room) {
			ring->lost++;
			continue;
		}
		ring->keys[(ring->producer + put++) % XP_SET_RING] = key;
	}
	/* pairs with the acquire in xp_set_ring_take */
	__atomic_store_n(&ring->producer, ring->producer + put, __ATOMIC_RELEASE);
	return put;
}

/* Take up to n keys from the ring. Returns how many. The worker may be hostile: look at each. */
uint32_t xp_set_ring_take(void *memory, struct xp_set_key *keys, uint32_t n)
{
	struct xp_set_ring *ring = memory;
	uint64_t first = ring->consumer;
	/* pairs with the release in xp_set_ring_put */
	uint64_t there = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE) - first;

	if (there > XP_SET_RING)
		there = XP_SET_RING;
	if (there < n)
		n = (uint32_t)there;
	for (uint32_t i = 0; i < n; i++)
		keys[i] = ring->keys[(first + i) % XP_SET_RING];
	__atomic_store_n(&ring->consumer, first + n, __ATOMIC_RELEASE);
	return n;
}
