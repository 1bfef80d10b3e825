/* SPDX-License-Identifier: Apache-2.0 */
/* Live frames: the kernel runs bpf/emit.c, which takes packets from the map and says where they go. */
#include "emit.h"
#include "live.h"
#include "traffic/engines.h"

uint64_t xp_emit_bytes(void)
{
	return sizeof(struct xp_emit);
}

uint64_t xp_emit_memory_size(void)
{
	return XP_EMIT_BYTES;
}

static uint32_t send_live(struct xp_lane *lane, const struct xp_laid *laid, uint32_t first, uint32_t n)
{
	struct xp_live_lane *l = (struct xp_live_lane *)lane;
	struct xp_emit *e = l->emit;
	uint64_t refused = e->refused;
	uint32_t taken = n;
	int err;

	for (uint32_t i = 0; i < n; i++) {
		e->packets[i].at = (uint32_t)laid->at[first + i];
		e->packets[i].len = laid->len[first + i];
	}
	__atomic_store_n(&e->next, 0, __ATOMIC_RELEASE); /* pairs with the call, a full barrier */
	err = xp_live_run(l->prog_fd, l->ifindex, n, l->batch < n ? l->batch : n);
	if (err) {
		lane->error = -err;
		taken = __atomic_load_n(&e->next, __ATOMIC_ACQUIRE);
		taken = taken < n ? taken : n;
	}
	lane->taken += taken;
	lane->done += taken;
	lane->refused += *(volatile unsigned long long *)&e->refused - refused;
	return taken;
}

static void settle_live(struct xp_lane *lane)
{
	(void)lane; /* a packet is through when the call is */
}

void xp_live_lane_init(struct xp_live_lane *l, int into_stack)
{
	l->emit->ifindex = into_stack ? 0 : l->ifindex;
	l->lane.send = send_live;
	l->lane.settle = settle_live;
	l->lane.memory = l->emit->bytes;
	l->lane.n_max = XP_EMIT_MAX;
}
