"""What a pipeline makes of a capture: verdict and bytes of each packet, and the counters."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from xdpipe.check import CheckRun, chosen_port
from xdpipe.errors import XdpipeError
from xdpipe.verdict import FORWARD, Verdict
from xdpipe.verify import rewriting
from xdpipe.verify.arrived import Arrived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from xdpipe.batch import Batch
    from xdpipe.pipeline import Pipeline

NOT_TAKEN = "NOT_TAKEN"
"""In place of a verdict: the pipeline's filter does not take the packet."""
BATCH_SIZE = 512


@dataclass(frozen=True)
class CaptureId:
    """Which capture it was.

    Attributes:
        name: of the file, without its directory; files of other names may be the same.
        n_bytes: of the file.
        sha256: of the file's bytes, as hex.
    """

    name: str
    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """Read the whole file.

        Raises:
            XdpipeError: it cannot be read, or only once.
        """
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise XdpipeError(f"{path}: not a file; save the capture in one first")
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise XdpipeError(f"{path}: {error.strerror}") from error
        return cls(Path(path).name, status.st_size, digest.hexdigest())


@dataclass
class Outcome:
    """What became of the packets of a capture.

    Attributes:
        capture: which it was.
        port: name of the port that they came by.
        batch_size: packets in a batch at the most: what stages decide may depend on it.
        default: name of the pipeline's default verdict.
        names: what can become of a packet: names of verdicts, with the port after FORWARD where
            there are several, and NOT_TAKEN.
        places: for each packet its place in `names`: uint8[n].
        rewritten: what stages wrote into packets (see rewriting), by number, from 0.
        counters: by name: `STAGE.NAME`; `STAGE.(packets)` and `STAGE.(errors)`, which every stage
            has; `sets.NAME`, how many addresses stages added.
    """

    capture: CaptureId
    port: str
    batch_size: int
    default: str
    names: tuple[str, ...]
    places: NDArray[np.uint8]
    rewritten: dict[int, str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many packets the capture has."""
        return len(self.places)

    def verdict(self, packet: int) -> str:
        """Return what became of a packet, by its number, from 0."""
        return self.names[int(self.places[packet])]

    def totals(self) -> dict[str, int]:
        """Return how many packets became what, in the order of the names."""
        counts = np.bincount(self.places, minlength=len(self.names))
        return {name: int(n) for name, n in zip(self.names, counts, strict=True)}

    def is_taken(self) -> NDArray[np.bool_]:
        """Return which packets the filter takes: bool[n]."""
        return np.array([name != NOT_TAKEN for name in self.names], np.bool_)[self.places]


class Places:
    """Collects what became of packets; names get their places as they turn up.

    Names are put in order at the end, so that the same packets always give the same.
    """

    def __init__(self) -> None:
        self._codes: list[NDArray[np.uint16]] = []

    def add(self, codes: NDArray[np.uint16]) -> None:
        """Add packets, by codes that this object does not know the meaning of."""
        self._codes.append(codes)

    def finish(self, name: Callable[[int], str]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
        """Return the names, in order, and each packet's place among them.

        Args:
            name: of a code; codes may have the same.
        """
        codes = np.concatenate(self._codes) if self._codes else np.zeros(0, np.uint16)
        found, which = np.unique(codes, return_inverse=True)
        of_code = [name(int(code)) for code in found]
        names = sorted(set(of_code))
        table = np.array([names.index(each) for each in of_code], np.uint8)
        return tuple(names), table[which] if len(table) else np.zeros(0, np.uint8)


def observe(
    pipeline: Pipeline,
    capture: str | Path,
    *,
    port: str | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] = lambda n: None,
) -> Outcome:
    """Run a pipeline over a capture, behind its own filter, and take down what becomes of it.

    The guard, which keeps some packets with the kernel whatever the filter says, is not there.

    Args:
        pipeline: loaded for this, since its stages remember.
        capture: path of the file.
        port: name of the port that the packets come by; None: the first.
        batch_size: packets in a batch at the most.
        progress: told after each batch how many packets have been read.

    Raises:
        XdpipeError: see CheckRun and CaptureId.
    """
    which = CaptureId.of(capture)
    arrived, places = Arrived(), Places()
    rewritten: dict[int, str] = {}
    with CheckRun(
        pipeline, capture, batch_size=batch_size, steer=True, port=port, arrived=arrived.take
    ) as run:
        n_before = 0
        for batch in run:
            codes = np.zeros(run.n_packets - n_before, np.uint16)  # 0, undecided: none is
            codes[run.numbers - n_before] = _codes(batch, run.verdicts)
            places.add(codes)
            n_before = run.n_packets
            for i in arrived.changed(batch).tolist():
                before, after = arrived.packet(i), bytes(batch.packet(i))
                rewritten[int(run.numbers[i])] = rewriting.describe(before, after)
            progress(run.n_packets)
        result = run.result()
    names, of_packets = places.finish(lambda code: _name(code, pipeline.ports))
    sets = {f"sets.{name}": n for name, n in result["sets"].items()}
    return Outcome(
        which, chosen_port(pipeline, port), batch_size, pipeline.default.name, names, of_packets,
        {n: text for n, text in rewritten.items() if text},  # moved, but the same: headroom
        {**stage_counters(result["stages"]), **sets},
    )  # fmt: skip


def _codes(batch: Batch, verdicts: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the verdict of each packet, with the port that it goes out of, if FORWARD."""
    codes = verdicts.astype(np.uint16)
    codes |= np.where(verdicts == FORWARD, batch.out_port, 0).astype(np.uint16) << 8
    return codes


def _name(code: int, ports: Sequence[str]) -> str:
    verdict, out = code & 0xFF, code >> 8
    if verdict == Verdict.UNDECIDED:
        return NOT_TAKEN
    if verdict == FORWARD and out < len(ports) > 1:
        return f"FORWARD {ports[out]}"
    return Verdict(verdict).name if verdict in Verdict.__members__.values() else "INVALID"


def stage_counters(stages: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the counters of stages, as `check` and `run` tell them, by name; see Outcome."""
    counters: dict[str, int] = {}
    for stage in stages:
        name = stage["name"]
        counters[f"{name}.(packets)"] = stage["packets"]
        counters[f"{name}.(errors)"] = stage["errors"]
        counters |= {f"{name}.{key}": n for key, n in stage["counters"].items()}
    return counters
