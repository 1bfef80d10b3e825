/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stamp by which a packet that was sent is known again where it arrives: what run it is of, its number,
 * when it was sent. The last 18 bytes of what UDP, TCP or an ICMP echo carries, in network byte order:
 *
 *    0      2      4        5                    10                       16     18
 *   +------+------+--------+--------------------+------------------------+------+
 *   | magic| run  | stream | number             | time                   | fix  |
 *   +------+------+--------+--------------------+------------------------+------+
 *
 *   magic   0x7850
 *   run     chosen at random by who sends
 *   stream  which of the run's senders, each of which counts for itself and shares nothing
 *   number  from 0 on, of the packet in its stream: 2^40, a day at 10 million a second
 *   time    CLOCK_REALTIME in ns, its low 48 bits: 3 days; the clock that two hosts can have in common,
 *           and that a batch's time of arrival is read from
 *   fix     makes the sum of the nine words 0xffff in one's complement, which is 0 there (RFC 1071)
 *
 * 18 bytes, since that is what a UDP packet over IPv4 carries in the shortest Ethernet frame, which RFC 2544
 * (9.1) has measured. At the end, since what looks into packets on the way (a DNS parser, a filter for the
 * first bytes of a payload) mostly looks at the beginning; and since the last bytes are found by the IP
 * header's length alone, even by a tcpdump filter.
 *
 * A sum of 0 at any place, also across words, adds nothing to a checksum over it. So TCP's, UDP's or ICMP's is
 * made right once, when the stamp is placed, and stays right whatever numbers and times are written
 * afterwards. What arrives is told from other payload by magic and sum, 32 bits: one random packet in 4
 * billion passes for stamped.
 */
#ifndef XP_TRAFFIC_PROBE_H
#define XP_TRAFFIC_PROBE_H

#include "checksum.h"
#include "xp_batch.h"

#define XP_PROBE_TIME_BITS 48

/* cdef begin */
enum xp_probe_layout {
	XP_PROBE_SIZE = 18,
	XP_PROBE_MAGIC = 0x7850,
	XP_PROBE_NUMBER_BITS = 40, /* seq = stream << XP_PROBE_NUMBER_BITS | number */
	XP_PROBE_STREAMS = 256,
};
struct xp_probe {
	uint16_t run;
	uint8_t stream;
	uint64_t number;
	uint64_t time; /* 48 bits */
};
uint32_t xp_probe_place(struct xp_batch *b, uint32_t i, uint16_t run);
uint32_t xp_probe_place_all(struct xp_batch *b, uint16_t run, uint32_t *at);
void xp_probe_write(uint8_t *packet, uint32_t at, uint64_t seq, uint64_t time_ns);
int xp_probe_read(const uint8_t *stamp, struct xp_probe *probe);
/* cdef end */

static inline uint64_t xp_probe_sum(const uint8_t *stamp, uint32_t size)
{
	uint64_t sum = 0;
	uint32_t word;
	uint16_t half;

	for (; size >= 4; size -= 4, stamp += 4) {
		memcpy(&word, stamp, 4);
		sum += word;
	}
	if (size) {
		memcpy(&half, stamp, 2);
		sum += half;
	}
	return sum;
}

/* Put the bytes of v in network order. */
static inline uint64_t xp_probe_big64(uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

/*
 * Write number and time into the stamp that was placed at `at` (xp_probe_place; not 0). For who sends: a few
 * ns. The packet's checksums stay right.
 *
 * packet: its first byte; it may be a copy of the one that the stamp was placed in.
 * seq: stream << XP_PROBE_NUMBER_BITS | number; numbers go on from loop to loop.
 * time_ns: CLOCK_REALTIME.
 */
static inline void xp_probe_stamp(uint8_t *packet, uint32_t at, uint64_t seq, uint64_t time_ns)
{
	uint8_t *stamp = packet + at;
	uint64_t first = xp_probe_big64(seq << 16 | (time_ns >> 32 & 0xffff));
	uint64_t last = xp_probe_big64(time_ns << 32);
	uint16_t fix;

	memcpy(stamp + 4, &first, 8);
	memcpy(stamp + 12, &last, 4); /* the first four are time's low word */
	fix = (uint16_t)~xp_fold(xp_probe_sum(stamp, XP_PROBE_SIZE - 2));
	memcpy(stamp + XP_PROBE_SIZE - 2, &fix, 2);
}

/* How long ago a stamp was written: ns; negative: the clocks disagree, or it is older than 1.6 days. */
static inline int64_t xp_probe_age(uint64_t now_ns, uint64_t time)
{
	return (int64_t)((now_ns - time) << (64 - XP_PROBE_TIME_BITS)) >> (64 - XP_PROBE_TIME_BITS);
}

#endif
