"""A capture as where the packets of a replay come from, edited on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.core._core import lib
from xdpipe.stages import Headers
from xdpipe.traffic.edits import NO_EDITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xdpipe.batch import Batch
    from xdpipe.traffic.edits import Edits


class CaptureSource:
    """The packets of a capture file behind Headers and edits; fulfils `Source`.

    Packets that an edit leaves out have the verdict DROP. Counts are those of the pass that is
    under way, or of the last one: read = left out, all reasons together + the packets kept.

    Args:
        path: a pcap or pcapng file, gzip or not, with Ethernet packets.
        edits: what becomes of the packets.
        batch_size: packets in a batch at the most.
        link_mtu: of the link that they go to, where the edits name no MTU; bytes; None: any length.
        in_order: raise a time that goes back to the latest before it, as a pace wants it; else
            times stay the capture's.

    Attributes:
        batch: the one that is filled again and again.
        n_packets: those kept, once a pass has gone to the end; None before.
        has_times: True.
        read: packets read.
        left_out: how many are left out, by reason: those that the edits have.

    Raises:
        XdpipeError: no such file, no capture, not Ethernet, or edits that cannot be.
    """

    has_times = True

    def __init__(
        self,
        path: str | Path,
        edits: Edits = NO_EDITS,
        batch_size: int = 512,
        *,
        link_mtu: int | None = None,
        in_order: bool = True,
    ) -> None:
        stages = edits.stages(link_mtu)
        self._batches = CaptureBatches(path, batch_size)
        self.batch: Batch = self._batches.batch
        self._chain = Chain([Headers(), *stages.chain], self.batch)
        self._counted = stages.left_out
        self._in_order = in_order
        self._begun = False
        self.n_packets: int | None = None
        self.read = 0
        self.left_out = dict.fromkeys(self._counted, 0)

    def __iter__(self) -> Iterator[Batch]:
        """Fill the batch until the capture ends; each call begins at the first packet."""
        if self._begun:
            self._batches.rewind()
        self._begun = True
        self.read, latest = 0, 0
        before = {reason: count() for reason, count in self._counted.items()}
        for batch in self._batches:
            self._chain.run()
            if self._in_order:
                latest = lib.xp_order_times(batch.c, latest)
            self.read += len(batch)
            self.left_out = {
                reason: count() - before[reason] for reason, count in self._counted.items()
            }
            yield batch
        self.n_packets = self.read - sum(self.left_out.values())

    @property
    def truncated(self) -> str | None:
        """Where and why the capture ended before its time; None: it did not, or not yet."""
        found = self._batches.reader.truncated
        if found is None:
            return None
        return f"after packet {found.after_packets}, at byte {found.offset}: {found.reason}"

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._batches.close()
