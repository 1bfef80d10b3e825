/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native stage Histogram: how often which values of a column come.
 *
 * Without edges of one's own the bins are those of HdrHistogram (Tene): 32 of equal width for each power of
 * two (xp_log_bin). Values below 64 have a bin each; a bin above is as wide as 1/32 of its values at the most, so
 * that its middle is off by 1/64, 1.6 %.
 */
#include "xp.h"
#include "stages/histogram.h"

#define AT_ONCE 64
#define SUB_BITS XP_HISTOGRAM_SUB_BITS

/* In the order of Histogram.counters in xdpipe/stages/histogram.py. */
enum { N_COUNTED, N_UNDER, N_OVER, N_ABSENT, N_SKIPPED };

uint32_t xp_histogram_bin(uint64_t value)
{
	return xp_log_bin(value, SUB_BITS);
}

/* The last edge that is not above the value, which is not below the first: a search without branches. */
static uint32_t bin_of_edges(const struct xp_histogram_state *s, uint64_t value)
{
	const uint64_t *edge = s->edges;

	for (uint32_t half = (1u << s->n_steps) >> 1; half; half >>= 1)
		edge += edge[half] <= value ? half : 0;
	return (uint32_t)(edge - s->edges);
}

static void count_value(struct xp_histogram_state *s, uint64_t value)
{
	s->least = value < s->least ? value : s->least;
	s->greatest = value > s->greatest ? value : s->greatest;
	s->sum_low += value;
	s->sum_high += s->sum_low < value;
	if (!s->edges) {
		s->bins[xp_log_bin(value, SUB_BITS)]++;
	} else if (value < s->edges[0]) {
		s->counters[N_UNDER]++;
		return;
	} else if (value >= s->edges[s->n_edges - 1]) {
		s->counters[N_OVER]++;
		return;
	} else {
		s->bins[bin_of_edges(s, value)]++;
	}
	s->counters[N_COUNTED]++;
}

static void count_signed(struct xp_histogram_state *s, int32_t value)
{
	if (value < 0 || value == XP_ABSENT)
		s->counters[N_ABSENT]++;
	else
		count_value(s, (uint64_t)value);
}

int xp_stage_histogram(struct xp_batch *b, void *state)
{
	struct xp_histogram_state *s = state;
	const void *column = xp_batch_column(b, s->column);

	for (uint32_t from = 0; from < b->n; from += AT_ONCE) {
		uint32_t end = b->n - from < AT_ONCE ? b->n : from + AT_ONCE;
		uint32_t packets[AT_ONCE];
		uint32_t n = xp_select(b, s->only, from, end, packets);

		s->counters[N_SKIPPED] += end - from - n;
#define COUNT(type, count)                                                                         \
	for (uint32_t k = 0; k < n; k++)                                                           \
		count(s, ((const type *)column)[packets[k]]);                                      \
	break
		switch (s->kind) {
		case XP_HISTOGRAM_U8:
			COUNT(uint8_t, count_value);
		case XP_HISTOGRAM_U16:
			COUNT(uint16_t, count_value);
		case XP_HISTOGRAM_U32:
			COUNT(uint32_t, count_value);
		case XP_HISTOGRAM_U64:
			COUNT(uint64_t, count_value);
		case XP_HISTOGRAM_I32:
			COUNT(int32_t, count_signed);
		}
#undef COUNT
	}
	return 0;
}
