/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP sockets by the kernel's own interface, linux/if_xdp.h. No libxdp: taking over the socket
 * of another process is not in it. What the distribution's header is too old for is declared here.
 * Everything returns 0 (or a value) or -errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_xdp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ring.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif
#ifndef XDP_UMEM_TX_METADATA_LEN /* Linux 6.11 */
#define XDP_UMEM_TX_METADATA_LEN (1 << 2)
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET /* Linux 6.17 */
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

static int set_option(int fd, int name, const void *value, socklen_t size)
{
	return setsockopt(fd, SOL_XDP, name, value, size) ? -errno : 0;
}

/* Make a socket; xsk->fd is it. Needs CAP_NET_RAW. */
int xp_xsk_open(struct xp_xsk *xsk)
{
	memset(xsk, 0, sizeof(*xsk));
	xsk->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	return xsk->fd < 0 ? -errno : 0;
}

/*
 * Register `size` bytes at `base` as the UMEM; the kernel pins them. Before each packet that goes out
 * are tx_metadata bytes in which what NIC or kernel shall do can stand; -EINVAL where the kernel does
 * not know that (before Linux 6.11).
 */
int xp_umem_register(int fd, void *base, uint64_t size, uint32_t frame_size, uint32_t tx_metadata)
{
	/* struct xdp_umem_reg; a shorter one the kernel takes for one without flags (Linux 5.4) */
	struct {
		uint64_t addr, len;
		uint32_t chunk_size, headroom, flags, tx_metadata_len;
	} reg = {
		.addr = (uint64_t)(uintptr_t)base,
		.len = size,
		.chunk_size = frame_size,
		/* frames of any size, which need not begin at a multiple of it */
		.flags = frame_size & (frame_size - 1) ? XDP_UMEM_UNALIGNED_CHUNK_FLAG : 0,
		.tx_metadata_len = tx_metadata,
	};

	if (tx_metadata)
		reg.flags |= XDP_UMEM_TX_METADATA_LEN;
	return set_option(fd, XDP_UMEM_REG, &reg, sizeof(reg));
}

/* Make the rings; sizes are powers of two. */
int xp_xsk_ring_sizes(int fd, uint32_t fill, uint32_t rx, uint32_t tx, uint32_t completion)
{
	int err = set_option(fd, XDP_UMEM_FILL_RING, &fill, sizeof(fill));

	if (!err)
		err = set_option(fd, XDP_UMEM_COMPLETION_RING, &completion, sizeof(completion));
	if (!err)
		err = set_option(fd, XDP_RX_RING, &rx, sizeof(rx));
	if (!err)
		err = set_option(fd, XDP_TX_RING, &tx, sizeof(tx));
	return err;
}

static int map_ring(struct xp_ring *ring, int fd, const struct xdp_ring_offset *at, off_t page,
		    uint32_t size, size_t entry, int we_produce)
{
	size_t bytes = at->desc + size * entry;
	uint8_t *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page);

	if (map == MAP_FAILED)
		return -errno;
	xp_ring_init(ring, (uint32_t *)(map + at->producer), (uint32_t *)(map + at->consumer),
		     (uint32_t *)(map + at->flags), map + at->desc, size, we_produce);
	ring->map = map;
	ring->map_size = bytes;
	return 0;
}

/*
 * Map the four rings of xsk->fd, in the process that made the socket or in another one that was
 * handed the descriptor: all state of a ring lies in the shared memory.
 */
int xp_xsk_map(struct xp_xsk *xsk, uint32_t fill, uint32_t rx, uint32_t tx, uint32_t completion)
{
	struct xdp_mmap_offsets at;
	socklen_t size = sizeof(at);
	int err;

	if (getsockopt(xsk->fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &size))
		return -errno;
	if (size != sizeof(at)) /* before Linux 5.4: no flags, and no need_wakeup */
		return -EOPNOTSUPP;
	err = map_ring(&xsk->fill, xsk->fd, &at.fr, XDP_UMEM_PGOFF_FILL_RING, fill,
		       sizeof(uint64_t), 1);
	if (!err)
		err = map_ring(&xsk->completion, xsk->fd, &at.cr, XDP_UMEM_PGOFF_COMPLETION_RING,
			       completion, sizeof(uint64_t), 0);
	if (!err)
		err = map_ring(&xsk->rx, xsk->fd, &at.rx, XDP_PGOFF_RX_RING, rx,
			       sizeof(struct xdp_desc), 0);
	if (!err)
		err = map_ring(&xsk->tx, xsk->fd, &at.tx, XDP_PGOFF_TX_RING, tx,
			       sizeof(struct xdp_desc), 1);
	if (err)
		xp_xsk_unmap(xsk);
	return err;
}

/* Unmap the rings. The socket stays open: its descriptor is the caller's. */
void xp_xsk_unmap(struct xp_xsk *xsk)
{
	struct xp_ring *rings[] = {&xsk->fill, &xsk->completion, &xsk->rx, &xsk->tx};

	for (int i = 0; i < 4; i++) {
		if (rings[i]->map)
			munmap(rings[i]->map, rings[i]->map_size);
		memset(rings[i], 0, sizeof(*rings[i]));
	}
}

/*
 * Bind to a queue. flags: XDP_COPY, XDP_ZEROCOPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG; none of the first
 * two means zero copy, else copy. umem_fd: a bound socket whose UMEM is this one's, too, or -1; it
 * decides the flags then.
 */
int xp_xsk_bind(int fd, uint32_t ifindex, uint32_t queue, uint16_t flags, int umem_fd)
{
	struct sockaddr_xdp addr = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = umem_fd < 0 ? flags : XDP_SHARED_UMEM,
		.sxdp_ifindex = ifindex,
		.sxdp_queue_id = queue,
		.sxdp_shared_umem_fd = umem_fd < 0 ? 0 : (uint32_t)umem_fd,
	};

	return bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
}

/* 1 if zero copy was obtained, 0 if copy mode. */
int xp_xsk_zero_copy(int fd)
{
	struct xdp_options options;
	socklen_t size = sizeof(options);

	if (getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &size))
		return -errno;
	return !!(options.flags & XDP_OPTIONS_ZEROCOPY);
}

/*
 * out: rx_dropped, rx_invalid_descs, tx_invalid_descs, rx_ring_full, rx_fill_ring_empty_descs,
 * tx_ring_empty_descs (struct xdp_statistics). A kernel before 5.9 gives the first three.
 */
int xp_xsk_statistics(int fd, uint64_t out[6])
{
	socklen_t size = 6 * sizeof(uint64_t);

	memset(out, 0, size);
	return getsockopt(fd, SOL_XDP, XDP_STATISTICS, out, &size) ? -errno : 0;
}

/*
 * Have the driver's receive work done in the calls of who holds the socket, in preference to the
 * driver's own time (Documentation/networking/napi.rst, "Busy polling"; Linux 5.11). A budget above
 * the system's takes CAP_NET_ADMIN.
 */
int xp_xsk_busy_poll(int fd, uint32_t timeout_us, uint32_t budget)
{
	const int on = 1, timeout = (int)timeout_us, packets = (int)budget;

	if (setsockopt(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &timeout, sizeof(timeout)) ||
	    setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &packets, sizeof(packets)))
		return -errno;
	return 0;
}

/* In copy mode one send call sends 32 packets at most, unless told otherwise (Linux 6.17). */
int xp_xsk_tx_budget(int fd, uint32_t budget)
{
	return set_option(fd, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));
}

/* Have the kernel send what is on the tx ring; in copy mode, a budget of packets. */
void xp_xsk_kick(int fd)
{
	sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
}
