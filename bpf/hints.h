/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the NIC tells of a packet besides its bytes. The steering program writes it right before the
 * packet (XDP metadata, Documentation/networking/xdp-rx-metadata.rst), the worker reads it there
 * (xdpipe/core/receive.c). Plain types of C, since both include this.
 */
#ifndef XP_HINTS_H
#define XP_HINTS_H

#define XP_HINTS_MAGIC 0x78706874u /* it was written at all: drivers may have no room for it */

#define XP_HINT_HASH 1
#define XP_HINT_TIME 2
#define XP_HINT_VLAN 4

struct xp_hints {
	unsigned int magic;
	unsigned int present; /* XP_HINT_* */
	unsigned long long time_ns;
	unsigned int hash;
	unsigned short vlan_tci;
	unsigned short unused;
};

#endif
