"""What a jit stage's code may name, and where it lies; for machine code and for Python."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.batch import COLUMNS
from xdpipe.core._core import ffi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpipe.own_columns import Scope

ALWAYS = "receive"
"""Columns that are filled at reception need not be required."""

N, PORT, BASE, TEXTS = (ffi.offsetof("struct xp_batch", f) for f in ("n", "port", "base", "texts"))
"""Where struct xp_batch has them; bytes."""


@dataclass(frozen=True)
class JitColumn:
    """A column that the code may name.

    Attributes:
        name: of it.
        dtype: numpy's name of a value's.
        width: values per packet.
        writable: the code may write it.
        text: it is a column of texts.
        field: where struct xp_batch has its address, bytes; -1: it is a user's stage's.
    """

    name: str
    dtype: str
    width: int
    writable: bool
    text: bool
    field: int


def digest_of(thing: object) -> str:
    """Return a short name for all that a thing's repr says."""
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class JitValue:
    """An array or a number that the code keeps as state.

    Attributes:
        name: of it.
        descr: of its dtype, as numpy's `dtype.descr` or `dtype.str`; as text.
        shape: of an array; None: a number.
    """

    name: str
    descr: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class JitLayout:
    """What the code of one stage may name, in one chain.

    The code is given a table of 64-bit words: see `slots`.

    Attributes:
        columns: that it may name.
        hidden: names of columns that there are, but that the stage does not require.
        counters: its counters.
        state: its arrays and numbers.
        ports: the pipeline's names of its ports.
    """

    columns: tuple[JitColumn, ...]
    hidden: tuple[str, ...]
    counters: tuple[str, ...]
    state: tuple[JitValue, ...]
    ports: tuple[str, ...]

    LOAD: ClassVar[int] = 0
    STORE: ClassVar[int] = 1
    WANT_CHECKSUM: ClassVar[int] = 2
    COUNTERS: ClassVar[int] = 3
    RAISED: ClassVar[int] = 4
    """Words of the table: three functions of the core, the counters' address, and what was raised
    first. Then the addresses of users' columns, and of arrays; a number lies there itself."""

    @cached_property
    def digest(self) -> str:
        """A short name for all of it."""
        return digest_of(self)

    @cached_property
    def memories(self) -> tuple[str, ...]:
        """Names for memory that is disjoint: that of each column, the counters, the packets."""
        return (*(column.name for column in self.columns), "the counters", "packets")

    @property
    def slots(self) -> dict[str, int]:
        """The words of the table that belong to users' columns and to state, by name."""
        names = [f"columns.{column.name}" for column in self.columns if column.field < 0]
        names += [f"state.{value.name}" for value in self.state]
        return {name: self.RAISED + 1 + k for k, name in enumerate(names)}

    def column(self, name: str) -> JitColumn | None:
        """Return the column of this name, if the code may name it."""
        return next((column for column in self.columns if column.name == name), None)

    def why_not(self, name: str) -> str:
        """Say why there is no such attribute of the batch."""
        if name in self.hidden:
            return f"batch.{name}: the stage does not require it; add it to requires=(…)"
        return f"batch.{name}: there is no such column, nor such a method in a jit stage"


def layout_of(
    requires: Sequence[str],
    own: Sequence[str],
    counters: Sequence[str],
    state: Mapping[str, Any],
    scope: Scope,
) -> JitLayout:
    """Return what a stage's code may name.

    Args:
        requires: the columns that the stage requires.
        own: those that it declares.
        counters: its counters.
        state: its arrays and numbers.
        scope: what there is.
    """
    columns, hidden = [], []
    for column in COLUMNS.values():
        if column.provider == ALWAYS or column.name in requires:
            dtype = "text" if column.text else column.dtype.name
            columns.append(
                JitColumn(column.name, dtype, column.width, column.writable, column.text,
                          column.field)
            )  # fmt: skip
        else:
            hidden.append(column.name)
    for mine in scope.columns:
        if mine.name in requires or mine.name in own:
            columns.append(JitColumn(mine.name, mine.dtype, mine.width, True, False, -1))
        else:
            hidden.append(mine.name)
    values = tuple(
        JitValue(name, _descr(value), value.shape if isinstance(value, np.ndarray) else None)
        for name, value in state.items()
    )
    return JitLayout(tuple(columns), tuple(hidden), tuple(counters), values, scope.ports)


def _descr(value: Any) -> str:
    dtype = value.dtype
    return str(dtype.descr) if dtype.fields else str(dtype.str)
