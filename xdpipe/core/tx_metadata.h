/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What NIC or kernel shall do with a packet that leaves, and what they tell of it: before its first
 * byte (Documentation/networking/xsk-tx-metadata.rst; linux/if_xdp.h of Linux 6.8).
 */
#ifndef XP_TX_METADATA_H
#define XP_TX_METADATA_H

#include "xp.h"

#define XDP_TXMD_FLAGS_TIMESTAMP (1 << 0)
#define XDP_TXMD_FLAGS_CHECKSUM (1 << 1)

struct xp_tx_metadata {
	uint64_t flags;
	union {
		struct {
			uint16_t checksum_start;
			uint16_t checksum_offset;
		};
		uint64_t time_ns; /* once it has left */
	};
	uint64_t launch_time;
};
_Static_assert(sizeof(struct xp_tx_metadata) == XP_TX_METADATA, "as registered with the UMEM");

#endif
