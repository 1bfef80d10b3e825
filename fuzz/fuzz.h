/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fuzzers' driver: packets from an input, through a chain of native stages, and what must hold
 * afterwards. One program for all targets; targets.py has the table of them.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "xp.h"

#define PACKETS 64	  /* of an input at the most */
#define PIECES 3	  /* frames of a packet at the most */
#define ROWS_BEYOND 3	  /* of a batch, which must not be written */
#define STAGES 8	  /* of a chain */
#define COLUMNS 256	  /* that a batch may have */
#define COUNTERS 160	  /* that a stage may have of its own */
#define INPUT_MAX 32768	  /* bytes of an input that are looked at */
#define TINY_TEXTS 48	  /* bytes of texts where room for them is short */

/* Bits of an input's first byte, `how`. */
#define HOW_BATCH 0x03	  /* packets in a batch: 1, 2, 5, all */
#define HOW_TIME 0x0c	  /* between two packets: 1 us, 1 ms, 1 s, 100 s */
#define HOW_ONE 0x10	  /* all the rest is one packet in one frame */
#define HOW_TINY 0x20	  /* hardly any room for texts */
#define HOW_DECIDED 0x40  /* every second packet has been dropped by an earlier stage */
#define HOW_PARTIAL 0x80  /* checksums may not be filled in */

/* Print what does not hold and end; libFuzzer then keeps the input. */
#define DEMAND(holds, ...)                                                                         \
	do {                                                                                       \
		if (!(holds))                                                                      \
			broken(__VA_ARGS__);                                                       \
	} while (0)

__attribute__((format(printf, 1, 2), noreturn)) void broken(const char *format, ...);

/* A packet of an input: n bytes at p, in frames of piece[0], piece[1], ... bytes. */
struct fuzz_packet {
	const uint8_t *p;
	int32_t n;
	int32_t piece[PIECES];
	uint32_t n_pieces;
	uint64_t time_ns;
};

struct fuzz_input {
	struct fuzz_packet packets[PACKETS];
	uint32_t n;
	uint8_t how;
};

struct fuzz_stage {
	char name[64];
	xp_stage_fn *run;
	void *state;
	uint64_t *counts; /* its own */
	char counters[COUNTERS][64];
	uint32_t n_counters;
	uint8_t provides[COLUMNS];
};

/* What a target's image says (image.py writes it). */
struct fuzz_target {
	char name[64];
	struct fuzz_stage stages[STAGES];
	uint32_t n_stages;
	uint8_t filled[COLUMNS]; /* columns that one of the stages provides */
	unsigned int port;	 /* of the server in packets that input.c makes */
	unsigned int headroom;	 /* bytes before a packet that stages may use */
	unsigned int rewrites;	 /* stages change packets; else no byte may change */
	unsigned int by_batch;	 /* what is said may depend on where batches end */
	unsigned int many_faults; /* stages may count several faults of a packet */
};

extern struct fuzz_target target;

/* What a run said of each packet, by column, as digests; and the stages' counters. */
struct fuzz_said {
	uint64_t columns[PACKETS][COLUMNS];
	uint64_t bytes[PACKETS];
	uint64_t counts[STAGES][COUNTERS];
};

/* target.c */
void load_target(const char *path);
void reset_target(void);

/* input.c */
void read_input(const uint8_t *data, size_t size, struct fuzz_input *input);

/* lay.c */
extern struct xp_batch *batch;
extern uint32_t piece_capacity; /* of the batch */
void make_batch(void);
void lay_batch(const struct fuzz_input *input, uint32_t first, uint32_t n, uint8_t fill);
void free_packets(void);

/* check.c */
void prepare_checks(void);
void note_verdicts(void);
void check_stage(const struct fuzz_stage *stage, uint32_t first);
void check_rows_beyond(uint8_t fill);
void forget_malformed(void);
void check_malformed(const struct fuzz_stage *stage);

/* said.c */
void prepare_said(void);
void note_bytes(struct fuzz_said *said, uint32_t first);
void note_said(struct fuzz_said *said, uint32_t first);
void note_counts(struct fuzz_said *said);
void compare_said(const struct fuzz_said *a, const struct fuzz_said *b, uint32_t n);

/* sums.c */
void note_sums(void);
void check_sums(uint32_t first);

static inline uint64_t digest(uint64_t hash, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t word;

	for (; n >= sizeof(word); p += sizeof(word), n -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
		hash ^= hash >> 32;
	}
	for (; n; p++, n--)
		hash = (hash ^ *p) * 0x100000001b3u;
	return hash ^ hash >> 29;
}

#define DIGEST 0xcbf29ce484222325u

#endif
