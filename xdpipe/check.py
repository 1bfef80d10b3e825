"""Run a pipeline over a capture file: the same chain and verdicts, no NIC and no privilege."""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
        pipeline: stages and default verdict; its steering is applied only with `steer`.
        capture: path of the capture file.
        write: for a verdict, the path of a capture to write its packets to, as the stages left
            them.
        batch_size: packets in a batch at the most.
        steer: first leave out the packets that the pipeline's filter would not take.
        port: name of the port that they come by; None: the first.
        progress: told after each batch how many packets have been read.

    Returns:
        What `xdpipe check --json` prints: packets, not_taken, verdicts, stages, sets (how many
        addresses stages added to each; nobody looks in them here), link_type,
        truncated (None, or where and why the file ended early).
    """
    if port is None:
        port = pipeline.ports[0]
    elif port not in pipeline.ports:
        names = ", ".join(filter(None, pipeline.ports)) or "one without a name"
        raise XdpipeError(f"--port {port}: the pipeline's ports are: {names}")
    _keep_apart(capture, write or {})
    steering = pipeline.steerings[pipeline.ports.index(port)]
    taken = Filter(steering.filter) if steer else None
    n_packets = n_not_taken = 0
    by_verdict = np.zeros(256, np.int64)
    with ExitStack() as stack:
        batches = CaptureBatches(capture, batch_size, pipeline.ports)
        stack.callback(batches.close)
        writers = {
            verdict: stack.enter_context(CaptureWriter(path))
            for verdict, path in (write or {}).items()
        }
        remembered = Remembered()
        chain = Chain(
            pipeline.stages, batches.batch, sets=stage_sets(pipeline.sets, remembered),
            budget_us=pipeline.budget_us,
        )  # fmt: skip
        written = stack.enter_context(ExitStack())
        after = [written.enter_context(stage.offline()) for stage in chain.stages]
        for batch in batches:
            n_packets += len(batch)
            if taken is not None:
                n_not_taken += _leave_out(batch, taken)
            batch.set_port(port)
            chain.run()
            lib.xp_fill_checksums(batch.c)
            final = np.where(batch.undecided, np.uint8(pipeline.default), batch.verdict)
            by_verdict += np.bincount(final, minlength=256)
            for verdict, writer in writers.items():
                for i in np.flatnonzero(final == verdict):
                    writer.write(int(batch.time_ns[i]), bytes(batch.packet(int(i))))
            for write_down in after:
                write_down()
            if progress is not None:
                progress(n_packets)
        written.close()
        reader = batches.reader
        verdicts = [verdict for verdict in Verdict if verdict != Verdict.UNDECIDED]
        stages = chain.read_counts()
        reports = chain.reports()
        return {
            "capture": str(capture),
            "link_type": reader.link_type,
            "packets": n_packets,
            "not_taken": n_not_taken,
            "verdicts": {
                **{verdict.name: int(by_verdict[verdict]) for verdict in verdicts},
                "INVALID": int(by_verdict.sum() - by_verdict[verdicts].sum()),
            },
            "default": pipeline.default.name,
            "sets": remembered.counts(pipeline.sets),
            "stages": [
                {**stage, "reports": [reports[stage["name"]]] if stage["name"] in reports else []}
                for stage in stages
            ],
            "truncated": asdict(reader.truncated) if reader.truncated else None,
        }


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


def _leave_out(batch: Batch, taken: Filter) -> int:
    """Keep only the packets that the filter takes; return how many were left out."""
    keep = [i for i in range(len(batch)) if taken.matches(bytes(batch.packet(i)))]
    n_before = len(batch)
    batch.keep(keep)
    return n_before - len(keep)
