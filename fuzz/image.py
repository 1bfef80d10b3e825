"""The states of a target's stages, as Python makes them, in a file that the driver reads.

A stage's state is made in `make_state`, by cffi, and whatever it points to is held by the stage. So
that nothing has to be made a second time in C, the memory is taken as it is: from the state on,
each word that is an address within memory that the stage holds is a pointer, and is written as
one. A word that is an address of anything else is a function or a table of the core or of another
library, or a mistake. What `make_state` takes from os.urandom is the same each time, so that an
input does the same.

`target.c` has the form of the file.
"""

import ctypes
import random
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fuzz.targets import Target
from xdpipe.core._core import ffi, lib
from xdpipe.stage import OWN, NativeStage

LARGEST = 4 << 20
"""Bytes of states: each run copies all of them."""
_LINE = 16384  # bytes told in one line
_NUMBERS = 1 << 32
"""Below it a word that is the address of nothing that is held is a number: memory lies there in a
Python only that is not position independent, as Debian's: its own, and its heap's beginning."""
_BUFFERS = (bytearray, memoryview)


class ImageError(Exception):
    """A state that cannot be written down."""


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


@cache
def _functions() -> dict[int, str]:
    """Return the core's functions by address: cffi gives that of a static function around each."""
    return {
        int(ffi.cast("uintptr_t", ffi.addressof(lib, name))): name
        for name in dir(lib)
        if callable(getattr(lib, name))
    }


def _symbol(address: int) -> str | None:
    """Return the name and the library of what lies at an address (dladdr(3))."""
    if address in _functions():
        return f"{_functions()[address]} -"
    info = _DlInfo()
    found = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info))
    if not found or not info.name or info.address != address:
        return None
    library = info.file.decode()
    return f"{info.name.decode()} {'-' if '/_core.' in library else library}"


class _Maps:
    """Where this process has memory at all."""

    def __init__(self) -> None:
        edges: list[int] = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            edges += (int(edge, 16) for edge in line.split()[0].split("-"))
        self.edges = np.array(edges, np.uint64)

    def which(self, words: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the places of those words that are addresses of anything."""
        return np.flatnonzero(np.searchsorted(self.edges, words, "right") % 2)


def _kept_with(struct: Any) -> list[Any]:
    """Return what modules of xdpipe keep for as long as a struct lives (keep.py and the like)."""
    tables = (
        table
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "xdpipe"
        for table in vars(module).values()
        if isinstance(table, WeakKeyDictionary)
    )
    return [table[struct] for table in tables if struct in table]


def _memory_of(value: Any, seen: set[int]) -> Iterator[tuple[int, int]]:
    """Yield address and size of all memory that a value holds, also through what it holds."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, ffi.CData):
        for kept in _kept_with(value):
            yield from _memory_of(kept, seen)
        told = repr(value)  # cffi says there alone whether memory is owned, and how much
        if " owning " in told:
            size = int(told.rpartition(" owning ")[2].split()[0])
            yield _address(value), size
        elif " buffer " in told:
            yield _address(value), ffi.sizeof(value)
    elif isinstance(value, np.ndarray):
        if value.base is not None:
            yield from _memory_of(value.base, seen)
        else:
            yield value.ctypes.data, value.nbytes
    elif isinstance(value, _BUFFERS) or type(value).__name__ == "mmap":
        view = np.frombuffer(value, np.uint8)
        yield view.ctypes.data, view.nbytes
    elif isinstance(value, dict):
        for one in value.values():
            yield from _memory_of(one, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from _memory_of(one, seen)
    elif type(value).__module__.partition(".")[0] not in ("builtins", "numpy"):
        yield from _memory_of(getattr(value, "__dict__", {}), seen)


def _address(cdata: Any) -> int:
    if ffi.typeof(cdata).kind in ("struct", "union"):
        cdata = ffi.addressof(cdata)
    return int(ffi.cast("uintptr_t", cdata))


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, size in sorted(range_ for range_ in ranges if range_[1]):
        if merged and start < sum(merged[-1]):
            last, last_size = merged.pop()
            merged.append((last, max(last_size, start + size - last)))
        else:
            merged.append((start, size))
    return merged


class _Memory:
    """What stages hold; blocks that states reach get numbers, and their contents are told."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.ranges = ranges
        self.starts = [start for start, _ in ranges]
        self.maps = _Maps()
        self.size = 0
        self.numbers: dict[int, int] = {}
        self.todo: list[int] = []

    def find(self, address: int) -> tuple[int, int] | None:
        """Return the block that an address lies in, and where; its end counts as in it."""
        for before in (address, address - 1):
            place = bisect_right(self.starts, before) - 1
            if place >= 0 and address <= sum(self.ranges[place]):
                if place not in self.numbers:
                    self.numbers[place] = len(self.numbers)
                    self.todo.append(place)
                return self.numbers[place], address - self.starts[place]
        return None

    def lines(self, owner: str) -> Iterator[tuple[str, str]]:
        """Yield what declares blocks, and what fills them."""
        while self.todo:
            place = self.todo.pop(0)
            start, size = self.ranges[place]
            number = self.numbers[place]
            self.size += size
            if self.size > LARGEST:
                raise ImageError(
                    f"{owner}: its states have more than {LARGEST} bytes: make smaller tables"
                )
            yield f"block {size} {start % 64}", ""
            yield from (("", line) for line in self._contents(number, start, size, owner))

    def _contents(self, number: int, start: int, size: int, owner: str) -> Iterator[str]:
        data = bytearray(ffi.buffer(ffi.cast("uint8_t *", start), size))
        first = -start % 8
        end = first + max(size - first, 0) // 8 * 8
        words = np.frombuffer(bytes(data[first:end]), np.uint64)
        addresses = []
        for k in self.maps.which(words):
            at, word = first + 8 * int(k), int(words[k])
            found = self.find(word)
            if found is not None:
                addresses.append(f"pointer {number} {at} {found[0]} {found[1]}")
            elif (name := _symbol(word)) is not None:
                addresses.append(f"symbol {number} {at} {name}")
            elif word >= _NUMBERS:
                raise ImageError(
                    f"{owner}: byte {at} of {size} that its state lies in or points to is the "
                    f"address {word:#x}, which is no memory that the stage holds"
                )
            else:
                continue
            data[at : at + 8] = bytes(8)
        for at in range(0, size, _LINE):
            part = data[at : at + _LINE]
            head = len(part) - len(part.lstrip(b"\0"))
            part = part.strip(b"\0")
            if part:
                yield f"bytes {number} {at + head} {part.hex()}"
        yield from addresses  # last: there are zeros between bytes


def _stage_lines(stage: NativeStage, memory: _Memory, counts: int) -> Iterator[str]:
    state = memory.find(_address(stage.state))
    own = memory.find(counts + 8 * OWN)
    if state is None or own is None:
        raise ImageError(f"{stage.name}: its state is not memory that it holds")
    yield f"stage {stage.name} {stage.function} {state[0]} {state[1]} {own[0]} {own[1]}"
    yield from (f"counter {name}" for name in stage.counters)
    yield from (f"provides {name}" for name in stage.provides)


def _bound(target: Target) -> tuple[list[NativeStage], list[memoryview]]:
    """Make a target's stages, and where they count."""
    stages = list(target.stages())
    counts = [memoryview(bytearray(8 * (OWN + len(stage.counters)))).cast("Q") for stage in stages]
    for i, (stage, its) in enumerate(zip(stages, counts, strict=True)):
        stage.join(stages[:i])
        stage.bind(its)
    return stages, counts


def image(name: str, target: Target) -> str:
    """Return a target's image.

    Raises:
        ImageError: a state points to memory that its stage does not hold, or is too large.
    """
    with patch("os.urandom", random.Random(1).randbytes):
        stages, counts = _bound(target)
    seen: set[int] = set()
    held = (piece for value in (*stages, *counts) for piece in _memory_of(value, seen))
    memory = _Memory(_merged(held))
    told: list[str] = []
    for stage, its in zip(stages, counts, strict=True):
        told += _stage_lines(stage, memory, int(ffi.cast("uintptr_t", ffi.from_buffer(its))))
    lines = list(memory.lines(name))
    head = f"target {name} {target.port} {target.headroom} {target.rewrites:d} {target.by_batch:d}"
    head += f" {target.many_faults:d}"
    blocks, contents = zip(*lines, strict=True)
    return "\n".join(filter(None, (head, *blocks, *contents, *told))) + "\n"
