"""The table of flows of a stage FlowMeter, and its memory (core/flow_table.c)."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xdpipe.batch import COLUMNS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from xdpipe.block_ring import BlockRing
    from xdpipe.recording import FlowOptions

LABELS_MAX: int = lib.XP_FLOW_LABELS
LABEL_MAX: int = lib.XP_FLOW_LABEL
TOP: int = lib.XP_FLOW_TOP
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of madvise(2), Linux 5.14."""


def _c_options(options: FlowOptions) -> dict[str, int]:
    return {
        "n_flows": options.n_flows,
        "idle_ns": options.idle_ns,
        "active_ns": options.active_ns,
        "linger_ns": options.linger_ns,
        "n_labels": len(options.labels),
        "label_bytes": options.label_bytes if options.labels else 0,
        "by_vlan": options.by_vlan,
        "evict": options.evict,
    }


def table_bytes(options: FlowOptions) -> int:
    """Return how much memory a table takes."""
    return int(lib.xp_flows_bytes(ffi.new("struct xp_flow_options *", _c_options(options))))


def record_bytes(options: FlowOptions) -> int:
    """Return how long one flow's record is."""
    labels = len(options.labels) * (1 + options.label_bytes)
    return int(ffi.sizeof("struct xp_flow_record")) + -(-labels // 8) * 8


class FlowTable:
    """Flows in memory that is allocated once.

    Args:
        options: of the flows.
        ring: where records go, attached by this process; None: nowhere. Stays the caller's.
        fd: of memory that outlives the process, whose flows go on; None: memory of its own. Stays
            the caller's.
        counters: uint64_t *, of enum xp_flow_count; None: memory of its own.

    Raises:
        XdpipeError: no memory for it.
    """

    def __init__(
        self,
        options: FlowOptions,
        ring: BlockRing | None = None,
        fd: int | None = None,
        counters: Any = None,
    ) -> None:
        size = table_bytes(options)
        try:
            self._memory = _mapped(size, fd)
        except (OSError, ValueError) as error:
            raise XdpipeError(
                f"a table of {options.n_flows:,} flows takes {size >> 20:,} MiB: {error}; "
                "give a smaller n_flows"
            ) from error
        if counters is None:
            counters = self._counters = ffi.new("uint64_t[]", lib.XP_FLOW_N_REASONS + 5)
        self._refused = ffi.new("uint32_t[]", lib.XP_FLOW_REFUSED)
        self.c = ffi.new(
            "struct xp_flow_meter_state *",
            {
                "counters": counters,
                "ring": ring.c if ring is not None else ffi.NULL,
                "refused": self._refused,
                "label_field": [
                    lib.xp_columns[COLUMNS[label].index].field for label in options.labels
                ],
                "options": _c_options(options),
            },
        )
        self._record = ffi.new("uint8_t[]", record_bytes(options))
        memory = ffi.from_buffer(self._memory, require_writable=True)
        self.n_adopted = int(lib.xp_flows_open(self.c, memory, size, os.urandom(16)))
        """Flows that another process left, which go on."""
        self.n_bytes = size

    @property
    def n_now(self) -> int:
        """Flows that there are now."""
        return int(lib.xp_flows_now(self.c))

    def finish(self, n: int) -> int:
        """End up to n of the flows, as far as the ring has room; return how many are left."""
        return int(lib.xp_flows_finish(self.c, n))

    def sweep(self) -> None:
        """End all flows that are over, and look which have the most bytes."""
        lib.xp_flows_sweep_all(self.c)

    def top(self) -> list[bytes]:
        """Return records of the flows with the most bytes, as the sweep last saw them."""
        found = []
        for place in range(TOP):
            if lib.xp_flows_read_top(self.c, place, self._record):
                found.append(bytes(ffi.buffer(self._record)))
        return found


def _mapped(size: int, fd: int | None) -> mmap.mmap:
    """Map memory, and have all of it there at once."""
    if fd is not None:
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # else it is there as it is touched, in small pages
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory.madvise(_POPULATE_WRITE)
    return memory
