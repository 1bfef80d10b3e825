/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Loads from the packet, as classic BPF defines them: big-endian, and a load that is not wholly
 * within the packet makes the function return 0. For functions with `data` and `data_end` in scope
 * (xdpipe/filter.py writes them).
 *
 * What the kernel's verifier wants (find_good_pkt_pointers in kernel/bpf/verifier.c): the pointer
 * that was compared with data_end is the one that is loaded through, and the offset in it is known
 * to be at most MAX_PACKET_OFF, 0xffff. A load that ends beyond that is out of the packet for us;
 * no driver gives XDP a linear packet so long.
 *
 * clang does not know this. Left alone it may compare one register and add another that holds the
 * same, or compute data + offset twice, which makes two pointers for the verifier. An empty asm
 * that claims to change the variable hides where its value came from, so that all uses after it are
 * of that one register. A constant offset needs none of this.
 */
#ifndef XP_LOAD_H
#define XP_LOAD_H

#define XP_OFFSET_MAX (0xffff - 4)

#define xp_u8(value) (value)
#define xp_u16(value) __builtin_bswap16(value)
#define xp_u32(value) __builtin_bswap32(value)

/* variable = the type at data + offset, a constant */
#define XP_LOAD(type, variable, offset)                                                         \
	do {                                                                                    \
		if ((offset) > XP_OFFSET_MAX || data + (offset) + sizeof(type) > data_end)      \
			return 0;                                                               \
		variable = xp_##type(*(type *)(data + (offset)));                               \
	} while (0)

/* variable = the type at data + offset, which is 64 bits wide and so has not wrapped around */
#define XP_LOAD_AT(type, variable, offset)                                                      \
	do {                                                                                    \
		u64 xp_offset = (offset);                                                       \
		asm volatile("" : "+r"(xp_offset));                                             \
		if (xp_offset > XP_OFFSET_MAX)                                                  \
			return 0;                                                               \
		void *xp_at = data + xp_offset;                                                 \
		asm volatile("" : "+r"(xp_at));                                                 \
		if (xp_at + sizeof(type) > data_end)                                            \
			return 0;                                                               \
		variable = xp_##type(*(type *)xp_at);                                           \
	} while (0)

#endif
