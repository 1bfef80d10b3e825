// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Steer packets into AF_XDP sockets: guard, filter, redirect. Count every way out.
 *
 * xdpipe/steering.py puts before this file what depends on the pipeline:
 *   xp_filter()      the tcpdump filter in C; 0 is no
 *   XP_N_QUEUES      sockets at the most
 *   XP_FRAGS         if defined, the program is loaded with XDP_HAS_FRAGS: packets may have more
 *                    buffers than the first, [data, data_end), which is all that is looked at
 *   XP_HINTS         if defined, what the NIC tells of a packet goes along with it; the program is
 *                    bound to the device then (BPF_F_XDP_DEV_BOUND_ONLY)
 *   XP_KFUNC_HASH, XP_KFUNC_TIME, XP_KFUNC_VLAN
 *                    those that the kernel has: numbers of calls that xdpipe/steering.py directs to
 *                    the kernel's functions, which bcc cannot call
 *   xp_look_in_sets(), XP_SETS
 *                    if defined, what the pipeline's sets of addresses make of a packet (sets.h)
 *   XP_GUARD         if defined, some packets stay with the kernel, whatever the filter: the SSH
 *                    sessions to keep, and if XP_LIFELINES is 1, the operator's lifelines
 *   XP_SSH_PEERS4(X), XP_SSH_PEERS6(X)
 *                    X(address words in host byte order, server port) for each SSH session to keep
 *
 * Whatever cannot be decided goes to the kernel: it knows more, and cutting off the operator is the
 * one mistake that cannot be undone from afar.
 */
#include "headers.h"
#include "hints.h"

BPF_XSKMAP(xsks_map, XP_N_QUEUES);

/*
 * One entry, so that a packet costs one map lookup. `seen` is counted first and each way out where
 * it is taken: that they sum up is checked by the ledger, not assumed. No atomics: an entry belongs
 * to one CPU, and XDP programs run there with bottom halves off, one at a time.
 */
struct xp_steer_counters {
	u64 seen;
	u64 guard_link;  /* to a link's other end: LACP, STP, LLDP, EAPOL (IEEE 802.1Q, 8.6.3) */
	u64 guard_arp;   /* ARP */
	u64 guard_nd;    /* neighbour discovery (RFC 4861), and the multicast listener reports and
			    queries without which a switch forwards none of it (RFC 3810, 4541) */
	u64 guard_mtu;   /* this path takes smaller packets only (RFC 1191, 8201) */
	u64 guard_dhcp;  /* answers to this host as a DHCP client */
	u64 guard_ssh;   /* TCP port 22, and the SSH sessions to keep */
	u64 unparsed;    /* headers that the guard could not read to the end */
	u64 not_matched; /* the filter says no */
	u64 set_passed;  /* an address is in a set of those to pass */
	u64 set_dropped; /* an address is in a set of those to drop */
	u64 no_socket;   /* nobody serves the queue */
	u64 redirected;
};
BPF_PERCPU_ARRAY(steer_counters, struct xp_steer_counters, 1);

#ifdef XP_GUARD
#define XP_SSH_PORT 22
#define XP_DHCP_CLIENT 68    /* RFC 2131, 4.1 */
#define XP_DHCP6_CLIENT 546  /* RFC 8415, 7.2 */
/* ICMP type 3 code 4: fragmentation needed and DF set (RFC 792) */
#define XP_ICMP_UNREACHABLE 3
#define XP_ICMP_FRAGMENTATION_NEEDED 4
/* ICMPv6 types (IANA) */
#define XP_PACKET_TOO_BIG 2
#define XP_MLD_FIRST 130 /* listener query, report, done */
#define XP_ND_LAST 137   /* from 133: solicitations, advertisements, redirect */
#define XP_MLD2_REPORT 143

struct xp_ports {
	__be16 source;
	__be16 destination;
};

#define XP_IS4(at, a) ((at)[0] == xp_ntohl(a))
#define XP_IS6(at, a, b, c, d)                                                                  \
	((at)[0] == xp_ntohl(a) && (at)[1] == xp_ntohl(b) && (at)[2] == xp_ntohl(c) &&          \
	 (at)[3] == xp_ntohl(d))

/*
 * Is this TCP packet of an SSH session to keep? With ports 0, for a fragment that carries none:
 * could it be? That asks for the peer's address alone.
 */
static __always_inline int xp_of_ssh_peer4(struct xp_ip *ip, struct xp_ports *ports)
{
#define X(a, port)                                                                              \
	if (XP_IS4(ip->source, a) && (!ports || ports->destination == xp_ntohs(port)))          \
		return 1;                                                                       \
	if (XP_IS4(ip->destination, a) && (!ports || ports->source == xp_ntohs(port)))          \
		return 1;
	XP_SSH_PEERS4(X)
#undef X
	return 0;
}

static __always_inline int xp_of_ssh_peer6(struct xp_ip *ip, struct xp_ports *ports)
{
#define X(a, b, c, d, port)                                                                     \
	if (XP_IS6(ip->source, a, b, c, d) && (!ports || ports->destination == xp_ntohs(port))) \
		return 1;                                                                       \
	if (XP_IS6(ip->destination, a, b, c, d) && (!ports || ports->source == xp_ntohs(port))) \
		return 1;
	XP_SSH_PEERS6(X)
#undef X
	return 0;
}

/* In a fragment after the first, IPv6 options for the destination may still come before TCP. */
static __always_inline int xp_may_be_tcp(u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_DSTOPTS || proto == IPPROTO_AH;
}

/*
 * Does the kernel get this packet whatever the filter says? Counts it if so.
 *
 * Kept is what this host's own connections live by, as a client of the network it is in: a link
 * whose aggregation, spanning tree or authentication ends, an address that is not renewed, a
 * neighbour that cannot be found, or a path whose MTU is not learnt cuts off the operator, too.
 */
static __always_inline int xp_guard(void *data, void *data_end, struct xp_steer_counters *counters)
{
	struct xp_ip ip = {};
	struct xp_ports *ports;
	void *at = data;
	int is_ssh;
	u16 type;

	if (xp_parse_ethernet(&at, data_end, &type))
		goto unparsed;
	if (XP_LIFELINES && xp_is_to_link_partner(data, data_end)) {
		counters->guard_link++;
		return 1;
	}
	if (XP_LIFELINES && type == ETH_P_ARP) {
		counters->guard_arp++;
		return 1;
	}
	if (type == ETH_P_IP) {
		if (xp_parse_ipv4(at, data_end, &ip))
			goto unparsed;
	} else if (type == ETH_P_IPV6) {
		if (xp_parse_ipv6(data, at, data_end, &ip))
			goto unparsed;
	} else {
		return 0;
	}

	if (ip.fragment) {
		if (!xp_may_be_tcp(ip.proto))
			return 0;
		is_ssh = type == ETH_P_IP ? xp_of_ssh_peer4(&ip, 0) : xp_of_ssh_peer6(&ip, 0);
	} else if (ip.proto == IPPROTO_TCP) {
		ports = ip.payload;
		if ((void *)(ports + 1) > data_end)
			goto unparsed;
		is_ssh = (XP_LIFELINES && (ports->source == xp_ntohs(XP_SSH_PORT) ||
					   ports->destination == xp_ntohs(XP_SSH_PORT))) ||
			 (type == ETH_P_IP ? xp_of_ssh_peer4(&ip, ports) :
					     xp_of_ssh_peer6(&ip, ports));
	} else if (!XP_LIFELINES) {
		return 0;
	} else if (ip.proto == IPPROTO_UDP) {
		ports = ip.payload;
		if ((void *)(ports + 1) > data_end)
			goto unparsed;
		if (ports->destination != (type == ETH_P_IP ? xp_ntohs(XP_DHCP_CLIENT) :
							      xp_ntohs(XP_DHCP6_CLIENT)))
			return 0;
		counters->guard_dhcp++;
		return 1;
	} else if (ip.proto == IPPROTO_ICMP && type == ETH_P_IP) {
		u8 *icmp = ip.payload;

		if ((void *)(icmp + 2) > data_end)
			goto unparsed;
		if (icmp[0] != XP_ICMP_UNREACHABLE || icmp[1] != XP_ICMP_FRAGMENTATION_NEEDED)
			return 0;
		counters->guard_mtu++;
		return 1;
	} else if (ip.proto == IPPROTO_ICMPV6 && type == ETH_P_IPV6) {
		u8 *icmp_type = ip.payload;

		if ((void *)(icmp_type + 1) > data_end)
			goto unparsed;
		if (*icmp_type == XP_PACKET_TOO_BIG) {
			counters->guard_mtu++;
			return 1;
		}
		if ((*icmp_type < XP_MLD_FIRST || *icmp_type > XP_ND_LAST) &&
		    *icmp_type != XP_MLD2_REPORT)
			return 0;
		counters->guard_nd++;
		return 1;
	} else {
		return 0;
	}
	if (is_ssh)
		counters->guard_ssh++;
	return is_ssh;

unparsed:
	if (!XP_LIFELINES)
		return 0;
	counters->unparsed++;
	return 1;
}
#endif

#ifdef XP_FRAGS
static u64 (*xp_get_buff_len)(struct xdp_md *ctx) = (void *)188; /* Linux 5.18 */
#define XP_LENGTH(ctx) xp_get_buff_len(ctx)
#else
#define XP_LENGTH(ctx) (data_end - data)
#endif

#ifdef XP_HINTS
#ifdef XP_KFUNC_HASH
static int (*xp_rx_hash)(struct xdp_md *ctx, u32 *hash, u32 *type) = (void *)XP_KFUNC_HASH;
#endif
#ifdef XP_KFUNC_TIME
static int (*xp_rx_time)(struct xdp_md *ctx, u64 *ns) = (void *)XP_KFUNC_TIME;
#endif
#ifdef XP_KFUNC_VLAN
static int (*xp_rx_vlan)(struct xdp_md *ctx, __be16 *proto, u16 *tci) = (void *)XP_KFUNC_VLAN;
#endif

/* Write what the NIC tells before the packet, where the driver has room for it. */
static __always_inline void xp_tell_hints(struct xdp_md *ctx)
{
	struct xp_hints hints = {.magic = XP_HINTS_MAGIC}, *at;

#ifdef XP_KFUNC_HASH
	u32 hash = 0, type = 0;

	if (!xp_rx_hash(ctx, &hash, &type)) {
		hints.hash = hash;
		hints.present |= XP_HINT_HASH;
	}
#endif
#ifdef XP_KFUNC_TIME
	u64 ns = 0;

	if (!xp_rx_time(ctx, &ns) && ns) { /* veth tells 0 for none */
		hints.time_ns = ns;
		hints.present |= XP_HINT_TIME;
	}
#endif
#ifdef XP_KFUNC_VLAN
	__be16 proto = 0;
	u16 tci = 0;

	if (!xp_rx_vlan(ctx, &proto, &tci)) {
		hints.vlan_tci = tci;
		hints.present |= XP_HINT_VLAN;
	}
#endif
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(hints)))
		return;
	at = (void *)(long)ctx->data_meta;
	if ((void *)(at + 1) <= (void *)(long)ctx->data)
		*at = hints;
}
#endif

int steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct xp_steer_counters *counters;
	int zero = 0, action, matched;

	counters = steer_counters.lookup(&zero);
	if (!counters) /* cannot be: an array has its entries from the start */
		return XDP_PASS;
	counters->seen++;
#ifdef XP_GUARD
	if (xp_guard(data, data_end, counters))
		return XDP_PASS;
#endif
	matched = xp_filter(data, data_end, XP_LENGTH(ctx)) != 0;
#ifdef XP_SETS
	matched = xp_look_in_sets(data, data_end, matched);
	if (matched == XP_SET_DROP) {
		counters->set_dropped++;
		return XDP_DROP;
	}
	if (matched == XP_SET_PASS) {
		counters->set_passed++;
		return XDP_PASS;
	}
#endif
	if (!matched) {
		counters->not_matched++;
		return XDP_PASS;
	}
	action = xsks_map.redirect_map(ctx->rx_queue_index, XDP_PASS);
	if (action == XDP_REDIRECT) {
		counters->redirected++;
#ifdef XP_HINTS
		xp_tell_hints(ctx);
#endif
	} else {
		counters->no_socket++;
	}
	return action;
}

/*
 * What becomes of a packet after XDP_REDIRECT. The kernel hands it to the socket (xsk_rcv and
 * xsk_generic_rcv in net/xdp/xsk.c) and tells what goes wrong by the tracepoint xdp_redirect_err,
 * in native mode (__xdp_do_redirect_xsk in net/core/filter.c) as in generic
 * (xdp_do_generic_redirect_map). The packet is lost then. Read in filter.c of Linux 5.17 and 6.18,
 * in xsk.c of about 5.18, 6.5 and 6.18; they agree, and tests/bpf/test_attach.py sees it happen:
 *
 *   -ENXIO    the socket is not bound (any more)             xsk_rcv_check        counted nowhere
 *   -EINVAL   it is bound to another device or queue         xsk_rcv_check        counted nowhere
 *   -ENOSPC   longer than a frame, without XDP_USE_SG        xsk_rcv_check (1)    rx_dropped
 *   -ENOMEM   no frame in the fill ring, in copy mode        __xsk_rcv            rx_dropped
 *   -ENOBUFS  the rx ring is full                            __xsk_rcv_zc (2)     rx_ring_full
 *
 * (1) In __xsk_rcv before 6.6. (2) In copy mode from 6.6 also in __xsk_rcv, for a packet that needs
 * several frames.
 *
 * The first two are counted here, for the ledger; the others too, apart, to check the kernel's own
 * counters by. The tracepoint tells of all redirects of the machine, so the map's id is looked at
 * first. A packet costs this program only when its redirect failed.
 */
struct xp_redirect_errors {
	u64 failed;  /* -ENXIO, -EINVAL: on no counter of the socket */
	u64 dropped; /* the others: in the socket's XDP_STATISTICS */
};
BPF_PERCPU_ARRAY(redirect_errors, struct xp_redirect_errors, XP_N_QUEUES);
BPF_ARRAY(redirect_map_id, u32, 1);

#define XP_ENXIO 6
#define XP_EINVAL 22

/* Raw tracepoint xdp_redirect_err: dev, xdp, tgt, err, map_type, map_id, index. */
int count_redirect_errors(struct bpf_raw_tracepoint_args *ctx)
{
	int err = ctx->args[3];
	u32 map_id = ctx->args[5], queue = ctx->args[6], *our_map_id;
	struct xp_redirect_errors *errors;
	int zero = 0;

	our_map_id = redirect_map_id.lookup(&zero);
	if (!our_map_id || map_id != *our_map_id)
		return 0;
	errors = redirect_errors.lookup(&queue);
	if (!errors)
		return 0;
	if (err == -XP_ENXIO || err == -XP_EINVAL)
		errors->failed++;
	else
		errors->dropped++;
	return 0;
}
