"""The memory in which a worker counts and the supervisor reads: no message, no lock."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi, lib
from xdpipe.process import shared_memory
from xdpipe.stage_info import StageInfo, read_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTENTION = 0
"""uint64 0, a cache line of its own, is the supervisor's: it wants the worker's attention."""
_PORTS = 8
"""From uint64 8 on: each port's counters, XP_COUNTERS of core/counters.h, on own cache lines."""

NAMES = tuple(ffi.string(lib.xp_counter_names[i].name).decode() for i in range(lib.xp_n_counters))
_PORT = -(-len(NAMES) // 8) * 8
"""uint64 of a port. Behind the last one: the stages' counts."""


class CountersPage:
    """Counters of one worker in a memfd: uint64, native byte order, one writer each.

    The worker writes with plain stores, the supervisor reads whenever it likes. The page
    outlives the worker, so that the next one counts on.

    Args:
        infos: the stages whose counts it has room for.
        n_ports: of the worker.
        fd: of a page that another process made; None: make one. Owned by this object.
    """

    def __init__(self, infos: Sequence[StageInfo], n_ports: int = 1, fd: int | None = None) -> None:
        self._infos = tuple(infos)
        self.n_ports = n_ports
        self._stages = _PORTS + n_ports * _PORT
        n_words = self._stages + sum(info.n_counts for info in infos)
        size = -(-n_words * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
        if fd is None:
            fd = shared_memory("xdpipe-counters", size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        self.words = memoryview(self._map).cast("Q")

    def c_counters(self, port: int = 0) -> Any:
        """Return a port's counters as struct xp_counters *."""
        return ffi.cast("struct xp_counters *", self._address(_PORTS + port * _PORT))

    @property
    def c_attention(self) -> Any:
        """The word that the supervisor adds to, as uint32_t *."""
        return ffi.cast("uint32_t *", self._address(_ATTENTION))

    def _address(self, word: int) -> Any:
        return ffi.cast("uint64_t *", ffi.from_buffer(self._map)) + word

    @property
    def stage_counts(self) -> memoryview:
        """The stages' counts, for the chain."""
        return self.words[self._stages :]

    def call(self) -> None:
        """Ask the worker to look at its control socket (supervisor only)."""
        attention = self.c_attention
        attention[0] = (attention[0] + 1) & 0xFFFFFFFF

    def read_port(self, port: int) -> dict[str, int]:
        """Return a port's counters by name."""
        first = _PORTS + port * _PORT
        return dict(zip(NAMES, self.words[first : first + len(NAMES)], strict=True))

    def read(self) -> dict[str, int]:
        """Return the counters by name, each summed over the ports."""
        ports = [self.read_port(port) for port in range(self.n_ports)]
        return {name: sum(port[name] for port in ports) for name in NAMES}

    def read_stages(self) -> list[dict[str, Any]]:
        """Return the stages' counts."""
        return read_counts(self._infos, self.stage_counts)

    def close(self) -> None:
        """Close the descriptor. The mapping goes when nothing refers to it any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
