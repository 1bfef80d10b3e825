/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a worker shares with the program that gives its packets back to the kernel: the one entry of
 * an mmapable array map. Plain types of C, since both include this.
 */
#ifndef XP_INJECT_H
#define XP_INJECT_H

#define XP_INJECT_MAX 256 /* packets a call: the kernel's own batch, which nothing interrupts */
#define XP_INJECT_BYTES (1 << 18)
#define XP_INJECT_LONGEST 3520 /* no frame of live mode has more room; it may have less */

struct xp_inject {
	unsigned long long injected; /* by the program, since the map was made */
	unsigned long long refused;  /* likewise: longer than the kernel's frames */
	unsigned int next;           /* packet that the program takes next */
	unsigned int unused;
	struct {
		unsigned int at; /* offset in bytes */
		unsigned int len;
	} packets[XP_INJECT_MAX];
	unsigned char bytes[XP_INJECT_BYTES + XP_INJECT_LONGEST];
};

#endif
