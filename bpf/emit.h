// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What who replays by live frames shares with the program that sends: the one entry of an mmapable array
 * map. Plain types of C, since both include this.
 */
#ifndef XP_EMIT_H
#define XP_EMIT_H

#define XP_EMIT_MAX 1024         /* packets a call */
#define XP_EMIT_BYTES (64 << 20) /* of packets that lie ready */
#define XP_EMIT_LONGEST 3520     /* no frame of live mode has more room; it may have less */

struct xp_emit {
	unsigned long long emitted; /* by the program, since the map was made */
	unsigned long long refused; /* likewise: longer than the kernel's frames */
	unsigned int next;          /* packet that the program takes next */
	unsigned int ifindex;       /* of the link that they go out of; 0: into the stack */
	struct {
		unsigned int at; /* offset in bytes */
		unsigned int len;
	} packets[XP_EMIT_MAX];
	unsigned char bytes[XP_EMIT_BYTES + 4096] __attribute__((aligned(4096)));
};

#endif
