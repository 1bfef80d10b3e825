"""What a running pipeline's sets of addresses live by: workers add, commands ask, time passes."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xdpipe.bpf import BpfError
from xdpipe.errors import XdpipeError
from xdpipe.set_map import SetMap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xdpipe.bpf import Map
    from xdpipe.set_map import Entry
    from xdpipe.set_ring import SetRing
    from xdpipe.sets import KeySet
    from xdpipe.steering import SteerProgram

PACKED = struct.Struct("=Id4x16s")
"""An entry on its way between a command and the supervisor: length of the prefix, seconds that are
left (or infinity), address."""


def pack(entries: Sequence[tuple[Entry, float | None]]) -> bytes:
    """Write entries down, for the other side."""
    return b"".join(
        PACKED.pack(length, float("inf") if left is None else left, address)
        for (length, address), left in entries
    )


def unpack(data: bytes) -> Iterator[tuple[Entry, float | None]]:
    """Read what the other side has written down."""
    for length, left, address in PACKED.iter_unpack(data):
        yield (length, address), None if left == float("inf") else left


class SetKeeper:
    """The kernel's maps of a pipeline's sets; owns them.

    Args:
        declared: the sets by name, in the order of their numbers.

    Raises:
        BpfError: not permitted.
    """

    def __init__(self, declared: Mapping[str, KeySet]) -> None:
        self._sets: dict[str, SetMap] = {}
        try:
            for name, each in declared.items():
                self._sets[name] = SetMap(name, each)
        except BaseException:
            self.close()
            raise
        self._by_number = list(self._sets.values())

    @property
    def maps(self) -> dict[str, Map]:
        """For the programs; they stay this object's."""
        return {name: each.map for name, each in self._sets.items()}

    def take(self, ring: SetRing) -> None:
        """Add what a worker handed over. It parses hostile bytes: what makes no sense is left."""
        for keys in ring.take():
            found: dict[int, list[Entry]] = {}
            for number, length, address in keys:
                if number < len(self._by_number) and length <= 128:
                    found.setdefault(number, []).append((length, address))
            for number, entries in found.items():
                with suppress(BpfError):  # what it had no room for is counted; else, the next time
                    self._by_number[number].add(entries)

    def sweep(self) -> None:
        """Remove some of the entries whose time is over; to be called several times a second."""
        for each in self._by_number:
            each.sweep()

    def status(
        self, programs: Sequence[SteerProgram], rings: Sequence[SetRing]
    ) -> list[dict[str, Any]]:
        """Return what `--json` shows under `sets`."""
        hits: dict[str, int] = dict.fromkeys(self._sets, 0)
        for program in programs:
            for name, n in program.set_hits().items():
                hits[name] += n
        n_lost = sum(ring.n_lost for ring in rings)
        return [
            {
                "name": name,
                "kind": each.declared.kind,
                "match": each.declared.match,
                "prefixes": each.declared.prefixes,
                "ttl_s": each.declared.ttl_s,
                "capacity": each.declared.capacity,
                "entries": each.n_entries,
                "packets": hits[name],
                "added": each.n_added,
                "expired": each.n_expired,
                "refused": each.n_refused,
                "lost_on_the_way": n_lost,
            }
            for name, each in self._sets.items()
        ]

    def answer(self, body: Any, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Do what a command asks: `set`, `op` (list, add, del, flush), for add perhaps `ttl_s`.

        Args:
            body: the request.
            data: entries of add and del, as `pack` gives them.

        Returns:
            The answer, and entries of list.

        Raises:
            XdpipeError: there is no such set, or what is added is nothing for it.
        """
        name, op = body["set"], body["op"]
        if name not in self._sets:
            names = ", ".join(self._sets) or "none"
            raise XdpipeError(f"{name}: no such set; the pipeline's sets: {names}")
        each = self._sets[name]
        if op == "list":
            entries = each.entries()
            return {"entries": len(entries)}, pack(entries)
        told = self._change(each, op, [entry for entry, _ in unpack(data)], body.get("ttl_s"))
        each.count()
        return told, b""

    def _change(
        self, each: SetMap, op: str, given: Sequence[Entry], ttl_s: float | None
    ) -> dict[str, Any]:
        if op == "flush":
            return {"deleted": each.flush()}
        if not each.declared.prefixes and any(length != 128 for length, _ in given):
            raise XdpipeError(f"set {each.name} holds addresses; declare it with prefixes=True")
        if op == "del":
            return {"deleted": each.delete(given), "given": len(given)}
        return {"added": each.add(given, ttl_s), "given": len(given)}

    def close(self) -> None:
        """Let go of the maps. May be called twice."""
        for each in self._sets.values():
            each.close()


def read_all(fd: int) -> bytes:
    """Return what a file holds, from its start, and close it."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()


def in_memory(data: bytes) -> int:
    """Return a descriptor of a file in memory that holds this."""
    fd = os.memfd_create("xdpipe-entries", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd
