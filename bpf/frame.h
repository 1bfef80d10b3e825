/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a frame of BPF_PROG_TEST_RUN's live frames mode becomes: a packet that lies in a map which is
 * mapped by who calls. That is untrusted, and may write there meanwhile: what was looked at here, once,
 * is what is used.
 */
#ifndef XP_FRAME_H
#define XP_FRAME_H

#define XP_ETH_HLEN 14

static long (*xp_store_bytes)(struct xdp_md *ctx, u64 offset, void *from, u64 len) = (void *)190;

/*
 * Make the frame the packet of `len` bytes at bytes + at. Returns whether it is: one of XP_ETH_HLEN to
 * `longest` bytes that begins within `room`, and no longer than the frame can be.
 */
static __always_inline int xp_make_frame(struct xdp_md *ctx, u8 *bytes, u32 at32, u32 len32,
					 u32 longest, u32 room)
{
	u64 at = at32, len = len32, have; /* as wide as registers: what was compared is what is used */

	/*
	 * So that the verifier sees what was compared, clang must not make one comparison of two with a
	 * number that it computes of len (it knows of no more after that than before), nor subtract
	 * data_end, a pointer, from len.
	 */
	asm volatile("" : "+r"(at), "+r"(len));
	if (len < XP_ETH_HLEN)
		return 0;
	asm volatile("" : "+r"(len));
	if (len > longest || at > room)
		return 0;
	have = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	asm volatile("" : "+r"(have));
	if (have != len && bpf_xdp_adjust_tail(ctx, (int)len - (int)have))
		return 0;
	return !xp_store_bytes(ctx, 0, bytes + at, len);
}

#endif
