/* SPDX-License-Identifier: Apache-2.0 */
/* What Http1 reads of a message's start line and header section. */
#ifndef XP_HTTP1_HEAD_H
#define XP_HTTP1_HEAD_H

#include "stages/http1.h"

struct text_at {
	const uint8_t *p;
	uint32_t n;
};

/* Lies in the message: nothing is copied. */
struct head {
	uint8_t kind;      /* enum xp_http1_kind; NONE: it is no HTTP/1 */
	uint8_t malformed; /* enum xp_http1_malformed */
	uint8_t version;
	uint8_t chunked;   /* the last transfer coding is chunked */
	uint8_t coded;     /* there is Transfer-Encoding */
	uint16_t status;
	int64_t content_length;
	struct text_at method, target, host;
};

void xp_http1_parse_head(const uint8_t *p, uint32_t n, struct head *h);

#endif
