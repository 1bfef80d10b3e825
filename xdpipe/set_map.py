"""A set of addresses in the kernel, as the supervisor keeps it: written, looked through, aged."""

from __future__ import annotations

import ctypes
import errno
import sys
import time
from typing import TYPE_CHECKING

from xdpipe.bpf import BpfError, Map, call
from xdpipe.sets import ADDRESS_BYTES
from xdpipe.steering import set_map_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdpipe.sets import KeySet

Entry = tuple[int, bytes]
"""Length of a prefix in bits, and its address; of a set of addresses always 128."""

# linux/bpf.h, enum bpf_cmd
_MAP_LOOKUP_BATCH = 24
_MAP_UPDATE_BATCH = 26
_MAP_DELETE_BATCH = 27

_AT_ONCE = 8192
"""Entries a system call."""
_TOKEN_BYTES = 64
"""Room for where a look through the map is: a key, or a number of the kernel's."""
FULL = (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)

_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class _Batch(ctypes.Structure):
    """The part of union bpf_attr for BPF_MAP_*_BATCH (Linux 5.6; of LPM tries 5.13)."""

    _fields_ = (
        ("in_batch", _U64), ("out_batch", _U64), ("keys", _U64), ("values", _U64),
        ("count", _U32), ("map_fd", _U32), ("elem_flags", _U64), ("flags", _U64),
    )  # fmt: skip


class SetMap:
    """The kernel's map of one set; owns it.

    Args:
        name: of the set.
        declared: how it was declared.

    Attributes:
        map: to be handed to programs.
        n_added: keys that were added, or added again.
        n_expired: entries that were removed since their time was over.
        n_refused: keys that it had no room for.
        n_entries: as `sweep` or `count` found it last.

    Raises:
        BpfError: not permitted.
    """

    def __init__(self, name: str, declared: KeySet) -> None:
        self.name = name
        self.declared = declared
        self.map = Map.make(set_map_spec(0, declared))
        self.n_added = self.n_expired = self.n_refused = 0
        self._key_bytes = ADDRESS_BYTES + (4 if declared.prefixes else 0)
        self.n_entries = 0
        self._round = self._look_at_all()

    def add(self, entries: Sequence[Entry], ttl_s: float | None = None) -> int:
        """Add entries, or set the time of those that are there anew.

        Args:
            entries: what to add.
            ttl_s: seconds until they are gone; None: as the set was declared.

        Returns:
            How many are in it now; the rest it had no room for.
        """
        ttl_s = self.declared.ttl_s if ttl_s is None else ttl_s
        until = 0 if ttl_s is None else time.monotonic_ns() + int(ttl_s * 1e9)
        n_added = 0
        for at in range(0, len(entries), _AT_ONCE):
            some = entries[at : at + _AT_ONCE]
            n_added += self._update(b"".join(map(self._key, some)), len(some), until)
        self.n_added += n_added
        self.n_refused += len(entries) - n_added
        return n_added

    def _update(self, keys: bytes, n: int, until: int) -> int:
        done = 0
        values = (_U64 * n)(*([until] * n))
        buffer = ctypes.create_string_buffer(keys, len(keys))
        while done < n:
            batch = _Batch(
                0, 0, ctypes.addressof(buffer) + done * self._key_bytes,
                ctypes.addressof(values) + done * 8, n - done, self.map.fd, 0, 0,
            )  # fmt: skip
            try:
                call(_MAP_UPDATE_BATCH, batch, f"add to the set {self.name}")
            except BpfError as error:
                if error.errno not in FULL:
                    raise
                return done + int(batch.count)
            done += int(batch.count)
        return done

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove entries; return how many there were."""
        n = 0
        for at in range(0, len(entries), _AT_ONCE):
            some = entries[at : at + _AT_ONCE]
            n += self._delete(b"".join(map(self._key, some)), len(some))
        return n

    def _delete(self, keys: bytes, n: int) -> int:
        done = n_deleted = 0
        buffer = ctypes.create_string_buffer(keys, len(keys))
        while done < n:
            address = ctypes.addressof(buffer) + done * self._key_bytes
            batch = _Batch(0, 0, address, 0, n - done, self.map.fd, 0, 0)
            try:
                call(_MAP_DELETE_BATCH, batch, f"remove from the set {self.name}")
            except BpfError as error:
                if error.errno != errno.ENOENT:
                    raise
                done += 1  # the one behind those that were deleted was not there
            done += int(batch.count)
            n_deleted += int(batch.count)
        return n_deleted

    def _key(self, entry: Entry) -> bytes:
        length, address = entry
        if self.declared.prefixes:
            return length.to_bytes(4, _BYTE_ORDER) + address
        return address

    def _entry(self, key: bytes) -> Entry:
        if self.declared.prefixes:
            return int.from_bytes(key[:4], _BYTE_ORDER), key[4:]
        return 128, key

    def _pages(self) -> Iterator[list[tuple[Entry, int]]]:
        """Look through the map, some entries at a time, with the time at which each ends.

        What is added or removed meanwhile may be missed or told twice.
        """
        token = ctypes.create_string_buffer(_TOKEN_BYTES)
        keys = ctypes.create_string_buffer(_AT_ONCE * self._key_bytes)
        values = (_U64 * _AT_ONCE)()
        place = 0
        while True:
            batch = _Batch(
                place, ctypes.addressof(token), ctypes.addressof(keys), ctypes.addressof(values),
                _AT_ONCE, self.map.fd, 0, 0,
            )  # fmt: skip
            last = False
            try:
                call(_MAP_LOOKUP_BATCH, batch, f"look through the set {self.name}")
            except BpfError as error:
                if error.errno != errno.ENOENT:
                    raise
                last = True
            n, size, raw = int(batch.count), self._key_bytes, keys.raw
            yield [(self._entry(raw[i * size : (i + 1) * size]), int(values[i])) for i in range(n)]
            if last:
                return
            place = ctypes.addressof(token)

    def entries(self) -> list[tuple[Entry, float | None]]:
        """Return what is in it, with the seconds that are left of each; None: for ever."""
        now = time.monotonic_ns()
        return [
            (entry, (until - now) / 1e9 if until else None)
            for page in self._pages() for entry, until in page if not until or until > now
        ]  # fmt: skip

    def flush(self) -> int:
        """Remove everything; return how many entries that was."""
        n = 0
        while entries := [entry for page in self._pages() for entry, _ in page]:
            n += self.delete(entries)
        return n

    def count(self) -> None:
        """Count the entries now, instead of when `sweep` has looked at all."""
        self.n_entries = sum(map(len, self._pages()))
        self._round = self._look_at_all()  # one that is under way began before

    def sweep(self) -> None:
        """Count some entries, and remove those of them whose time is over.

        Called again and again, it looks at all, and then has counted them.
        """
        if next(self._round, None) is None:
            self._round = self._look_at_all()

    def _look_at_all(self) -> Iterator[bool]:
        n = 0
        for page in self._pages():
            now = time.monotonic_ns()
            gone = self.delete([entry for entry, until in page if 0 < until <= now])
            self.n_expired += gone
            n += len(page) - gone
            yield True
        self.n_entries = n

    def close(self) -> None:
        """Let go of the map."""
        self.map.close()


_BYTE_ORDER = sys.byteorder
