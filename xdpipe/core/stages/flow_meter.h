/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XP_STAGE_FLOW_METER_H
#define XP_STAGE_FLOW_METER_H

#include "xp.h"

/* cdef begin */
enum {
	XP_FLOW_LABELS = 8,	/* columns of texts that a flow keeps, at the most */
	XP_FLOW_LABEL = 255,	/* bytes of such a text, at the most */
	XP_FLOW_TOP = 8,	/* flows with the most bytes that are told */
	XP_FLOW_REFUSED = 65536 /* flows without room that are told apart */
};

/* flowEndReason of IPFIX (IANA 136) */
enum xp_flow_end {
	XP_FLOW_GOES_ON,
	XP_FLOW_IDLE,
	XP_FLOW_ACTIVE,
	XP_FLOW_ENDED,
	XP_FLOW_FORCED,
	XP_FLOW_RESOURCES
};

/* What is told of a flow. Behind it, for each label: a byte, how many bytes it has, and room for them;
 * padded to 8 bytes. [0]: from the initiator to the responder, [1]: back. */
struct xp_flow_record {
	uint64_t packets[2];
	uint64_t bytes[2];
	uint64_t first_ns[2];
	uint64_t last_ns[2];
	uint8_t src[16]; /* the initiator's; IPv4 as ::ffff:a.b.c.d */
	uint8_t dst[16];
	uint16_t sport;	/* ICMP, ICMPv6: type << 8 | code of who sends */
	uint16_t dport;
	uint16_t vlan;
	uint8_t ip_version;
	uint8_t proto;
	uint8_t tcp_flags[2];
	uint8_t end_reason; /* enum xp_flow_end */
	uint8_t unused[5];
};

/* How flows are told apart and when they end. */
struct xp_flow_options {
	uint64_t idle_ns;
	uint64_t active_ns;
	uint64_t linger_ns;  /* how long one that TCP has ended stays; 0: TCP ends none */
	uint32_t n_flows;
	uint32_t n_labels;
	uint32_t label_bytes;
	uint32_t by_vlan;    /* the outer VLAN id tells them apart */
	uint32_t evict;	     /* where there is no room, end one that has been quiet for long */
};

struct xp_flow_table;
struct xp_flow;

struct xp_flow_top {
	uint64_t bytes;
	uint32_t flow;
};

struct xp_flow_meter_state {
	uint64_t *counters; /* enum xp_flow_count */
	struct xp_blocks *ring; /* where records go; NULL: nowhere */
	uint32_t *refused;  /* XP_FLOW_REFUSED of them: marks of flows without room */
	uint32_t label_field[8]; /* XP_FLOW_LABELS: where struct xp_batch has the columns */
	struct xp_flow_options options;
	uint32_t looks; /* flows that may still be looked at in this batch, to make room */
	uint32_t record_bytes;
	uint32_t label_stride;
	uint32_t head_mask;
	/* in memory that may outlive the process */
	struct xp_flow_table *table;
	uint32_t *heads;
	struct xp_flow *flows;
	uint8_t *labels;
	/* of this pass of the sweep, and of the one before */
	struct xp_flow_top top_now[8];
	struct xp_flow_top top[8];
};

enum xp_flow_count {
	XP_FLOW_N_METERED,
	XP_FLOW_N_FLOWS,
	XP_FLOW_N_EXPORTED,
	XP_FLOW_N_LOST,
	XP_FLOW_N_NO_ROOM_FLOWS,
	XP_FLOW_N_NO_ROOM,
	XP_FLOW_N_OTHER,
	XP_FLOW_N_MALFORMED,
	XP_FLOW_N_REASONS /* behind it: records by enum xp_flow_end, from 1 */
};

uint64_t xp_flows_bytes(const struct xp_flow_options *options);
int64_t xp_flows_open(struct xp_flow_meter_state *state, void *memory, uint64_t size,
		      const uint8_t key[16]);
uint32_t xp_flows_now(const struct xp_flow_meter_state *state);
uint32_t xp_flows_finish(struct xp_flow_meter_state *state, uint32_t n);
void xp_flows_sweep_all(struct xp_flow_meter_state *state);
int xp_flows_read_top(const struct xp_flow_meter_state *state, uint32_t place, uint8_t *record);
int xp_stage_flow_meter(struct xp_batch *batch, void *state);
/* cdef end */

#endif
