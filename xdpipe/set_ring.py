"""How keys for sets come from a worker to the supervisor: by a ring in shared memory, unawaited."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi, lib
from xdpipe.process import shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES = -(-lib.xp_set_ring_bytes() // mmap.PAGESIZE) * mmap.PAGESIZE
_AT_ONCE = 4096
"""Keys that are taken at once."""


class SetRing:
    """The ring of one worker. It outlives the worker, so that what was handed over is not lost.

    Args:
        fd: of the memory that another process made; None: make it. Owned by this object.
        event_fd: of an eventfd(2) by which the supervisor learns that there are keys; likewise.
    """

    def __init__(self, fd: int | None = None, event_fd: int | None = None) -> None:
        self.fd = shared_memory("xdpipe-sets", _BYTES) if fd is None else fd
        if event_fd is None:
            event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.event_fd = event_fd
        self._map = mmap.mmap(self.fd, _BYTES)
        self._memory = ffi.from_buffer(self._map)
        self._recent = ffi.new("uint8_t[]", lib.xp_set_recent_bytes())

    def put(self, number: int, addresses: Any, n: int, length4: int, length6: int) -> int:
        """Hand addresses over; return how many are on the ring that were not handed over just now.

        Args:
            number: of the set.
            addresses: uint8[n, 16], contiguous.
            n: how many.
            length4: bits of the prefixes of IPv4 addresses, 96 to 128.
            length6: bits of the prefixes of the others.
        """
        keys = ffi.from_buffer("uint8_t[]", addresses)
        put = lib.xp_set_ring_put(self._memory, self._recent, number, keys, n, length4, length6)
        if put:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self.event_fd, 1)
        return int(put)

    def take(self) -> Iterator[list[tuple[int, int, bytes]]]:
        """Take what is on the ring: set, length of the prefix, address; some at a time."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.event_fd)
        keys = ffi.new("struct xp_set_key[]", _AT_ONCE)
        while n := lib.xp_set_ring_take(self._memory, keys, _AT_ONCE):
            yield [
                (keys[i].set, keys[i].length, bytes(ffi.buffer(keys[i].address))) for i in range(n)
            ]

    @property
    def n_lost(self) -> int:
        """Keys that the ring had no room for."""
        return int(lib.xp_set_ring_lost(self._memory))

    def close(self) -> None:
        """Close the descriptors. May be called twice."""
        for fd in (self.fd, self.event_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.event_fd = -1
