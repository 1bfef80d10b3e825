"""Large writes to files, several under way at once: by io_uring, or by threads without one."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 16
"""Writes that are under way at the most."""


class Disk(Protocol):
    """What writes."""

    name: str

    @property
    def n_under_way(self) -> int:
        """Writes that have not ended."""
        ...

    def fileno(self) -> int:
        """Return a descriptor that is readable when a write has ended."""
        ...

    def write(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        """Begin to write; return the write's number. `data` must stay as it is until it has ended.

        Raises:
            OSError: it could not be begun.
        """
        ...

    def ended(self) -> Iterator[tuple[int, int]]:
        """Yield the writes that have ended: number, and bytes written or -errno."""
        ...

    def close(self) -> None:
        """Let go of it; nothing may be under way."""
        ...


class UringDisk:
    """By io_uring: nothing but a system call for each write (core/uring.c).

    Raises:
        XdpipeError: the kernel has none, or not for us (kernel.io_uring_disabled).
    """

    name = "io_uring"

    def __init__(self) -> None:
        self._c = lib.xp_uring_open(DEPTH)
        if self._c == ffi.NULL:
            raise XdpipeError(f"io_uring: {os.strerror(ffi.errno)}")
        self._n = 0
        self._data: dict[int, Any] = {}
        self._tag, self._result = ffi.new("uint64_t *"), ffi.new("int32_t *")

    @property
    def n_under_way(self) -> int:
        """Writes that have not ended."""
        return len(self._data)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a write has ended."""
        return int(lib.xp_uring_fd(self._c))

    def write(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        """See Disk.write."""
        self._n += 1
        memory = ffi.from_buffer(data)
        status = lib.xp_uring_write(self._c, fd, memory, len(memory), offset, self._n)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        self._data[self._n] = memory
        return self._n

    def ended(self) -> Iterator[tuple[int, int]]:
        """See Disk.ended."""
        while lib.xp_uring_reap(self._c, self._tag, self._result):
            del self._data[self._tag[0]]
            yield self._tag[0], self._result[0]

    def close(self) -> None:
        """See Disk.close."""
        if self._c != ffi.NULL:
            lib.xp_uring_close(self._c)
        self._c = ffi.NULL


class ThreadDisk:
    """By threads that call pwrite(2)."""

    name = "threads"

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2)
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done: deque[tuple[int, int]] = deque()
        self._n = 0
        self.n_under_way = 0

    def fileno(self) -> int:
        """Return a descriptor that is readable when a write has ended."""
        return self._event

    def write(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        """See Disk.write."""
        self._n += 1
        self.n_under_way += 1
        self._threads.submit(self._write, self._n, fd, data, offset)
        return self._n

    def _write(self, number: int, fd: int, data: memoryview | bytes, offset: int) -> None:
        try:
            result = os.pwrite(fd, data, offset)
        except OSError as error:
            result = -(error.errno or 5)
        self._done.append((number, result))
        os.eventfd_write(self._event, 1)

    def ended(self) -> Iterator[tuple[int, int]]:
        """See Disk.ended."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        while self._done:
            self.n_under_way -= 1
            yield self._done.popleft()

    def close(self) -> None:
        """See Disk.close."""
        self._threads.shutdown()
        if self._event >= 0:
            os.close(self._event)
        self._event = -1


def open_disk() -> Disk:
    """Return what this machine has."""
    try:
        return UringDisk()
    except XdpipeError:
        return ThreadDisk()
