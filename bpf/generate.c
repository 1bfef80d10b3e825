// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Generate packets for benchmarks: run on a template by BPF_PROG_TEST_RUN in live frames mode, each
 * run sends one packet out of a link, a flow of its own among XP_N_FLOWS.
 *
 * The template is Ethernet, IPv4 without options, UDP without a checksum. Only the low half of the
 * source address and the source port change; the IPv4 checksum is brought up to date (RFC 1624).
 *
 * bench/generator.py puts before this file: XP_OUT_IFINDEX, XP_N_FLOWS.
 */
#define XP_SOURCE_LOW 28 /* offsets: the low half of the source address, */
#define XP_CHECKSUM 24   /* the IPv4 checksum, */
#define XP_SPORT 34      /* the source port */
#define XP_SHORTEST 42

BPF_PERCPU_ARRAY(sequence, u64, 1);

int generate(struct xdp_md *ctx)
{
	u8 *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	int zero = 0;
	u64 *number = sequence.lookup(&zero);
	u32 flow, sum;

	if (!number || data + XP_SHORTEST > data_end)
		return XDP_DROP;
	flow = (*number)++ % XP_N_FLOWS;
	/* one's complement: ~(~checksum + ~was + is); was is 0 in the template, but frames are used
	 * again as the last run left them */
	sum = (u16) ~*(u16 *)(data + XP_CHECKSUM) + (u16) ~*(u16 *)(data + XP_SOURCE_LOW) + (u16)flow;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*(u16 *)(data + XP_CHECKSUM) = ~sum;
	*(u16 *)(data + XP_SOURCE_LOW) = flow;
	*(u16 *)(data + XP_SPORT) = 1024 + flow;
	return bpf_redirect(XP_OUT_IFINDEX, 0);
}
