"""What the kinds of stage that users have compiled share: jit and c."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.own_columns import Scope, declared
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from xdpipe.batch import Batch


class CompiledStage(NativeStage):
    """A stage whose function a user wrote, and which is compiled as the user's file is loaded.

    Its C function is given a table of 64-bit words as its state: addresses, mostly.
    """

    _batch: Batch | None = None
    _address = 0
    """Of the C function."""

    @property
    def run(self) -> Any:
        """The C function, as xp_stage_fn *."""
        return ffi.cast("xp_stage_fn *", self._address)

    @property
    def words(self) -> memoryview:
        """Where the counts are kept: uint64, the stage's own counters from OWN on; once bound."""
        assert self._counts is not None
        return self._counts

    def settle(self, batch: Batch) -> None:
        """Learn which batch it will work on, with the columns there; before bind."""
        self._batch = batch

    def process(self, batch: Batch) -> None:
        """Run on one batch, as a chain would; for tests. It keeps its state from call to call."""
        rows = self._ready(batch)
        self._entry.zeroed, self._entry.n_zeroed = rows, len(rows)
        lib.xp_run_stages(batch.c, self._entry, 1)

    def _ready(self, batch: Batch) -> Any:
        """Make ready for a call with a batch that is in no chain; return where its columns are."""
        rows = batch.add_columns(declared(self))
        if self._batch is not batch:
            self.prepare(Scope(tuple(batch.own.values()), batch.ports))
            self.settle(batch)
            if self._entry is None:
                self.bind_alone()
            self._point()
        return rows

    def make_state(self, counters: Any) -> Any:
        """Return the table; see NativeStage."""
        self.table = np.zeros(self._n_words(), np.uint64)
        self.memory = [self.table]
        self._fill(int(ffi.cast("uintptr_t", counters)))
        self._point()
        return ffi.from_buffer("uint64_t[]", self.table)

    def _point(self) -> None:
        """Put the addresses of the batch's columns of users' stages into the table."""
        assert self._batch is not None
        for word, column in self._own_words():
            self.table[word] = self._batch.rows(column).ctypes.data

    def _keep(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return zeroed memory at a cache line, which is held as long as the table."""
        memory = np.zeros(n_bytes + 64, np.uint8)
        self.memory.append(memory)
        start = -memory.ctypes.data % 64
        return memory[start : start + n_bytes]

    @abstractmethod
    def _n_words(self) -> int:
        """Return how many words the table has."""

    @abstractmethod
    def _fill(self, counters: int) -> None:
        """Fill in the table, but for columns; and make what it points to.

        Args:
            counters: address of the stage's own.
        """

    @abstractmethod
    def _own_words(self) -> Iterable[tuple[int, str]]:
        """Return the words that are addresses of columns, and their names."""


def checked_names(who: str, what: str, names: Iterable[Any]) -> None:
    """Refuse names that code cannot use.

    Args:
        who: what the message begins with.
        what: counters or state.
        names: to be checked.
    """
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("__"):
            raise XdpipeError(f"{who}: {what}: {name!r} is no name that its code can use")
