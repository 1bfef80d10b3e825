/* SPDX-License-Identifier: Apache-2.0 */
/* The table of flows: flow_table.c. */
#ifndef XP_FLOW_TABLE_H
#define XP_FLOW_TABLE_H

#include "stages/flow_meter.h"

/* What tells flows apart; the same for both directions: the ends stand in an order of their own. */
struct xp_flow_key {
	uint64_t low[2], high[2]; /* addresses, as their column has them */
	uint64_t rest;		  /* XP_KEY_* */
};

#define XP_KEY_HIGH_PORT 16 /* shifts; the low end's port is not shifted */
#define XP_KEY_VLAN 32
#define XP_KEY_V6 44
#define XP_KEY_PROTO 48

enum xp_flow_state {
	XP_FLOW_USED = 1,
	XP_FLOW_FROM_HIGH = 2, /* the initiator is the high end */
	XP_FLOW_TCP_OVER = 4,  /* FIN and ACK both ways, or RST */
	XP_FLOW_FIN = 8,       /* from the initiator; << 1: from the responder */
	XP_FLOW_LAST_FIN = 32  /* the second FIN was the responder's */
};

struct xp_flow_way {
	uint64_t packets, bytes, first_ns, last_ns;
};

/* Two cache lines: the first is all that a look-up and the sweep read. */
struct xp_flow {
	struct xp_flow_key key;
	uint8_t state; /* enum xp_flow_state; 0: free */
	uint8_t tcp_flags[2];
	uint8_t unused;
	uint32_t next;	/* of the same head, or of the free ones; 0: none */
	uint64_t begun; /* by the table's clock: when what is counted began, */
	uint64_t seen;	/* and the last packet came */
	struct xp_flow_way way[2];
};

/* What is in the memory before heads, flows and labels. Flow 0 is nobody. */
struct xp_flow_table {
	uint64_t magic;
	struct xp_flow_options options;
	uint64_t key[2];    /* of the hash; secret */
	uint64_t clock;	    /* the newest packet's time, unless that was set back */
	uint64_t swept_at;  /* by it */
	uint64_t exporting_at; /* where on the ring is the record of `exporting` */
	uint32_t exporting; /* the flow that is told, and then ended or begun anew; 0: none */
	uint32_t exporting_keeps; /* it is begun anew */
	uint32_t hand;	    /* of the sweep: the flow that it comes to next */
	uint32_t n_ever;    /* flows 1 to n_ever have been used at some time */
	uint32_t n_now;
	uint32_t free;
};

static inline struct xp_flow *xp_flow_at(const struct xp_flow_meter_state *s, uint32_t flow)
{
	return s->flows + flow;
}

static inline uint8_t *xp_flow_labels(const struct xp_flow_meter_state *s, uint32_t flow)
{
	return s->labels + (uint64_t)flow * s->label_stride;
}

static inline int xp_flow_is_empty(const struct xp_flow *flow)
{
	return !(flow->way[0].packets | flow->way[1].packets);
}

uint64_t xp_flow_hash(const struct xp_flow_meter_state *s, const struct xp_flow_key *key);
enum xp_flow_end xp_flow_over(const struct xp_flow_meter_state *s, const struct xp_flow *flow);
uint32_t xp_flow_new(struct xp_flow_meter_state *s, const struct xp_flow_key *key, uint64_t hash);
void xp_flow_renew(struct xp_flow_meter_state *s, uint32_t flow, enum xp_flow_end why);
void xp_flows_sweep(struct xp_flow_meter_state *s, uint32_t most);

#endif
