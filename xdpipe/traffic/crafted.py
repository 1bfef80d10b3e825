"""Crafted packets as a source: batch by batch, in bounded memory."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.stages import Headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpipe.traffic.plan import Plan

_MEMORY = 4 << 20
"""Bytes for the packets of a batch; the longest packet takes 64 KiB."""


class Crafted:
    """The packets of a recipe, as a Source (source.py).

    The same recipe and numbers give the same packets, byte for byte.

    Args:
        plan: of the recipe.
        n_packets: how many.
        first: the number of the first one, from 0.
        batch_size: packets in a batch at the most.
        headers: run Headers over them; False: only `addr`, `len` and `time_ns` hold.
    """

    def __init__(
        self,
        plan: Plan,
        n_packets: int,
        *,
        first: int = 0,
        batch_size: int = 512,
        headers: bool = True,
    ) -> None:
        self.plan = plan
        self.n_packets: int | None = n_packets
        self._n = n_packets
        self._first = first
        self._memory = mmap.mmap(-1, _MEMORY)
        self.batch = Batch(self._memory, batch_size)
        self._chain = Chain([Headers()], self.batch) if headers else None

    def __iter__(self) -> Iterator[Batch]:
        """Fill the batch until there are no more packets; each call begins at the first one."""
        self.plan.seek(self._first)
        left = self._n
        while left > 0:
            left -= self.plan.fill(self.batch, left)
            if self._chain is not None:
                self._chain.run()
            yield self.batch

    def close(self) -> None:
        """Let go of nothing: the memory goes with the batch."""
