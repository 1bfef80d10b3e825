"""Have a user's function change the packets of a capture, once: in parallel, and kept.

scapy takes some 200 us for a packet, a hundred times what all else takes, so the function is called
while preparing, by a process on each core, and what comes of it is a capture in the cache, by the
content of all that has a say in it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import os
import platform
import signal
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpipe import __version__
from xdpipe.capture import CaptureReader, CaptureWriter
from xdpipe.check import CaptureBatches
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.kept_code import Room, kept
from xdpipe.privilege import die_with_parent
from xdpipe.traffic.edit_function import EditError, EditFunction, Given, Made, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FORMAT = 1
_ROOM = Room("edited", "an edited capture", 64, 4 << 30, waits=False)
_CAPTURE = "edited.pcap"
_CHUNK = 128
"""Packets that a process is given at a time: some 25 ms of scapy's."""
_AHEAD = 3
"""Chunks of each process that are under way or waiting."""


@dataclass(frozen=True)
class Edited:
    """An edited capture: read + added = filtered + removed + those in it.

    Attributes:
        path: of the capture; gone once its context ends, unless it is kept.
        read: packets of the capture that it was made of.
        filtered: of these, left out by the filter, before the function.
        removed: left out by the function, which returned None or no packet.
        added: packets that the function returned beyond one for each.
        truncated: where and why the capture ended early, or None.
    """

    path: Path
    read: int
    filtered: int
    removed: int
    added: int
    truncated: str | None


@contextmanager
def edited(
    capture: str | Path,
    file: str | Path,
    *,
    filter: str = "",
    progress: Callable[[int, int], None] | None = None,
    jobs: int | None = None,
) -> Iterator[Edited]:
    """Yield the capture that comes of a function over all packets of another, in their order.

    Times stay those of the packets; of a packet that the function did not change, so do the bytes,
    whatever scapy makes of them. It is kept, and made anew only where the capture, the filter, the
    file or a module beside it that it imports has changed, or scapy, Python or xdpipe is another.
    What else the function reads is not looked at.

    Args:
        capture: a capture of Ethernet packets, in a file.
        file: Python, with `edit(packet)`: scapy's Ether to a packet, a list of them, or None.
        filter: tcpdump filter: only packets that it takes; "": all.
        progress: told packets that are done, and packets of the capture; not if it is kept.
        jobs: processes; None: one for each core.

    Raises:
        XdpipeError: no such file, no capture, or the function raised: file, line, packet. Nothing
            is kept then.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise XdpipeError(f"--edit {file}: no such file; name a Python file with edit(packet)")
    if not Path(capture).is_file():
        raise XdpipeError(f"{capture}: no such file; what --edit is for is read twice")
    takes = Filter(filter) if filter else None

    def make(directory: Path) -> dict[str, Any]:
        return _Making(capture, path, takes, jobs, progress).write(directory / _CAPTURE)

    def still_so(told: dict[str, Any]) -> bool:
        return all(digest(Path(name)) == was for name, was in told["modules"].items())

    with kept(_key(capture, path, filter), make, still_so, _ROOM) as (directory, told):
        counts = {name: told[name] for name in Edited.__dataclass_fields__ if name != "path"}
        yield Edited(directory / _CAPTURE, **counts)


def _key(capture: str | Path, path: Path, filter: str) -> str:
    parts = [
        str(_FORMAT), __version__, importlib.metadata.version("scapy"), platform.python_version(),
        filter, str(path), digest(path), digest(Path(capture)),
    ]  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class _Making:
    """One capture that is made of another."""

    def __init__(
        self,
        capture: str | Path,
        path: Path,
        takes: Filter | None,
        jobs: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._capture, self._path, self._takes = capture, path, takes
        self._jobs = jobs or len(os.sched_getaffinity(0))
        self._progress = progress or (lambda n, total: None)
        self._read = self._filtered = self._removed = self._added = 0
        self._modules: dict[str, str] = {}

    def write(self, to: Path) -> dict[str, Any]:
        """Write the capture; return what is to be known of it."""
        total = _count(self._capture)
        with CaptureReader(self._capture) as reader, CaptureWriter(to) as writer:
            for made, n_read in self._made(reader, -(-total // _CHUNK)):
                for time_ns, wire_len, data in made.packets:
                    writer.write(time_ns, data, wire_len)
                self._removed += made.n_removed
                self._added += made.n_added
                self._modules.update(made.modules)
                self._progress(n_read, total)
            truncated = reader.truncated
        return {
            "read": self._read, "filtered": self._filtered, "removed": self._removed,
            "added": self._added, "modules": self._modules,
            "truncated": truncated and str(truncated),
        }  # fmt: skip

    def _made(self, reader: CaptureReader, n_chunks: int) -> Iterator[tuple[Made, int]]:
        """Yield what becomes of the packets, in order, and how many were read up to there."""
        jobs = max(min(self._jobs, n_chunks), 1)
        given = self._given(reader)
        waiting: deque[tuple[Future[Made], int]] = deque()
        with _processes(jobs, self._path) as pool:
            while True:
                while len(waiting) < _AHEAD * jobs and (chunk := list(islice(given, _CHUNK))):
                    waiting.append((pool.submit(_edit, chunk), self._read))
                if not waiting:
                    return
                future, n_read = waiting.popleft()
                try:
                    yield future.result(), n_read
                except EditError as error:
                    raise XdpipeError(str(error)) from error
                except BrokenProcessPool as error:
                    raise XdpipeError(
                        f"{self._path}: the process that ran it died, at one of the packets up to "
                        f"{self._read}; was there memory enough, or does it end the process?"
                    ) from error

    def _given(self, reader: CaptureReader) -> Iterator[Given]:
        for packet in reader:
            self._read += 1
            if self._takes is not None and not self._takes.matches(packet.data):
                self._filtered += 1
                continue
            yield Given(self._read, *packet)


def _count(capture: str | Path) -> int:
    """Return how many packets a capture has, which takes a thousandth of the time of the rest.

    Raises:
        XdpipeError: it is no capture of Ethernet packets.
    """
    batches = CaptureBatches(capture, 4096)
    try:
        return sum(map(len, batches))
    finally:
        batches.close()


@contextmanager
def _processes(jobs: int, path: Path) -> Iterator[ProcessPoolExecutor]:
    """Have processes that call the function; they are gone afterwards, whatever they do."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, _begin, (path, os.getpid()))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        pool.shutdown()


# In the processes.

_path: Path
_function: EditFunction | None = None


def _begin(path: Path, parent: int) -> None:
    global _path  # noqa: PLW0603 - a process has one function
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to act on
    os.dup2(2, 1)  # what a user's function prints must not spoil --json
    _path = path


def _edit(packets: list[Given]) -> Made:
    global _function  # noqa: PLW0603
    if _function is None:
        _function = EditFunction(_path)
    return _function(packets)
