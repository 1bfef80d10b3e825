"""Where the packets of a replay come from: batch by batch, so that memory is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpipe.batch import Batch


class Source(Protocol):
    """Packets in batches, each valid until the next one.

    The chain of the batch has Headers in it, and has run: `len`, `addr`, `flow_hash` and the other
    columns hold. Packets with verdict DROP are to be left out. `time_ns` is when they were
    recorded; it may go back, see pace.Schedule.

    Attributes:
        batch: the one that is filled again and again.
        n_packets: how many there will be, for the bar that shows progress; None: nobody knows.
    """

    batch: Batch
    n_packets: int | None

    def __iter__(self) -> Iterator[Batch]:
        """Fill the batch until there are no more packets; each call begins at the first one."""

    def close(self) -> None:
        """Let go of files and memory. May be called twice."""
