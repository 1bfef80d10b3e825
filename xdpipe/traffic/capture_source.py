"""A capture file as a source of packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.stages import Headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from xdpipe.batch import Batch
    from xdpipe.stage import Stage

_BATCH = 4096


class CaptureSource:
    """The packets of a capture, through some stages; see `Source`.

    Args:
        path: a pcap or pcapng file with Ethernet packets.
        stages: run behind Headers on each batch.

    Attributes:
        truncated: where and why the file ended early, or None.

    Raises:
        XdpipeError: no such file, no capture, or not Ethernet.
    """

    has_times = True
    n_packets: int | None = None

    def __init__(self, path: str | Path, stages: Sequence[Stage] = ()) -> None:
        self._path, self._stages = path, stages
        self.truncated: str | None = None
        self._batches = CaptureBatches(path, _BATCH)
        self._chain = Chain([Headers(), *stages], self._batches.batch)
        self.batch = self._batches.batch

    def __iter__(self) -> Iterator[Batch]:
        """Read the file from its start."""
        batches = self._batches
        for batch in batches.again():
            self._chain.run()
            yield batch
        cut = batches.reader.truncated
        if cut is not None:
            self.truncated = f"after packet {cut.after_packets}, at byte {cut.offset}: {cut.reason}"

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._batches.close()
