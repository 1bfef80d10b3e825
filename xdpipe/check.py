"""Run a pipeline over a capture file: the same chain and verdicts, no NIC and no privilege."""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xdpipe.batch import Batch
from xdpipe.capture import CaptureReader, CaptureWriter
from xdpipe.chain import Chain
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.stage_sets import Remembered, stage_sets
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from xdpipe.pipeline import Pipeline

_MEMORY = 4 << 20
"""Bytes for the packets of a batch; the longest packet that libpcap gives has 256 KiB."""


class CaptureBatches:
    """A capture file batch by batch.

    Args:
        path: a pcap or pcapng file, gzip or not, with Ethernet packets.
        batch_size: packets in a batch at the most.
        ports: the pipeline's names of its ports.

    Raises:
        XdpipeError: no such file, no capture, or not Ethernet.
    """

    def __init__(self, path: str | Path, batch_size: int, ports: Sequence[str] = ("",)) -> None:
        self.reader = CaptureReader(path)
        self.reader.require_ethernet()
        self.batch = Batch(mmap.mmap(-1, _MEMORY), batch_size, ports)

    def __iter__(self) -> Iterator[Batch]:
        """Fill the one batch again and again, until the file ends."""
        next_ex = ffi.cast("void *", self.reader.next_ex_address)
        handle = ffi.cast("void *", self.reader.handle)
        n_packets = 0
        status = 1
        while status == 1:
            status = lib.xp_fill_from_capture(self.batch.c, next_ex, handle)
            n_packets += len(self.batch)
            if len(self.batch):
                yield self.batch
        self.reader.note_end(status, n_packets)

    def rewind(self) -> None:
        """Begin with the first packet again: the file is opened anew.

        Raises:
            XdpipeError: it is gone, or another now.
        """
        path = self.reader.path
        self.reader.close()
        self.reader = CaptureReader(path)
        self.reader.require_ethernet()

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


class CheckRun:
    """A pipeline's chain over a capture, batch by batch; a context manager.

    Iterating yields the batch as the stages left it, with the checksums filled in that were due;
    it is valid until the next one. `result` is complete when the last was taken.

    Args:
        pipeline: stages and default verdict; its steering is applied only with `steer`.
        capture: path of the capture file.
        batch_size: packets in a batch at the most.
        steer: first leave out the packets that the pipeline's filter would not take.
        port: name of the port that they come by; None: the first.
        arrived: told of each batch before its chain runs.

    Attributes:
        numbers: int64[n], which packet of the capture each one of the batch is, from 0.
        verdicts: uint8[n], of the batch: that of the stages, or the default.
        n_packets: of the capture, so far.

    Raises:
        XdpipeError: no such port, no capture, or not Ethernet.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        capture: str | Path,
        *,
        batch_size: int = 512,
        steer: bool = False,
        port: str | None = None,
        arrived: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self._port = chosen_port(pipeline, port)
        steering = pipeline.steerings[pipeline.ports.index(self._port)]
        self._taken = Filter(steering.filter) if steer else None
        self._pipeline = pipeline
        self._capture = capture
        self._arrived = arrived
        self.n_packets = self._n_not_taken = 0
        self._by_verdict = np.zeros(256, np.int64)
        with ExitStack() as stack:
            self._batches = CaptureBatches(capture, batch_size, pipeline.ports)
            stack.callback(self._batches.close)
            self._remembered = Remembered()
            self._chain = Chain(
                pipeline.stages, self._batches.batch, budget_us=pipeline.budget_us,
                sets=stage_sets(pipeline.sets, self._remembered),
            )  # fmt: skip
            self._written = stack.enter_context(ExitStack())
            self._after = [
                self._written.enter_context(stage.offline()) for stage in self._chain.stages
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Batch]:
        """Run the chain over the capture, from its first packet to its last."""
        for batch in self._batches:
            n = len(batch)
            self.numbers = np.arange(self.n_packets, self.n_packets + n)
            self.n_packets += n
            if self._taken is not None:
                kept = _leave_out(batch, self._taken)
                self._n_not_taken += n - len(kept)
                self.numbers = self.numbers[kept]
            batch.set_port(self._port)
            self._arrived(batch)
            if len(batch):  # a worker hands on no empty batch either
                self._chain.run()
            lib.xp_fill_checksums(batch.c)
            default = np.uint8(self._pipeline.default)
            self.verdicts = np.where(batch.undecided, default, batch.verdict)
            self._by_verdict += np.bincount(self.verdicts, minlength=256)
            yield batch
            for write_down in self._after:
                write_down()
        self._written.close()

    def result(self) -> dict[str, Any]:
        """Return what `xdpipe check --json` prints; see `check`."""
        reader, pipeline = self._batches.reader, self._pipeline
        verdicts = [verdict for verdict in Verdict if verdict != Verdict.UNDECIDED]
        stages = self._chain.read_counts()
        reports = self._chain.reports()
        n = self._by_verdict
        return {
            "capture": str(self._capture),
            "link_type": reader.link_type,
            "packets": self.n_packets,
            "not_taken": self._n_not_taken,
            "verdicts": {
                **{verdict.name: int(n[verdict]) for verdict in verdicts},
                "INVALID": int(n.sum() - n[verdicts].sum()),
            },
            "default": pipeline.default.name,
            "sets": self._remembered.counts(pipeline.sets),
            "stages": [
                {**stage, "reports": [reports[stage["name"]]] if stage["name"] in reports else []}
                for stage in stages
            ],
            "truncated": asdict(reader.truncated) if reader.truncated else None,
        }


def chosen_port(pipeline: Pipeline, port: str | None) -> str:
    """Return the name of the port that packets come by: this one, or the first.

    Raises:
        XdpipeError: there is no such port.
    """
    if port is None:
        return pipeline.ports[0]
    if port not in pipeline.ports:
        names = ", ".join(filter(None, pipeline.ports)) or "one without a name"
        raise XdpipeError(f"--port {port}: the pipeline's ports are: {names}")
    return port


def check(
    pipeline: Pipeline,
    capture: str | Path,
    *,
    write: Mapping[Verdict, str] | None = None,
    batch_size: int = 512,
    steer: bool = False,
    port: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run a pipeline's chain over a capture and say what became of the packets.

    Args:
        pipeline: see CheckRun.
        capture: path of the capture file.
        write: for a verdict, the path of a capture to write its packets to, as the stages left
            them.
        batch_size: packets in a batch at the most.
        steer: see CheckRun.
        port: name of the port that they come by; None: the first.
        progress: told after each batch how many packets have been read.

    Returns:
        What `xdpipe check --json` prints: packets, not_taken, verdicts, stages, sets (how many
        addresses stages added to each; nobody looks in them here), link_type,
        truncated (None, or where and why the file ended early).
    """
    chosen_port(pipeline, port)
    _keep_apart(capture, write or {})
    with (
        CheckRun(pipeline, capture, batch_size=batch_size, steer=steer, port=port) as run,
        ExitStack() as stack,
    ):
        writers = {
            verdict: stack.enter_context(CaptureWriter(path))
            for verdict, path in (write or {}).items()
        }
        for batch in run:
            for verdict, writer in writers.items():
                for i in np.flatnonzero(run.verdicts == verdict):
                    writer.write(int(batch.time_ns[i]), bytes(batch.packet(int(i))))
            if progress is not None:
                progress(run.n_packets)
        return run.result()


def _keep_apart(capture: str | Path, write: Mapping[Verdict, str]) -> None:
    """Refuse to write over the capture that is read, or two verdicts over each other."""
    seen: dict[object, str] = {_identity(capture): "the capture itself"}
    for verdict, path in write.items():
        former = seen.setdefault(_identity(path), f"{verdict.name}={path}")
        if former != f"{verdict.name}={path}":
            raise XdpipeError(f"--write {verdict.name}={path}: that is {former}; name another file")


def _identity(path: str | Path) -> object:
    try:
        stat = os.stat(path)
    except OSError:
        return os.path.abspath(path)
    return stat.st_dev, stat.st_ino


def _leave_out(batch: Batch, taken: Filter) -> list[int]:
    """Keep only the packets that the filter takes; return their places in the batch as it was."""
    keep = [i for i in range(len(batch)) if taken.matches(bytes(batch.packet(i)))]
    batch.keep(keep)
    return keep
