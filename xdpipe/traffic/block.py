"""Blocks of packets that lie ready, in a lane's memory; core/traffic/play.c fills them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xdpipe.core._core import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        self.c = ffi.new("struct xp_laid *", {
            "at": ffi.from_buffer("uint64_t[]", self.at),
            "due_ns": ffi.from_buffer("uint64_t[]", self.due_ns),
            "len": ffi.from_buffer("uint32_t[]", self.len),
            "room": room, "begin": begin, "end": begin + size, "used": begin,
        })  # fmt: skip
        self._lane = lane

    def __len__(self) -> int:
        return int(self.c.n)

    def clear(self) -> None:
        """Let it be empty; nothing of it is under way any more."""
        self.c.n = 0
        self.c.used = self.c.begin

    def lay(
        self, batch: Batch, due_ns: NDArray[np.uint64], number: int, n_lanes: int, first: int
    ) -> int:
        """Copy packets of the batch whose verdict is not DROP, from `first` on.

        Args:
            batch: Headers has run on it.
            due_ns: of each of its packets.
            number: of this lane; a flow goes by one of them.
            n_lanes: in all.
            first: packet to begin with.

        Returns:
            The packet that there was no room for; the length of the batch: there was for all.
        """
        next_ = ffi.new("uint32_t *", first)
        lib.xp_lay(
            batch.c, ffi.from_buffer("uint64_t[]", due_ns), number, n_lanes, self._lane.c, self.c,
            next_,
        )  # fmt: skip
        return int(next_[0])

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
