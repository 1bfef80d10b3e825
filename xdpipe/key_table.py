"""What stages keep by key, in memory that never grows; core/stages/key.h says how it is found."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_KEYS = 1 << 24


def require_n_keys(stage: str, n: int) -> None:
    """Raise XdpipeError where a table cannot have so many keys."""
    if not (isinstance(n, int) and 1 <= n <= MOST_KEYS):
        raise XdpipeError(f"{stage}: room for {n!r} keys: 1 to {MOST_KEYS} are possible")


class Memory:
    """Zeroed memory that is there from now on: no page of it is still to be found later.

    Args:
        size: bytes.

    Attributes:
        c: void *, at the start of a page.
        bytes: a view of it.
    """

    def __init__(self, size: int) -> None:
        self._mapped = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # where the kernel has no huge pages, small ones will do
            self._mapped.madvise(mmap.MADV_HUGEPAGE)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._mapped, np.uint8)
        self.bytes[:] = 0
        self.c: Any = ffi.from_buffer(self._mapped)


class KeyTable:
    """Entries by key, up to a number that is fixed.

    An entry takes 32, 64 or 128 bytes, so that none lies on two lines of the cache where one would
    do, and 16 to 32 bytes more to be found by.

    Args:
        entry: the C struct that an entry begins with, behind which comes the key; its members but
            the first are uint64_t.
        fields: names of those members, in order.
        n_words: of the key.
        capacity: how many entries.

    Attributes:
        c: struct xp_table *.
        n_bytes: of its memory.
    """

    def __init__(self, entry: str, fields: Sequence[str], n_words: int, capacity: int) -> None:
        key_at = ffi.sizeof(entry)
        stride = next(n for n in (32, 64, 128) if n >= key_at + 8 * n_words)
        n_chains = 1 << (4 * capacity - 1).bit_length()
        self._chains = Memory(4 * n_chains)
        self._entries = Memory(stride * (capacity + 1))
        self.n_bytes = 4 * n_chains + stride * (capacity + 1)
        self._layout = np.dtype(
            {
                "names": ["hash", *fields, "key"],
                "formats": [np.uint32, *[np.uint64] * len(fields), (np.void, 8 * n_words)],
                "offsets": [4, *range(8, key_at, 8), key_at],
                "itemsize": stride,
            }
        )
        table = ffi.new(
            "struct xp_table *",
            {
                "chains": ffi.cast("uint32_t *", self._chains.c),
                "entries": ffi.cast("uint8_t *", self._entries.c),
                "mask": n_chains - 1, "capacity": capacity, "stride": stride, "key_at": key_at,
                "n_words": n_words,
            },
        )  # fmt: skip
        self.c: Any = keep_with(table, self._chains, self._entries)

    def __len__(self) -> int:
        """Return how many entries are in use."""
        return int(self.c.n_used)

    @property
    def rows(self) -> NDArray[np.void]:
        """The entries in use, a view: hash, the fields, key; number 1 comes first."""
        rows = self._entries.bytes.view(self._layout)
        used: NDArray[np.void] = rows[1 : len(self) + 1]
        return used
