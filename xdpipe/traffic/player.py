"""What sends the packets of one lane: a thread that is in C nearly all the time."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdpipe.core._core import ffi, lib
from xdpipe.traffic.block import blocks_of
from xdpipe.traffic.probe import NUMBER_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.traffic.block import Block
    from xdpipe.traffic.engine import Lane

CATCH_UP_NS = 10_000_000
"""Who falls behind the pace catches up with so much of it at once, and no more: a burst would fill
the receiver's rings."""
_STALL_NS = 2_000_000_000
"""A link that takes nothing for so long is given up."""
_SLICE_NS = 50_000_000
_DRAIN_NS = 500_000_000
_CHUNK = 1024
"""Packets handed over at once, if an engine takes as many; where there is a pace, of those due."""
_LOOK_S = 0.001


@dataclass(frozen=True)
class _Job:
    blocks: Sequence[Block]
    n_packets: int
    round_ns: int


class Player(threading.Thread):
    """Sends blocks out of a lane, in order.

    Args:
        lane: the way out.
        paced: packets are sent when they are due; else at once.
        stream: of the stamps (traffic/probe.py) that it writes; None: it writes none.

    Attributes:
        free: blocks that may be filled.
        late: how late packets were handed over: counts by xp_histogram_bin of nanoseconds.
        failed: why it ended early: STALLED, an errno, or 0.
    """

    STALLED = -1

    def __init__(self, lane: Lane, *, paced: bool, stream: int | None = None) -> None:
        super().__init__(daemon=True)
        self.lane = lane
        self.failed = 0
        self.free: queue.SimpleQueue[Block] = queue.SimpleQueue()
        for block in blocks_of(lane):
            self.free.put(block)
        self.late = np.zeros(lib.XP_LATE_BINS, np.uint64)
        self._under_way: deque[tuple[int, Sequence[Block]]] = deque()
        """Blocks that are handed over, and how many packets of the lane are through then."""
        self._todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._play = ffi.new("struct xp_play *", {
            "lane": lane.c, "paced": paced, "catch_up_ns": CATCH_UP_NS, "stall_ns": _STALL_NS,
            "chunk": _CHUNK,
            "late": ffi.from_buffer("uint64_t[]", self.late), "stamps": stream is not None,
            "next_stamp": (stream or 0) << NUMBER_BITS,
        })  # fmt: skip
        self._first_stamp = int(self._play.next_stamp)

    def begin(self, base_ns: int) -> None:
        """Start it; what is due at 0 is due at that time of CLOCK_MONOTONIC."""
        self._play.base_ns = self._play.taken_ns = base_ns
        self.start()

    def send(
        self, blocks: Sequence[Block], n_packets: int | None = None, round_ns: int = 0
    ) -> None:
        """Have blocks sent after those before; they are then free again.

        Args:
            blocks: filled.
            n_packets: how many in all: when the blocks are through they begin again.
            round_ns: how much later they are due each time.
        """
        n = sum(map(len, blocks)) if n_packets is None else n_packets
        if n:
            self._todo.put(_Job(blocks, n, round_ns))
        else:
            for block in blocks:
                self.free.put(block)

    def finish(self) -> None:
        """Tell that nothing more will come."""
        self._todo.put(None)

    def stop(self) -> None:
        """End before the next packet."""
        self._play.stop = 1
        self.finish()

    @property
    def n_stamped(self) -> int:
        """Packets handed over with a stamp."""
        return int(self._play.next_stamp) - self._first_stamp

    @property
    def late_max_ns(self) -> int:
        """How late a packet was handed over at the most."""
        return int(self._play.late_max)

    def run(self) -> None:
        """Send what there is to do, and wait until it is sent."""
        while not self.failed and not self._play.stop:
            job = self._next_job()
            if job is None:
                break
            self._send(job)
        self._drain()

    def _send(self, job: _Job) -> None:
        play = self._play
        blocks = ffi.new("struct xp_laid *[]", [block.c for block in job.blocks])
        play.blocks, play.n_blocks = blocks, len(job.blocks)
        play.block = play.at = 0
        play.left, play.round_ns = job.n_packets, job.round_ns
        while True:
            how = lib.xp_play(play, lib.xp_clock_ns() + _SLICE_NS)
            if how != lib.XP_PLAY_GOES_ON:
                break
        if how == lib.XP_PLAY_STALLED:
            self.failed = self.STALLED
        elif how == lib.XP_PLAY_ERROR:
            self.failed = int(self.lane.c.error)
        elif how == lib.XP_PLAY_ALL:
            self._under_way.append((int(self.lane.c.taken), job.blocks))
            self._give_back()

    def _give_back(self) -> None:
        """Free the blocks whose packets are all through."""
        lane = self.lane.c
        lane.settle(lane)
        while self._under_way and self._under_way[0][0] <= lane.done:
            for block in self._under_way.popleft()[1]:
                block.clear()
                self.free.put(block)

    def _next_job(self) -> _Job | None:
        while self._under_way and not self._play.stop:
            try:
                return self._todo.get(timeout=_LOOK_S)
            except queue.Empty:
                self._give_back()
        return self._todo.get()

    def _settle(self, n: int, timeout_ns: int) -> None:
        """Wait until n packets of the lane are through, or for so long."""
        lane = self.lane.c
        end = lib.xp_clock_ns() + timeout_ns
        while lane.done < n and not lane.error and lib.xp_clock_ns() < end:
            lane.settle(lane)
            os.sched_yield()

    def _drain(self) -> None:
        self._settle(int(self.lane.c.taken), _DRAIN_NS)
