/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start line and header section of a message of HTTP/1 (RFC 9112, 2.1, 3, 4, 5):
 *
 *   request   method SP target SP HTTP/1.x CRLF
 *   response  HTTP/1.x SP status SP [reason] CRLF
 *   fields    name ":" value CRLF ... CRLF
 *
 * Read of fields: Host, Content-Length, Transfer-Encoding. A line may end with LF alone (2.2).
 */
#include "stages/http1_head.h"

/* RFC 9110, 5.6.2: tchar */
static int is_token(uint8_t c)
{
	static const uint8_t others[] = "!#$%&'*+-.^_`|~";

	if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'))
		return 1;
	return c && memchr(others, c, sizeof(others) - 1) != NULL;
}

static int is_space(uint8_t c)
{
	return c == ' ' || c == '\t';
}

static int is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static struct text_at trimmed(struct text_at t)
{
	while (t.n && is_space(t.p[0])) {
		t.p++;
		t.n--;
	}
	while (t.n && is_space(t.p[t.n - 1]))
		t.n--;
	return t;
}

/* Is it this word, which is given in lower case? */
static int is_word(struct text_at t, const char *word, uint32_t n)
{
	if (t.n != n)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		if ((t.p[i] >= 'A' && t.p[i] <= 'Z' ? t.p[i] | 32 : t.p[i]) != (uint8_t)word[i])
			return 0;
	return 1;
}
#define IS(t, word) is_word(t, word, sizeof(word) - 1)

/* Take a line off the front, without its end; 0: there is no line end. */
static int take_line(struct text_at *from, struct text_at *line)
{
	const uint8_t *end = from->n ? memchr(from->p, '\n', from->n) : NULL;

	if (!end)
		return 0;
	*line = (struct text_at){from->p, (uint32_t)(end - from->p)};
	from->p = end + 1;
	from->n -= line->n + 1;
	if (line->n && line->p[line->n - 1] == '\r')
		line->n--;
	return 1;
}

/* "HTTP/1.x" gives 10 + x, else 0. */
static uint8_t version_of(const uint8_t *p, uint32_t n)
{
	if (n != 8 || memcmp(p, "HTTP/1.", 7) != 0 || !is_digit(p[7]))
		return 0;
	return (uint8_t)(10 + (p[7] == '0' ? 0 : 1)); /* RFC 9110, 2.5: as the highest that is known */
}

static int parse_status_line(struct text_at line, struct head *h)
{
	if (line.n < 12 || line.p[8] != ' ' || (line.n > 12 && line.p[12] != ' '))
		return 0;
	for (int i = 9; i < 12; i++)
		if (!is_digit(line.p[i]))
			return 0;
	h->status = (uint16_t)((line.p[9] - '0') * 100 + (line.p[10] - '0') * 10 + line.p[11] - '0');
	return h->status >= 100;
}

static int parse_request_line(struct text_at line, struct head *h)
{
	const uint8_t *space = memchr(line.p, ' ', line.n);
	uint32_t n;

	if (!space || space == line.p || line.n < 10)
		return 0;
	h->method = (struct text_at){line.p, (uint32_t)(space - line.p)};
	for (uint32_t i = 0; i < h->method.n; i++)
		if (!is_token(h->method.p[i]))
			return 0;
	n = line.n - h->method.n - 1; /* behind the space */
	if (n < 10 || space[1 + n - 9] != ' ')
		return 0;
	h->version = version_of(space + 1 + n - 8, 8);
	h->target = (struct text_at){space + 1, n - 9};
	return h->version && h->target.n && !memchr(h->target.p, ' ', h->target.n);
}

static uint8_t parse_content_length(struct text_at value, struct head *h)
{
	int64_t length = 0;

	/* RFC 9110, 8.6: the same number several times, with commas between, may be there */
	for (uint32_t i = 0; i < value.n || i == 0;) {
		uint32_t from = i;

		for (length = 0; i < value.n && is_digit(value.p[i]); i++) {
			if (i - from >= 18)
				return XP_HTTP1_MALFORMED_CONTENT_LENGTH;
			length = length * 10 + (value.p[i] - '0');
		}
		if (i == from || (h->content_length >= 0 && h->content_length != length))
			return XP_HTTP1_MALFORMED_CONTENT_LENGTH;
		h->content_length = length;
		while (i < value.n && is_space(value.p[i]))
			i++;
		if (i == value.n)
			break;
		if (value.p[i++] != ',')
			return XP_HTTP1_MALFORMED_CONTENT_LENGTH;
		while (i < value.n && is_space(value.p[i]))
			i++;
		if (i == value.n)
			return XP_HTTP1_MALFORMED_CONTENT_LENGTH;
	}
	return 0;
}

/* The last coding of all is the one that counts. */
static void parse_transfer_encoding(struct text_at value, struct head *h)
{
	uint32_t at = value.n;

	while (at && value.p[at - 1] != ',')
		at--;
	h->coded = 1;
	value = trimmed((struct text_at){value.p + at, value.n - at});
	h->chunked = IS(value, "chunked");
}

static uint8_t parse_field(struct text_at line, struct head *h)
{
	const uint8_t *colon = memchr(line.p, ':', line.n);
	struct text_at name, value;

	if (is_space(line.p[0]))
		return XP_HTTP1_MALFORMED_FOLDED;
	if (!colon || colon == line.p)
		return XP_HTTP1_MALFORMED_FIELD;
	name = (struct text_at){line.p, (uint32_t)(colon - line.p)};
	value = trimmed((struct text_at){colon + 1, line.n - name.n - 1});
	if (is_space(name.p[name.n - 1]))
		return XP_HTTP1_MALFORMED_FIELD;
	if (IS(name, "host")) {
		if (h->host.p)
			return XP_HTTP1_MALFORMED_HOST;
		h->host = value;
	} else if (IS(name, "content-length")) {
		return parse_content_length(value, h);
	} else if (IS(name, "transfer-encoding")) {
		parse_transfer_encoding(value, h);
	}
	return 0;
}

static uint8_t parse_fields(struct text_at rest, struct head *h)
{
	struct text_at line;
	uint8_t fault = 0;

	while (take_line(&rest, &line) && line.n)
		if (!fault)
			fault = parse_field(line, h);
	if (fault)
		return fault;
	if (h->coded && h->content_length >= 0)
		return XP_HTTP1_MALFORMED_TWO_LENGTHS;
	if (h->kind != XP_HTTP1_KIND_REQUEST)
		return 0;
	if (h->coded && !h->chunked)
		return XP_HTTP1_MALFORMED_TRANSFER_CODING;
	return h->version > 10 && !h->host.p ? XP_HTTP1_MALFORMED_HOST : 0;
}

/* Read n bytes, from a start line to the empty line behind the fields. */
void xp_http1_parse_head(const uint8_t *p, uint32_t n, struct head *h)
{
	struct text_at rest = {p, n}, line;

	*h = (struct head){.content_length = -1};
	if (!take_line(&rest, &line))
		return;
	if (line.n >= 8 && (h->version = version_of(line.p, 8)) != 0) {
		if (!parse_status_line(line, h))
			return;
		h->kind = XP_HTTP1_KIND_RESPONSE;
	} else {
		if (!parse_request_line(line, h))
			return;
		h->kind = XP_HTTP1_KIND_REQUEST;
	}
	h->malformed = parse_fields(rest, h);
}
