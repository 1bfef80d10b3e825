"""Packets as they came, to be held against what stages left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpipe.batch import Batch


class Arrived:
    """The packets of one batch after the other, copied before its chain runs."""

    def take(self, batch: Batch) -> None:
        """Copy the packets of a batch."""
        self._at, self._len = batch.addr.astype(np.int64), batch.len.astype(np.int64)
        n_bytes = int((self._at + self._len).max(initial=0))
        self._bytes = np.frombuffer(batch.memory, np.uint8, n_bytes).copy()

    def changed(self, batch: Batch) -> NDArray[np.int64]:
        """Return the places in the batch of packets that are not as they came."""
        now = np.frombuffer(batch.memory, np.uint8, len(self._bytes))
        n_different = np.zeros(len(now) + 1, np.int64)
        np.cumsum(now != self._bytes, out=n_different[1:])
        inside = n_different[self._at + self._len] != n_different[self._at]
        return np.flatnonzero(inside | (batch.addr != self._at) | (batch.len != self._len))

    def packet(self, place: int) -> bytes:
        """Return a packet as it came."""
        return self._bytes[self._at[place] :][: self._len[place]].tobytes()
