"""The frame memory of one worker: n_frames x frame_size bytes in a memfd."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi, lib
from xdpipe.drivers import quirks
from xdpipe.errors import XdpipeError
from xdpipe.process import HUGE_PAGE, shared_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.link import Link

_SIZES = (2048, 4096)
FRAMES_MAX = 17
"""Of a packet: its first buffer and MAX_SKB_FRAGS - 1 more, as the kernel is configured."""
KERNEL_HEADROOM = 256
"""Bytes that the kernel keeps before a received packet (XDP_PACKET_HEADROOM)."""
_ETHERNET_AND_TWO_TAGS = 14 + 2 * 4


@dataclass(frozen=True)
class Geometry:
    """Sizes of a UMEM and of the rings over it.

    Attributes:
        n_frames: frames, a power of two.
        frame_size: bytes, 2048 to 4096 (xdp_umem_reg in net/xdp/xdp_umem.c). Other sizes than those
            two need huge pages: a frame may lie on two pages, which must be neighbours.
        tx_size: descriptors on the tx ring, a power of two.
        huge_pages: whether the UMEM lies on pages of 2 MiB.
        multi_buffer: a packet may lie in several frames (XDP_USE_SG, Linux 6.6), 17 at the most.

    The fill, rx and completion ring have room for all frames. So no frame that comes back is ever
    turned away, and the kernel drops for want of a frame (rx_dropped) rather than for want of rx
    room, which would leave a frame hidden in its pool, out of the reach of a next worker.
    """

    n_frames: int = 4096
    frame_size: int = 2048
    tx_size: int = 2048
    huge_pages: bool = False
    multi_buffer: bool = False

    @property
    def size(self) -> int:
        """Bytes of the UMEM: frames side by side, none across two blocks of XP_BLOCK (xp.h)."""
        blocks = -(-self.n_frames // (lib.XP_BLOCK // self.frame_size))
        if self.huge_pages or self.frame_size & (self.frame_size - 1):
            return int(blocks * lib.XP_BLOCK)
        return self.n_frames * self.frame_size

    @property
    def longest_packet(self) -> int:
        """Bytes of the longest packet that is received whole."""
        return self.frame_size - KERNEL_HEADROOM

    def holds(self, mtu: int, rx_unit: int = 1) -> bool:
        """Whether packets of that MTU fit in a frame with their Ethernet header and two VLAN tags.

        Args:
            mtu: bytes of the largest packet, without the Ethernet header.
            rx_unit: the NIC fills only so many whole units of what is free in a frame; bytes.
        """
        return mtu <= self.largest_mtu(rx_unit)

    def largest_mtu(self, rx_unit: int = 1) -> int:
        """Return the largest MTU whose packets fit; see `holds`."""
        room = self.longest_packet // rx_unit * rx_unit
        return room * (FRAMES_MAX if self.multi_buffer else 1) - _ETHERNET_AND_TWO_TAGS

    @property
    def ring_sizes(self) -> tuple[int, int, int, int]:
        """Entries on the fill, rx, tx and completion ring."""
        return self.n_frames, self.n_frames, self.tx_size, self.n_frames

    def for_ports(self, n_ports: int) -> Geometry:
        """Return as many frames for each of several ports, or more: a power of two in all."""
        n_frames = self.n_frames * n_ports
        return replace(self, n_frames=1 << (n_frames - 1).bit_length())

    @classmethod
    def for_link(
        cls,
        link: Link,
        frame_size: int | None = None,
        *,
        huge_pages: bool = False,
        multi_buffer: bool = False,
    ) -> Geometry:
        """Choose the frame size for an interface, with room for its headers and two VLAN tags.

        Args:
            link: the interface.
            frame_size: this one; None: 2048, or 4096 where packets of its MTU do not fit.
            huge_pages: whether the UMEM shall lie on huge pages.
            multi_buffer: whether packets may lie in several frames if they do not fit in one.

        Raises:
            XdpipeError: a packet of its MTU does not fit; or there is no such frame size.
        """
        if frame_size is not None and frame_size not in _SIZES:
            if not _SIZES[0] <= frame_size <= _SIZES[-1]:
                raise XdpipeError(
                    f"frame size {frame_size}: the kernel takes {_SIZES[0]} to {_SIZES[-1]} bytes"
                )
            if not huge_pages:
                raise XdpipeError(
                    f"frame size {frame_size}: other sizes than {_SIZES[0]} and {_SIZES[-1]} need "
                    "huge pages; add --huge-pages"
                )
        unit = quirks(link.driver).rx_unit
        for size in _SIZES if frame_size is None else (frame_size,):
            geometry = cls(frame_size=size, huge_pages=huge_pages)
            if geometry.holds(link.mtu, unit):
                return geometry
        if multi_buffer:
            geometry = replace(geometry, multi_buffer=True)
            if geometry.holds(link.mtu, unit):
                return geometry
        most = geometry.largest_mtu(unit)
        raise XdpipeError(
            f"{link.name}: its MTU of {link.mtu} does not fit in a frame; "
            f"lower it with: ip link set {link.name} mtu {most}"
            + (", or leave --frame-size out" if frame_size else "")
        )


class Umem:
    """Frames in shared memory, and the list of those that are free.

    The memory outlives the process that works on it as long as somebody holds the descriptor:
    the supervisor makes it, each worker of the queue maps it.

    Args:
        geometry: how many frames of which size.
        fd: of a memfd that another process made; None: make one. Owned by this object.
    """

    def __init__(self, geometry: Geometry, fd: int | None = None) -> None:
        self.geometry = geometry
        size = geometry.size
        if fd is None:
            try:
                fd = shared_memory("xdpipe-umem", size, huge_pages=geometry.huge_pages)
            except OSError as error:
                raise XdpipeError(f"memory of {size} bytes: {error.strerror}") from error
        self.fd = fd
        try:
            self._map = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError as error:
            self.close()
            if not geometry.huge_pages:
                raise XdpipeError(f"map {size} bytes: {error.strerror}") from error
            n = size // HUGE_PAGE
            raise XdpipeError(
                f"no {n} huge pages of 2 MiB are free, as each queue takes; reserve more: "
                f"sysctl vm.nr_hugepages={n} for one queue"
            ) from error
        self._free = ffi.new("uint64_t[]", geometry.n_frames)
        self._base = ffi.from_buffer("uint8_t[]", self._map, require_writable=True)
        self.c = ffi.new(
            "struct xp_umem *",
            {
                "base": self._base,
                "size": size,
                "frame_size": geometry.frame_size,
                "n_frames": geometry.n_frames,
                "free": self._free,
            },
        )

    @property
    def memory(self) -> mmap.mmap:
        """The frames as one writable buffer."""
        return self._map

    @property
    def n_free(self) -> int:
        """How many frames are on the free list."""
        return int(self.c.n_free)

    def give_all(self, xsks: Sequence[Any]) -> None:
        """Put every frame on the fill ring of a fresh socket; of several, each has its share.

        Before bind, since a zero-copy driver takes its frames there.
        """
        share = self.geometry.n_frames // len(xsks)
        for number, xsk in enumerate(xsks):
            frames = range(number * share, (number + 1) * share)
            addresses = ffi.new("uint64_t[]", [lib.xp_frame_addr(self.c, i) for i in frames])
            lib.xp_fill_submit(ffi.addressof(xsk.c, "fill"), addresses, share)

    def adopt(self, worker: Any) -> bool:
        """Put those frames on the free list that are on none of the rings of a worker's ports.

        Args:
            worker: struct xp_worker *, over this UMEM.

        Returns:
            False, and nothing is changed, while the kernel holds frames on no ring.
        """
        marks = ffi.new("uint8_t[]", self.geometry.n_frames)
        return bool(lib.xp_adopt(worker, marks) == 0)

    def close(self) -> None:
        """Close the descriptor. The mapping goes when nothing refers to it any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
