"""A capture as where the packets of a replay come from, edited on the way."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.stages import Headers
from xdpipe.traffic.edits import EDIT, FILTER, NO_EDITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xdpipe.batch import Batch
    from xdpipe.traffic.edit_file import Edited
    from xdpipe.traffic.edits import Edits


class CaptureSource:
    """The packets of a capture file behind Headers and edits; fulfils `Source`.

    Packets that an edit leaves out have the verdict DROP; what the user's function and the filter
    before it leave out is not seen at all. Counts are those of the pass that is under way, or of
    the last one: read + added = left out, all reasons together + the packets kept.

    Args:
        path: a pcap or pcapng file, gzip or not, with Ethernet packets.
        edits: what becomes of the packets.
        batch_size: packets in a batch at the most.
        link_mtu: of the link that they go to, where the edits name no MTU; bytes; None: any length.
        progress: while the user's function is called for all packets, told how many are done, and
            how many there are.

    Attributes:
        batch: the one that is filled again and again.
        n_packets: those kept, once a pass has gone to the end; None before.
        read: packets of the capture that were read.
        added: packets that the user's function returned beyond one for each.
        left_out: how many are left out, by reason: those that the edits have.

    Raises:
        XdpipeError: no such file, no capture, not Ethernet, or edits that cannot be.
    """

    def __init__(
        self,
        path: str | Path,
        edits: Edits = NO_EDITS,
        batch_size: int = 512,
        *,
        link_mtu: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        stages = edits.stages(link_mtu)  # what is wrong with them is told before the long work
        self._edited: Edited | None = None
        with ExitStack() as stack:
            if edits.edit is not None:
                from xdpipe.traffic.edit_file import edited

                self._edited = stack.enter_context(
                    edited(path, edits.edit, filter=edits.filter, progress=progress)
                )
                path = stack.enter_context(_held(self._edited.path))
            self._batches = CaptureBatches(path, batch_size)
            stack.callback(self._batches.close)
            self._stack = stack.pop_all()
        self.batch: Batch = self._batches.batch
        self._chain = Chain([Headers(), *stages.chain], self.batch)
        self._counted = stages.left_out
        self._filters = bool(edits.filter)
        self._begun = False
        self.n_packets: int | None = None
        self._count(0, dict.fromkeys(self._counted, 0))

    def __iter__(self) -> Iterator[Batch]:
        """Fill the batch until the capture ends; each call begins at the first packet."""
        if self._begun:
            self._batches.rewind()
        self._begun = True
        n = 0
        before = {reason: count() for reason, count in self._counted.items()}
        for batch in self._batches:
            self._chain.run()
            n += len(batch)
            left_out = {reason: count() - before[reason] for reason, count in self._counted.items()}
            self._count(n, left_out)
            yield batch
        self.n_packets = self.read + self.added - sum(self.left_out.values())

    def _count(self, n: int, left_out: dict[str, int]) -> None:
        """Note that n packets came by so far, and how many of them are left out."""
        self.read, self.added, self.left_out = n, 0, left_out
        if self._edited is not None:
            made = self._edited
            before = {FILTER: made.filtered} if self._filters else {}
            before[EDIT] = made.removed
            self.read, self.added, self.left_out = made.read, made.added, before | left_out

    @property
    def truncated(self) -> str | None:
        """Where and why the capture ended before its time; None: it did not, or not yet."""
        found = self._batches.reader.truncated
        if self._edited is not None and self._edited.truncated:
            return self._edited.truncated
        return None if found is None else str(found)

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._stack.close()


@contextmanager
def _held(path: Path) -> Iterator[str]:
    """Yield a name of a file by which it can be opened, again and again, when it has none any more.

    What is kept makes room for what comes later, while a replay may go on for days.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
