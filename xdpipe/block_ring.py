"""A ring of pcapng blocks or records in shared memory: from a worker to who writes them down."""

from __future__ import annotations

import mmap
import os
from typing import Any, NamedTuple

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.process import Process, shared_memory

_WITHOUT_LIMIT = (1 << 64) - 1


class Position(NamedTuple):
    """Where a reader is.

    Attributes:
        consumer: bytes of the ring that it has written down.
        packets: that these were.
        file: number of the file that it writes to.
        offset: bytes that this file has.
    """

    consumer: int
    packets: int = 0
    file: int = 0
    offset: int = 0


def ring_size(size: int) -> int:
    """Return a size that a ring can have: the next power of two, at least a page."""
    return max(mmap.PAGESIZE, 1 << (size - 1).bit_length())


class BlockRing:
    """A ring of a worker's blocks, mapped by this process (core/blocks.c).

    Or of its records, all of one size: those are meant by packets then. A worker fills it and never
    waits; what finds no room is counted as lost. One other process reads it, by `peek` and
    `release`. The memory lives as long as somebody has it.

    Args:
        size: bytes for blocks; see `ring_size`.
        fd: of the memory that another process made; None: make it. Owned by this object.
        populate: have all of its memory there at once; else as it is touched.

    Raises:
        XdpipeError: no memory for it.
    """

    def __init__(self, size: int, fd: int | None = None, *, populate: bool = False) -> None:
        if fd is None:
            fd = shared_memory("xdpipe-blocks", lib.xp_blocks_bytes(size))
        self.fd = fd
        self.size = size
        self.c: Any = lib.xp_blocks_map(self.fd, size, populate)
        if self.c == ffi.NULL:
            reason = os.strerror(ffi.errno)
            os.close(self.fd)
            self.fd = -1
            raise XdpipeError(f"a ring of {size >> 20} MiB for copies of packets: {reason}")
        self._data = ffi.new("uint8_t **")
        self._n_packets = ffi.new("uint64_t *")

    @property
    def attached(self) -> bool:
        """Whether a worker writes to it, or has."""
        return bool(lib.xp_blocks_attached(self.c))

    def attach(self) -> None:
        """Say that this process writes to it from now on."""
        lib.xp_blocks_attach(self.c)

    @property
    def writer(self) -> Process:
        """The process that writes to it, or did, as it says itself."""
        return Process.of(int(lib.xp_blocks_attached(self.c)) & 0x7FFFFFFF)

    @property
    def n_packets(self) -> int:
        """Packets that were written."""
        return int(lib.xp_blocks_packets(self.c))

    @property
    def n_lost(self) -> int:
        """Packets that found no room."""
        return int(lib.xp_blocks_lost(self.c))

    @property
    def position(self) -> Position:
        """Where its reader is."""
        at = lib.xp_blocks_position(self.c)
        return Position(at.consumer, at.packets, at.file, at.offset)

    def n_waiting(self, start: int) -> int:
        """Bytes behind position `start`, which the reader has reached.

        Raises:
            XdpipeError: the worker wrote nonsense.
        """
        there = lib.xp_blocks_peek(self.c, start, self._data)
        if there < 0:
            raise XdpipeError("a worker's ring of blocks is damaged")
        return int(there)

    def peek(
        self, start: int, max_bytes: int, max_packets: int = _WITHOUT_LIMIT
    ) -> tuple[memoryview, int]:
        """Return whole blocks from position `start` on, and how many packets they are.

        Args:
            start: position that the reader has reached.
            max_bytes: of them at the most, and not less than the longest block has.
            max_packets: likewise.

        Returns:
            A view of the ring, valid until `release` of what it shows, and the number of packets.

        Raises:
            XdpipeError: the worker wrote what is no block.
        """
        there = self.n_waiting(start)
        n = lib.xp_blocks_whole(self._data[0], there, max_bytes, max_packets, self._n_packets)
        if there and max_packets and not n:
            raise XdpipeError("a worker's ring of blocks is damaged")
        return memoryview(ffi.buffer(self._data[0], n)), int(self._n_packets[0])

    def peek_records(self, start: int, size: int, most: int) -> tuple[memoryview, int]:
        """Return whole records from position `start` on, and how many they are.

        Args:
            start: position that the reader has reached.
            size: bytes of each record.
            most: records at the most.

        Returns:
            A view of the ring, valid until `release` of what it shows, and the number of records.

        Raises:
            XdpipeError: the worker wrote nonsense.
        """
        there = self.n_waiting(start)
        if there % size:
            raise XdpipeError("a worker's ring of records is damaged")
        n = min(there // size, most)
        return memoryview(ffi.buffer(self._data[0], n * size)), n

    def release(self, position: Position) -> None:
        """Give what lies before a position back to the worker."""
        lib.xp_blocks_release(self.c, tuple(position))

    def close(self) -> None:
        """Unmap it and close the descriptor. May be called twice."""
        if self.fd >= 0:
            lib.xp_blocks_unmap(self.c)
            os.close(self.fd)
        self.fd = -1
