"""The file of what a pipeline is to make of a capture: JSON, which git shows line by line.

{
 "format": 1,                         of this file; another is not read
 "xdpipe": "0.1.0",                   that wrote it; any may read it
 "capture": {"name": …, "bytes": …, "sha256": …, "packets": 1001},
 "port": "", "batch": 512,            what it was run with, and is again
 "default": "TX",
 "verdicts": {"DROP": 500, "TX": 501},
 "sets": {"offenders": 2},
 "stages": {"Headers": {"packets": …, "errors": …, "counters": {"ipv4": …}}, …},
                                      counters that are 0 are left out
 "packets": ["1-17 TX", "18 DROP", …],            numbered as Wireshark does, from 1
 "rewritten": ["1 0=020000000001 26=c0000207", …]           see xdpipe/verify/rewriting.py
}
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xdpipe import __version__
from xdpipe.errors import XdpipeError
from xdpipe.verify.outcome import CaptureId, Outcome
from xdpipe.verify.rewriting import is_valid

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
_RUN = re.compile(r"(\d+)(?:-(\d+))? (\S.*)")
_REWRITTEN = re.compile(r"(\d+) (\S.*)")


class _Damaged(ValueError):
    """What is wrong with the file."""


def write(outcome: Outcome, path: str | Path) -> None:
    """Write it to a file, whole or not at all; a file that was there is replaced.

    Raises:
        XdpipeError: the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        try:
            aside.write_text(json.dumps(to_dict(outcome), indent=1) + "\n")
            aside.replace(path)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
    except OSError as error:
        raise XdpipeError(f"{path}: {error.strerror}") from error


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """Return what the file holds."""
    stages: dict[str, dict[str, Any]] = {}
    sets: dict[str, int] = {}
    for name, n in outcome.counters.items():
        where, _, counter = name.partition(".")
        if where == "sets":
            sets[counter] = n
            continue
        stage = stages.setdefault(where, {"packets": 0, "errors": 0, "counters": {}})
        if counter in ("(packets)", "(errors)"):
            stage[counter[1:-1]] = n
        elif n:
            stage["counters"][counter] = n
    which = outcome.capture
    return {
        "format": FORMAT,
        "xdpipe": __version__,
        "capture": {
            "name": which.name, "bytes": which.n_bytes, "sha256": which.sha256,
            "packets": len(outcome),
        },
        "port": outcome.port,
        "batch": outcome.batch_size,
        "default": outcome.default,
        "verdicts": outcome.totals(),
        "sets": sets,
        "stages": stages,
        "packets": list(_runs(outcome)),
        "rewritten": [f"{number + 1} {text}" for number, text in outcome.rewritten.items()],
    }  # fmt: skip


def _runs(outcome: Outcome) -> Iterator[str]:
    """Yield what became of the packets, neighbours that became the same together."""
    places = outcome.places
    if not len(places):
        return
    starts = np.concatenate([[0], np.flatnonzero(np.diff(places)) + 1, [len(places)]]).tolist()
    for first, end in pairwise(starts):
        which = f"{first + 1}" if end - first == 1 else f"{first + 1}-{end}"
        yield f"{which} {outcome.verdict(first)}"


def read(path: str | Path) -> Outcome:
    """Read what `write` wrote.

    Raises:
        XdpipeError: there is no such file, it is of another format, or was damaged.
    """
    try:
        data = json.loads(Path(path).read_text())
        if not isinstance(data, dict) or "format" not in data:
            raise _Damaged("it has no format")
    except OSError as error:
        raise XdpipeError(
            f"{path}: {error.strerror}; record it first: xdpipe verify FILE --pcap CAPTURE "
            f"--record {path}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise XdpipeError(f"{path}: not what --record writes ({error}); record it anew") from error
    if data["format"] != FORMAT:
        raise XdpipeError(
            f"{path}: written by xdpipe {data.get('xdpipe', '?')} in format {data['format']}, and "
            f"this is {__version__}, which reads format {FORMAT}; record it anew"
        )
    try:
        return _from_dict(data)
    except KeyError as error:
        raise XdpipeError(f"{path}: damaged: {error} is missing; record it anew") from error
    except (ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise XdpipeError(f"{path}: damaged: {error}; record it anew") from error


def _from_dict(data: dict[str, Any]) -> Outcome:
    which = data["capture"]
    capture = CaptureId(_text(which["name"]), _number(which["bytes"]), _text(which["sha256"]))
    names = tuple(map(_text, data["verdicts"]))
    if len(names) > 256:
        raise _Damaged(f"{len(names)} kinds of verdicts")
    counters: dict[str, int] = {}
    for stage, told in data["stages"].items():
        counters[f"{stage}.(packets)"] = _number(told["packets"])
        counters[f"{stage}.(errors)"] = _number(told["errors"])
        counters |= {f"{stage}.{name}": _number(n) for name, n in told["counters"].items()}
    counters |= {f"sets.{name}": _number(n) for name, n in data["sets"].items()}
    outcome = Outcome(
        capture, _text(data["port"]), _number(data["batch"]), _text(data["default"]), names,
        _read_runs(data["packets"], names, _number(which["packets"])),
        _read_rewritten(data["rewritten"], _number(which["packets"])), counters,
    )  # fmt: skip
    if not 0 < outcome.batch_size <= 65536:
        raise _Damaged(f"batches of {outcome.batch_size} packets")
    if outcome.totals() != data["verdicts"]:
        raise _Damaged(f"verdicts says {data['verdicts']}, but packets {outcome.totals()}")
    return outcome


def _read_runs(runs: list[str], names: tuple[str, ...], n_packets: int) -> NDArray[np.uint8]:
    places, lengths = [], []
    at = 0
    for run in runs:
        match = _RUN.fullmatch(run)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or first != at + 1 or last < first or last > n_packets:
            raise _Damaged(f"{run!r} cannot come behind packet {at:,} of {n_packets:,}")
        if match[3] not in names:
            raise _Damaged(f"{run!r}: verdicts has none of that name")
        places.append(names.index(match[3]))
        lengths.append(last - at)
        at = last
    if at != n_packets:
        raise _Damaged(f"packets ends with {at:,} of {n_packets:,}")
    return np.repeat(np.array(places, np.uint8), np.array(lengths, np.int64))


def _read_rewritten(lines: list[str], n_packets: int) -> dict[int, str]:
    rewritten: dict[int, str] = {}
    before = 0
    for line in lines:
        match = _REWRITTEN.fullmatch(line)
        if match is None or not before < int(match[1]) <= n_packets or not is_valid(match[2]):
            raise _Damaged(f"no change of a packet behind {before:,}: {line!r}")
        before = int(match[1])
        rewritten[before - 1] = match[2]
    return rewritten


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _Damaged(f"{value!r} is no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Damaged(f"{value!r} is no text")
    return value
