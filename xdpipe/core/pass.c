/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets given back to the kernel: copied to where bpf/inject.c takes them, which the kernel then
 * runs, in the worker's own time and on its core, as it would have its receive work done there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "xp.h"
#include "inject.h"
#include "live.h"

uint64_t xp_inject_bytes(void)
{
	return sizeof(struct xp_inject);
}

/* What the program has given to the kernel, and what it refused. */
uint64_t xp_injected(const struct xp_pass *pass)
{
	return ((const volatile struct xp_inject *)pass->inject)->injected;
}

uint64_t xp_inject_refused(const struct xp_pass *pass)
{
	return ((const volatile struct xp_inject *)pass->inject)->refused;
}

/* Whether we may: 0 or -errno. The program finds nothing to take. */
int xp_pass_probe(struct xp_pass *pass)
{
	((struct xp_inject *)pass->inject)->next = XP_INJECT_MAX;
	return xp_live_run(pass->prog_fd, pass->ifindex, 1, 1);
}

/*
 * Give what is collected to the kernel. Where it fails, counted as failed is what the program did
 * not take; of what it took before, the kernel may have lost some for want of memory.
 */
void xp_pass_flush(struct xp_port *port)
{
	struct xp_pass *pass = port->pass;
	struct xp_counters *c = port->counters;
	struct xp_inject *in = pass->inject;
	uint32_t n = pass->n;
	int err;

	if (n == 0)
		return;
	__atomic_store_n(&in->next, 0, __ATOMIC_RELEASE);
	err = xp_live_run(pass->prog_fd, pass->ifindex, n, n);
	if (err) {
		c->pass_errno = (uint64_t)-err;
		c->pass_failed += n - __atomic_load_n(&in->next, __ATOMIC_ACQUIRE);
	}
	c->passed = xp_injected(pass);
	c->pass_too_long = xp_inject_refused(pass);
	pass->n = pass->used = 0;
}

/* Collect packet i of the batch; its frames stay the batch's. */
void xp_pass_packet(struct xp_worker *w, uint32_t i)
{
	struct xp_batch *b = w->batch;
	struct xp_port *port = w->ports + b->port;
	struct xp_pass *pass = port->pass;
	struct xp_inject *in;
	uint32_t len;

	if (!pass) {
		port->counters->pass_failed++;
		return;
	}
	in = pass->inject;
	if (b->n_checksums_due && b->checksum_due[i])
		xp_finish_checksum(b, i, NULL);
	if (w->hints)
		xp_put_tag_back(b, i);
	len = (uint32_t)b->len[i];
	if (len > XP_INJECT_LONGEST) {
		port->counters->pass_too_long = ++in->refused; /* ours while the program does not run */
		return;
	}
	if (pass->n == XP_INJECT_MAX || pass->used + len > XP_INJECT_BYTES)
		xp_pass_flush(port);
	if (b->n_frames[i] == 1)
		memcpy(in->bytes + pass->used, xp_packet(b, i), len);
	else
		xp_batch_read(b, i, in->bytes + pass->used, len);
	in->packets[pass->n].at = pass->used;
	in->packets[pass->n].len = len;
	pass->used += (len + 7) & ~7u;
	pass->n++;
}
