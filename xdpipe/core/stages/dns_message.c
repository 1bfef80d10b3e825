/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DNS message: its header, its first question, and the records behind, for EDNS.
 *
 *   header    id 2, flags 2, QDCOUNT 2, ANCOUNT 2, NSCOUNT 2, ARCOUNT 2      RFC 1035, 4.1.1
 *             flags: QR 1 bit, opcode 4, AA, TC, RD, RA, Z, AD, CD, RCODE 4  RFC 4035, 3
 *   question  name, type 2, class 2                                          RFC 1035, 4.1.2
 *   record    name, type 2, class 2, TTL 4, length 2, data                   RFC 1035, 4.1.3
 *   name      labels of 1 to 63 bytes, each behind its length, to one of 0   RFC 1035, 3.1
 *             or to a pointer, 11 and 14 bits, to a name earlier in the      RFC 1035, 4.1.4
 *             message; 255 bytes at the most
 *   OPT       a record of type 41 in the additional section: name 0, class   RFC 6891, 6.1
 *             UDP size, TTL RCODE's upper 8 bits, version 8, flags 16, data
 *             code 2, length 2, option, ...
 *
 * The first question's name has nothing before it that it could point to, so it is read as it
 * stands, and any pointer in it is a fault. All other names are passed over: a pointer in them
 * must go backwards, what it points to is not looked at. Nor are the records' data, but OPT's, and
 * what stands behind the last record: DSO's TLVs (RFC 8490), for one.
 */
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "xp.h"
#include "stages/dns_message.h"

#define HEADER 12
#define NAME_MAX 255
#define LABEL_MAX 63
#define TYPE_OPT 41

/* 16 bytes in a row, and the two words that they are where the byte order is little-endian. */
typedef int8_t bytes16 __attribute__((vector_size(16)));
typedef uint64_t words2 __attribute__((vector_size(16)));

static uint64_t word(bytes16 v, int which)
{
	uint64_t w = ((words2)v)[which];

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	w = __builtin_bswap64(w);
#endif
	return w;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Letters in lower case (RFC 4343). The lengths of labels, 63 at the most, are no letters. */
static bytes16 lower_case(bytes16 v)
{
	return v | (((v > '@') & (v < '[')) & 0x20);
}

/* -1 for each byte that stands otherwise in a text. */
static bytes16 odd_bytes(bytes16 v)
{
	return (v < '!') | (v == 0x7f) | (v == '.') | (v == '\\'); /* from 0x80 on they are < 0 */
}

/* Bit i: byte i has its highest bit set. */
static uint32_t high_bits(bytes16 v)
{
#ifdef __SSE2__
	return (uint32_t)_mm_movemask_epi8((__m128i)v);
#else
	const uint64_t high = 0x8080808080808080u, gather = 0x0002040810204081u;

	return (uint32_t)((word(v, 0) & high) * gather >> 56 |
			  (word(v, 1) & high) * gather >> 56 << 8);
#endif
}

/* The n bytes at p, 16 at the most, and zeros behind them; p + n has 16 readable bytes before it. */
static bytes16 load(const uint8_t *p, int32_t n)
{
	bytes16 v = {0};

	if (n >= 16) {
		memcpy(&v, p, 16);
	} else if (n > 0) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		__uint128_t w;

		memcpy(&w, p + n - 16, 16);
		w >>= 8 * (16 - n);
		v = (bytes16)(words2){(uint64_t)w, (uint64_t)(w >> 64)};
#else
		memcpy(&v, p, n);
#endif
	}
	return v;
}

/*
 * A name is hashed as it stands in a message, in lower case, 32 bytes at a time, with zeros behind
 * it. k0 and k2 have capital letters, which are not among what they are combined with: no
 * multiplication by 0, which would forget.
 */
static const uint64_t k0 = 0x5a4f4e4c59434153u, k1 = 0x9e3779b97f4a7c15u, k2 = 0x4f504c4b49474542u,
		      k3 = 0xc2b2ae3d27d4eb4fu;

static uint64_t hash_more(uint64_t h, bytes16 a, bytes16 b)
{
	uint64_t x = fold(word(a, 0) ^ k0, word(a, 1) ^ h ^ k1);
	uint64_t y = fold(word(b, 0) ^ k2, word(b, 1) ^ h ^ k3);

	return fold(x ^ k1, y ^ k3);
}

/* The hash of a name of n <= 255 bytes, in lower or upper case. */
uint64_t xp_dns_name_hash(const uint8_t *name, uint32_t n)
{
	uint8_t copy[256] = {0};
	uint64_t h = 0;

	memcpy(copy, name, n);
	for (uint32_t at = 0; at < n; at += 32) {
		bytes16 a, b;

		memcpy(&a, copy + at, 16);
		memcpy(&b, copy + at + 16, 16);
		h = hash_more(h, lower_case(a), lower_case(b));
	}
	return h;
}

static uint32_t escape(const uint8_t *name, uint8_t *out)
{
	uint8_t *o = out;

	for (uint32_t size = *name++; size; size = *name++) {
		if (o != out)
			*o++ = '.';
		for (; size; size--) {
			uint8_t c = *name++;

			if (c >= 'A' && c <= 'Z')
				c |= 0x20;
			if (c > ' ' && c < 0x7f && c != '.' && c != '\\') {
				*o++ = c;
			} else {
				*o++ = '\\';
				*o++ = (uint8_t)('0' + c / 100);
				*o++ = (uint8_t)('0' + c / 10 % 10);
				*o++ = (uint8_t)('0' + c % 10);
			}
		}
	}
	return (uint32_t)(o - out);
}

/* What is wrong with a byte of a name that begins no label and does not end it, or 0. */
static uint8_t check_pointer(const uint8_t *m, int32_t n, int32_t at, int32_t start)
{
	int32_t to;

	if (m[at] < 0xc0)
		return XP_DNS_MALFORMED_LABEL_TYPE;
	if (n - at < 2)
		return XP_DNS_MALFORMED_NAME_SHORT;
	to = xp_get16(m + at) & 0x3fff;
	if (to > at)
		return XP_DNS_MALFORMED_POINTER_AHEAD;
	if (to >= start)
		return XP_DNS_MALFORMED_POINTER_LOOP;
	return to < HEADER ? XP_DNS_MALFORMED_POINTER_HEADER : 0;
}

/* Move *at over a name behind the first. */
static uint8_t pass_name(const uint8_t *m, int32_t n, int32_t *at)
{
	int32_t start = *at;

	/* most are but a pointer, and that goes back to somewhere behind the header */
	if (n - start >= 2 &&
	    (uint32_t)(xp_get16(m + start) - (0xc000 + HEADER)) < (uint32_t)(start - HEADER)) {
		*at = start + 2;
		return 0;
	}
	for (int32_t here = start; here < n; here += 1 + m[here]) {
		if (here - start >= NAME_MAX)
			return XP_DNS_MALFORMED_NAME_LONG;
		if (m[here] > LABEL_MAX) {
			*at = here + 2;
			return check_pointer(m, n, here, start);
		}
		if (m[here] == 0) {
			*at = here + 1;
			return 0;
		}
	}
	return XP_DNS_MALFORMED_NAME_SHORT;
}

/*
 * The first question's name, if it is one of the ordinary sort: all of it is there, and the bytes
 * that are odd are just the lengths of its labels, each of less than 33 bytes. Returns its size, else
 * 0, and then `room` has anything in it.
 *
 * So its end is the first 0, and the lengths are found many at a time; each is seen to be the
 * distance to the next. A walk from length to length would have to wait for each of them.
 */
static int32_t ordinary_name(const uint8_t *name, int32_t n, uint8_t *room,
			     struct xp_dns_message *r)
{
	static const bytes16 count = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	uint64_t h = 0;
	int32_t size = 0, next = 0, wrong = 0;
	uint8_t n_lengths = 0;

	for (int32_t at = 0; size == 0; at += 32) {
		bytes16 a, b, odd_a, odd_b;
		uint32_t zeros, lengths;

		if (at >= NAME_MAX)
			return 0;
		a = load(name + at, n - at);
		b = load(name + at + 16, n - at - 16);
		zeros = high_bits(a == 0) | high_bits(b == 0) << 16;
		odd_a = odd_bytes(a);
		odd_b = odd_bytes(b);
		lengths = high_bits(odd_a) | high_bits(odd_b) << 16;
		if (zeros) {
			int8_t end = (int8_t)(__builtin_ctz(zeros) + 1);

			size = at + end;
			if (size > n || size > NAME_MAX)
				return 0;
			a &= count < end;
			b &= count + 16 < end;
			lengths &= zeros ^ (zeros - 1); /* up to the first 0 */
		}
		a = lower_case(a);
		b = lower_case(b);
		h = hash_more(h, a, b);
		a = (a & ~odd_a) | ('.' & odd_a);
		b = (b & ~odd_b) | ('.' & odd_b);
		memcpy(room + at, &a, 16);
		memcpy(room + at + 16, &b, 16);
		for (; lengths; lengths &= lengths - 1) {
			int32_t here = at + __builtin_ctz(lengths);

			wrong |= here ^ next;
			next = here + 1 + name[here];
			n_lengths++;
		}
	}
	if (wrong)
		return 0;
	r->name_hash = h;
	r->n_labels = n_lengths - 1;
	/* a dot stands where a length did: between labels, and before the first */
	r->name_at = size > 1;
	r->name_len = (uint32_t)(size > 1 ? size - 2 : 1);
	return size;
}

/* Any other name: its size, or what is wrong with it. */
static uint8_t other_name(const uint8_t *m, int32_t n, int32_t *size, uint8_t *room,
			  struct xp_dns_message *r)
{
	uint8_t n_labels = 0;
	int32_t at = HEADER;

	for (; at < n; at += 1 + m[at]) {
		if (at - HEADER >= NAME_MAX)
			return XP_DNS_MALFORMED_NAME_LONG;
		if (m[at] > LABEL_MAX)
			return check_pointer(m, n, at, HEADER);
		if (m[at] == 0) {
			*size = at + 1 - HEADER;
			r->n_labels = n_labels;
			r->name_hash = xp_dns_name_hash(m + HEADER, (uint32_t)*size);
			r->name_len = escape(m + HEADER, room);
			return 0;
		}
		n_labels++;
	}
	return XP_DNS_MALFORMED_NAME_SHORT;
}

/* The first question, at *at behind the header: its name into `room`, its type and class. */
static uint8_t first_question(const uint8_t *m, int32_t n, int32_t *at, uint8_t *room,
			      struct xp_dns_message *r)
{
	int32_t size = 0;

	if (n == HEADER)
		return XP_DNS_MALFORMED_MISSING;
	if (n >= 16) /* then 16 bytes can be read before the message's end */
		size = ordinary_name(m + HEADER, n - HEADER, room, r);
	if (size == 0) {
		uint8_t malformed = other_name(m, n, &size, room, r);

		if (malformed)
			return malformed;
	}
	if (n - HEADER - size < 4) {
		r->name_hash = r->n_labels = r->name_len = 0;
		return XP_DNS_MALFORMED_QUESTION_SHORT;
	}
	r->type = xp_get16(m + HEADER + size);
	r->class_ = xp_get16(m + HEADER + size + 2);
	r->found |= XP_DNS_FOUND_QUESTION;
	*at = HEADER + size + 4;
	return 0;
}

static uint8_t check_options(const uint8_t *p, int32_t size)
{
	while (size) {
		int32_t option;

		if (size < 4)
			return XP_DNS_MALFORMED_OPT_OPTIONS;
		option = 4 + xp_get16(p + 2);
		if (option > size)
			return XP_DNS_MALFORMED_OPT_OPTIONS;
		p += option;
		size -= option;
	}
	return 0;
}

/* An OPT record: its type is at p, its name has `name` bytes, its data `size`. */
static uint8_t parse_opt(const uint8_t *p, int32_t name, int32_t size, struct xp_dns_message *r)
{
	if (name != 1)
		return XP_DNS_MALFORMED_OPT_NAME;
	if (r->found & XP_DNS_FOUND_EDNS)
		return XP_DNS_MALFORMED_OPT_TWICE;
	r->found |= XP_DNS_FOUND_EDNS;
	r->udp_size = xp_get16(p + 2);
	r->rcode |= (uint16_t)(p[4] << 4);
	r->edns_version = p[5];
	r->edns_flags = xp_get16(p + 6);
	return check_options(p + 10, size);
}

static uint8_t parse_questions(const uint8_t *m, int32_t n, int32_t *at, uint8_t *room,
			       struct xp_dns_message *r)
{
	uint8_t malformed = r->n_questions ? first_question(m, n, at, room, r) : 0;

	for (uint32_t k = 1; k < r->n_questions && k < XP_DNS_RECORDS && !malformed; k++) {
		if (*at == n)
			return XP_DNS_MALFORMED_MISSING;
		malformed = pass_name(m, n, at);
		if (malformed)
			return malformed;
		if (n - *at < 4)
			return XP_DNS_MALFORMED_QUESTION_SHORT;
		*at += 4;
	}
	return malformed;
}

static uint8_t parse_records(const uint8_t *m, int32_t n, int32_t at, struct xp_dns_message *r)
{
	uint32_t additional = r->n_questions + r->n_answers + r->n_authority;
	uint32_t end = additional + r->n_additional;
	uint32_t looked_at = end < XP_DNS_RECORDS ? end : XP_DNS_RECORDS;

	for (uint32_t k = r->n_questions; k < looked_at; k++) {
		int32_t start = at, size;
		uint8_t malformed;

		if (at == n)
			return XP_DNS_MALFORMED_MISSING;
		malformed = pass_name(m, n, &at);
		if (malformed)
			return malformed;
		if (n - at < 10)
			return XP_DNS_MALFORMED_RECORD_SHORT;
		size = xp_get16(m + at + 8);
		if (size > n - at - 10)
			return XP_DNS_MALFORMED_RDATA_SHORT;
		if (xp_get16(m + at) == TYPE_OPT) {
			malformed = k < additional ? XP_DNS_MALFORMED_OPT_SECTION
						   : parse_opt(m + at, at - start, size, r);
			if (malformed)
				return malformed;
		}
		at += 10 + size;
	}
	if (looked_at < end)
		r->found |= XP_DNS_FOUND_MANY_RECORDS;
	else if (at < n)
		r->found |= XP_DNS_FOUND_TRAILING;
	return 0;
}

static uint8_t parse(const uint8_t *m, int32_t n, uint8_t *room, struct xp_dns_message *r)
{
	int32_t at = HEADER;
	uint8_t malformed;

	if (n < HEADER)
		return XP_DNS_MALFORMED_HEADER_SHORT;
	r->id = xp_get16(m);
	r->flags = xp_get16(m + 2);
	r->n_questions = xp_get16(m + 4);
	r->n_answers = xp_get16(m + 6);
	r->n_authority = xp_get16(m + 8);
	r->n_additional = xp_get16(m + 10);
	r->rcode = r->flags & 15;
	r->found |= XP_DNS_FOUND_MESSAGE | (r->flags & 0x8000 ? XP_DNS_FOUND_RESPONSE : 0) |
		    (r->flags & 0x0200 ? XP_DNS_FOUND_TRUNCATED : 0);
	malformed = parse_questions(m, n, &at, room, r);
	return malformed ? malformed : parse_records(m, n, at, r);
}

/* Reasons that say that the bytes came to an end. */
#define ENDS(name) (1u << XP_DNS_MALFORMED_##name)
#define ALL_ENDS                                                                                   \
	(ENDS(HEADER_SHORT) | ENDS(MISSING) | ENDS(NAME_SHORT) | ENDS(QUESTION_SHORT) |            \
	 ENDS(RECORD_SHORT) | ENDS(RDATA_SHORT))

/*
 * Look at a message of `length` bytes, of which the first n are at `message`; what is missing of it
 * is not malformed. `room` has XP_DNS_TEXT_ROOM bytes, for its name.
 */
void xp_dns_parse(const uint8_t *message, uint32_t n, uint32_t length, uint8_t *room,
		  struct xp_dns_message *result)
{
	uint8_t malformed;

	*result = (struct xp_dns_message){0};
	malformed = parse(message, (int32_t)n, room, result);
	if (n < length) {
		result->found |= XP_DNS_FOUND_PARTIAL;
		if (ALL_ENDS >> malformed & 1)
			malformed = 0;
	}
	if (malformed)
		result->found |= XP_DNS_FOUND_MALFORMED;
	result->malformed = malformed;
}
