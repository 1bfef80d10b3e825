"""When packets are due: as they were recorded, or at a rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NS = 1_000_000_000


@dataclass(frozen=True)
class Pace:
    """How fast packets are sent; one of these, or none: as they were recorded.

    Attributes:
        speed: so many times as fast as they were recorded.
        pps: packets a second.
        mbps: millions of bits a second, of frames without preamble, FCS and gap.
        top: as fast as the link takes them.
    """

    speed: float | None = None
    pps: float | None = None
    mbps: float | None = None
    top: bool = False

    def __post_init__(self) -> None:
        named = {"--speed": self.speed, "--pps": self.pps, "--mbps": self.mbps}
        given = [name for name, value in named.items() if value is not None]
        given += ["--top-speed"] if self.top else []
        if len(given) > 1:
            raise XdpipeError(f"{given[0]} and {given[1]}: only one says how fast")

    @property
    def by_record(self) -> bool:
        """Whether the times of the record say when packets are due."""
        return not (self.top or self.pps or self.mbps)


class Schedule:
    """The times at which the packets of one round are due, as they come, batch by batch.

    Args:
        pace: how fast.

    Attributes:
        round_ns: after all batches: when the first packet of the next round is due, nanoseconds
            after the first of this one.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._n = 0
        self._bits = 0
        self._first: int | None = None
        self._last_due = 0
        self._before_last = 0

    def due_ns(
        self, times_ns: NDArray[np.uint64], lens: NDArray[np.int32], keep: NDArray[np.bool_]
    ) -> NDArray[np.uint64]:
        """Return when each packet is due, uint64[n] nanoseconds since the first; not going back.

        Args:
            times_ns: when each was recorded, since 1970.
            lens: bytes of each.
            keep: those that are sent; only they take time.
        """
        pace = self._pace
        kept = keep.astype(np.int64)
        if pace.top or not keep.any():
            due = np.zeros(len(keep), np.int64)
        elif pace.pps:
            numbers = self._n + np.cumsum(kept) - kept
            due = (numbers * (_NS / pace.pps)).astype(np.int64)
        elif pace.mbps:
            bits = np.cumsum(kept * lens.astype(np.int64) * 8)
            due = ((self._bits + bits - kept * lens * 8) * (1000 / pace.mbps)).astype(np.int64)
            self._bits += int(bits[-1])
        else:
            times = times_ns.astype(np.int64)
            if self._first is None:
                self._first = int(times[np.argmax(keep)])
            due = ((times - self._first) / (pace.speed or 1.0)).astype(np.int64)
            due = np.maximum.accumulate(np.maximum(np.where(keep, due, 0), self._last_due))
        self._n += int(kept.sum())
        last = due[keep]
        if len(last):
            self._before_last = int(last[-2]) if len(last) > 1 else self._last_due
            self._last_due = int(last[-1])
        return due.astype(np.uint64)

    @property
    def round_ns(self) -> int:
        """When the next round begins.

        At a rate it goes on as if there were no rounds. By the record, which does not say when
        its first packet would come again, after as long as lay between its last two.
        """
        pace = self._pace
        if pace.top:
            return 0
        if pace.pps:
            return int(self._n * (_NS / pace.pps))
        if pace.mbps:
            return int(self._bits * (1000 / pace.mbps))
        return 2 * self._last_due - self._before_last
