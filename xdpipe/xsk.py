"""An AF_XDP socket on one queue of one interface, with its four rings."""

from __future__ import annotations

import errno
import os
import platform
import time
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Self

from xdpipe.core._core import ffi, lib
from xdpipe.drivers import quirks
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from xdpipe.link import Link
    from xdpipe.umem import Geometry, Umem

# linux/if_xdp.h, sxdp_flags
_XDP_COPY = 1 << 1
_XDP_ZEROCOPY = 1 << 2
_XDP_USE_NEED_WAKEUP = 1 << 3
_XDP_USE_SG = 1 << 4
MODES = {"auto": 0, "copy": _XDP_COPY, "zerocopy": _XDP_ZEROCOPY}

BUSY_POLL_US = 20
"""SO_BUSY_POLL; how long a call polls is decided by who calls, so any time does."""
BUSY_POLL_BUDGET = 64
"""Packets that a call takes from the driver at the most: as many as its own time's (NAPI)."""

REOPEN_S = 2.0
"""How long EBUSY is retried: a closed socket gives its queue back asynchronously."""

TX_SKB_BUDGET = 512
"""Packets a send call may send in copy mode, where the kernel can be told (Linux 6.17)."""


@dataclass(frozen=True)
class XskStatistics:
    """What the kernel counts on a socket (getsockopt XDP_STATISTICS).

    Packets that the program redirected and the socket never saw are those in `rx_dropped` (longer
    than a frame, or no frame on the fill ring) and in `rx_ring_full`. The others count events.
    """

    rx_dropped: int = 0
    rx_invalid_descs: int = 0
    tx_invalid_descs: int = 0
    rx_ring_full: int = 0
    rx_fill_ring_empty_descs: int = 0
    tx_ring_empty_descs: int = 0

    def __add__(self, other: XskStatistics) -> XskStatistics:
        return XskStatistics(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def drops(self) -> dict[str, int]:
        """Packets that were redirected to the socket and lost there, by counter."""
        return {"rx_dropped": self.rx_dropped, "rx_ring_full": self.rx_ring_full}


def _kernel_has_multi_buffer() -> bool:
    major, minor, *_ = platform.release().split(".")
    return (int(major), int("".join(filter(str.isdigit, minor)))) >= (6, 6)


class QueueBusy(XdpipeError):
    """Another AF_XDP socket holds the queue."""


class Xsk:
    """An AF_XDP socket and its rings; owns the descriptor.

    Made by `open` in the process that has the privilege, or from a descriptor that such a process
    handed over: the state of the rings lies in memory that all holders share. One of them works
    on the rings at a time.

    Attributes:
        tx_metadata: what NIC or kernel shall do with a packet that goes out can stand before it.
    """

    def __init__(self, fd: int, geometry: Geometry, shares_with: Self | None = None) -> None:
        self.fd = fd
        self.tx_metadata = False
        self._shares_with = shares_with
        self._ring_sizes = geometry.ring_sizes
        self._geometry = geometry
        self.c = ffi.new("struct xp_xsk *", {"fd": fd})
        self._check(lib.xp_xsk_map(self.c, *self._ring_sizes), "map the rings of an AF_XDP socket")

    @classmethod
    def open(
        cls, umem: Umem, shares_with: Self | None = None, *, tx_metadata: bool = False
    ) -> Self:
        """Make a socket over a UMEM, with rings, not yet bound to a queue.

        Args:
            umem: the frames.
            shares_with: a socket over the same UMEM, on another queue or another interface (Linux
                5.10). Each has rings of its own; a frame may come by the one and go by the other.
                That one is to be bound first; mode, need_wakeup and frames a packet are its.
            tx_metadata: of all packets that go out, XP_TX_METADATA bytes before the first are in
                their frame, and the kernel shall look at them where it can.

        Raises:
            XdpipeError: no AF_XDP, no privilege (CAP_NET_RAW), or no memory to pin.
        """
        geometry = umem.geometry
        c = ffi.new("struct xp_xsk *")
        cls._check(lib.xp_xsk_open(c), "open an AF_XDP socket")
        try:
            if shares_with is None:
                tx_metadata = cls._register(c.fd, umem, tx_metadata=tx_metadata)
            else:
                tx_metadata = shares_with.tx_metadata
            cls._check(lib.xp_xsk_ring_sizes(c.fd, *geometry.ring_sizes), "make AF_XDP rings")
            lib.xp_xsk_tx_budget(c.fd, TX_SKB_BUDGET)  # before Linux 6.17 it stays at 32
            xsk = cls(c.fd, geometry, shares_with)
            xsk.tx_metadata = tx_metadata
            return xsk
        except BaseException:
            os.close(c.fd)
            raise

    @classmethod
    def _register(cls, fd: int, umem: Umem, *, tx_metadata: bool) -> bool:
        """Register the UMEM; return whether the kernel looks at metadata."""
        for metadata in (lib.XP_TX_METADATA, 0) if tx_metadata else (0,):
            result = lib.xp_umem_register(
                fd, umem.c.base, umem.c.size, umem.geometry.frame_size, metadata
            )
            if result != -errno.EINVAL:
                break
        cls._check(result, f"register {umem.c.size >> 20} MiB as UMEM")
        return metadata != 0

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result >= 0:
            return
        cure = {
            errno.EPERM: "run it as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
            errno.EAFNOSUPPORT: "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
            errno.ENOBUFS: "more than RLIMIT_MEMLOCK allows; raise it with: ulimit -l unlimited",
            errno.ENOMEM: "out of memory",
            errno.EOPNOTSUPP: "the kernel is older than 5.4",
        }.get(-result, "")
        message = f"{what}: {os.strerror(-result)}"
        raise XdpipeError(f"{message}; {cure}" if cure else message)

    def busy_poll(self) -> None:
        """Have the driver's receive work done in the calls of whoever works on the socket.

        Needs CAP_NET_ADMIN; see also xdpipe.busy_poll.

        Raises:
            XdpipeError: not permitted, or the kernel is older than 5.11.
        """
        result = lib.xp_xsk_busy_poll(self.fd, BUSY_POLL_US, BUSY_POLL_BUDGET)
        if result == -errno.ENOPROTOOPT:
            raise XdpipeError("busy polling needs Linux 5.11; leave --busy-poll out")
        self._check(result, "set up busy polling")

    def bind(
        self,
        link: Link,
        queue: int,
        mode: str = "auto",
        patience_s: float = REOPEN_S,
        *,
        need_wakeup: bool = True,
    ) -> str:
        """Bind to a queue and return the mode obtained: `zerocopy` or `copy`.

        Args:
            link: the interface.
            queue: the number of the receive queue.
            mode: `auto` (zero copy, else copy), `zerocopy` or `copy` (that or nothing).
            patience_s: try for so long again while the queue is busy.
            need_wakeup: have the rings say when the driver must be woken, instead of waking it for
                each batch that is sent and having it look for frames by itself.

        Raises:
            QueueBusy: another socket holds the queue.
            XdpipeError: the queue does not exist or is taken, or the driver cannot do the mode.
        """
        flags = MODES[mode]
        if need_wakeup:
            flags |= _XDP_USE_NEED_WAKEUP
        if self._geometry.multi_buffer:
            flags |= _XDP_USE_SG
        umem_fd = -1 if self._shares_with is None else self._shares_with.fd
        end = time.monotonic() + patience_s
        while True:
            result = lib.xp_xsk_bind(self.fd, link.index, queue, flags, umem_fd)
            if result != -errno.EBUSY or time.monotonic() > end:
                break
            time.sleep(0.02)
        if result < 0:
            kind = QueueBusy if result == -errno.EBUSY else XdpipeError
            raise kind(self._bind_error(link, queue, mode, -result))
        return "zerocopy" if lib.xp_xsk_zero_copy(self.fd) == 1 else "copy"

    def _bind_error(self, link: Link, queue: int, mode: str, code: int) -> str:
        what = f"bind {link.name} queue {queue}"
        if code == errno.EBUSY:
            return (
                f"{what}: busy; another AF_XDP socket holds it (see: ss --xdp -p), "
                "stop that program first"
            )
        several = self._geometry.multi_buffer
        if code == errno.EINVAL and several and not _kernel_has_multi_buffer():
            most = replace(self._geometry, multi_buffer=False).largest_mtu(
                quirks(link.driver).rx_unit
            )
            return (
                f"{what}: packets of its MTU, {link.mtu}, need several frames of "
                f"{self._geometry.frame_size} bytes, and that takes Linux 6.6; lower the MTU with: "
                f"ip link set {link.name} mtu {most}"
            )
        if mode == "zerocopy" and code in (errno.EOPNOTSUPP, errno.EINVAL):
            driver = link.driver or "no driver"
            kind = f" for packets in several frames (its MTU is {link.mtu})" if several else ""
            return f"{what}: {link.name} ({driver}) has no zero copy{kind}; use --mode auto or copy"
        if code == errno.EINVAL and queue >= link.n_rx_queues:
            return f"{what}: no such queue; {link.name} has {link.n_rx_queues}"
        if code == errno.ENETDOWN:
            return f"{what}: {link.name} is down; set it up with: ip link set {link.name} up"
        return f"{what}: {os.strerror(code)}"

    def statistics(self) -> XskStatistics:
        """Read the kernel's counters of this socket."""
        out = ffi.new("uint64_t[6]")
        self._check(lib.xp_xsk_statistics(self.fd, out), "read XDP_STATISTICS")
        return XskStatistics(*(int(value) for value in out))

    @property
    def can_be_mapped(self) -> bool:
        """Whether another process can map the rings now.

        Always before bind; afterwards from Linux 6.4 on (xsk_mmap in net/xdp/xsk.c).
        """
        other = ffi.new("struct xp_xsk *", {"fd": self.fd})
        if lib.xp_xsk_map(other, *self._ring_sizes) < 0:
            return False
        lib.xp_xsk_unmap(other)
        return True

    @property
    def held_by_kernel(self) -> int:
        """Frames that the kernel holds and that are on no ring."""
        return int(lib.xp_held_by_kernel(self.c))

    def kick(self) -> None:
        """Have the kernel send what is on the tx ring."""
        lib.xp_xsk_kick(self.fd)

    @property
    def n_rx(self) -> int:
        """Packets on the rx ring, waiting for a worker."""
        return int(lib.xp_ring_count(ffi.addressof(self.c, "rx")))

    def close(self) -> None:
        """Unmap the rings and close the descriptor."""
        if self.fd >= 0:
            lib.xp_xsk_unmap(self.c)
            os.close(self.fd)
            self.fd = -1
