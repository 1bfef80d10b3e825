"""Blocks of packets that lie ready, in a lane's memory; core/traffic/play.c fills them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.core._core import ffi, lib

if TYPE_CHECKING:
    from xdpipe.batch import Batch
    from xdpipe.traffic.engine import Lane

N_BLOCKS = 8
_ALIGNMENT = 64  # core/traffic/play.c


class Block:
    """A part of a lane's memory, and what lies in it.

    Args:
        lane: whose memory it is.
        begin: bytes from the memory's start, a multiple of 4096.
        size: bytes.

    Attributes:
        c: struct xp_laid *.
    """

    def __init__(self, lane: Lane, begin: int, size: int) -> None:
        room = size // _ALIGNMENT
        self.at = np.zeros(room, np.uint64)
        self.due_ns = np.zeros(room, np.uint64)
        self.len = np.zeros(room, np.uint32)
        self.stamp_at = np.zeros(room, np.uint32)
        self.c = ffi.new("struct xp_laid *", {
            "at": ffi.from_buffer("uint64_t[]", self.at),
            "due_ns": ffi.from_buffer("uint64_t[]", self.due_ns),
            "len": ffi.from_buffer("uint32_t[]", self.len),
            "stamp_at": ffi.from_buffer("uint32_t[]", self.stamp_at),
            "room": room, "begin": begin, "end": begin + size, "used": begin,
        })  # fmt: skip
        self._lane = lane

    def __len__(self) -> int:
        return int(self.c.n)

    def clear(self) -> None:
        """Let it be empty; nothing of it is under way any more."""
        self.c.n = 0
        self.c.used = self.c.begin

    def lay(self, batch: Batch, lay: Any) -> bool:
        """Copy packets of the batch whose verdict is not DROP.

        Args:
            batch: Headers has run on it.
            lay: struct xp_lay *: which of its packets; moved on to the first one that there was no
                room for.

        Returns:
            Whether there was room for all.
        """
        lib.xp_lay(batch.c, lay, self._lane.c, self.c)
        return bool(lay.next == len(batch))

    def repeat(self, n: int, round_ns: int) -> None:
        """Let its packets stand n times in it, each round later by so much; their bytes do once."""
        have = len(self)
        end = n * have
        for values in (self.at, self.len):
            values[:end] = np.tile(values[:have], n)
        self.due_ns[:end] = np.tile(self.due_ns[:have], n)
        self.due_ns[:end] += np.repeat(np.arange(n, dtype=np.uint64) * np.uint64(round_ns), have)
        self.c.n = end


def blocks_of(lane: Lane) -> list[Block]:
    """Divide a lane's memory."""
    size = lane.size // N_BLOCKS // 4096 * 4096
    return [Block(lane, number * size, size) for number in range(N_BLOCKS)]
