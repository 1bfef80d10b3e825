"""Columns that users' stages declare: what they are, and whether they can be."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.errors import ChainError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpipe.stage import Stage

WIDTH_MAX = 1024
"""Values per packet."""
_C_TYPES = {
    "bool": "uint8_t", "float32": "float", "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_C_KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while asm typeof
"""
_TAKEN = frozenset(
    ("c", "capacity", "counters", "data", "index", "n", "own", "ports", "replace", "scapy", "state")
)
"""Names that a batch, or stages of one kind or another, use beside its columns."""


@dataclass(frozen=True)
class OwnColumn:
    """A column that a user's stage provides.

    Attributes:
        name: by which it is an attribute of the batch.
        dtype: numpy's name: bool, int8 to int64, uint8 to uint64, float32, float64.
        width: values per packet.
        provider: name of the stage that declares it.
    """

    name: str
    dtype: str
    width: int
    provider: str

    @property
    def kind(self) -> tuple[str, int]:
        """What must be the same where two stages mean the same column."""
        return self.dtype, self.width

    @property
    def c_type(self) -> str:
        """C type of a value."""
        return _C_TYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes for each packet."""
        return np.dtype(self.dtype).itemsize * self.width

    def allocate(self, capacity: int) -> NDArray[Any]:
        """Return zeroed rows for so many packets, from a cache line of their own on."""
        n_bytes = self.row_bytes * capacity
        memory = np.zeros(n_bytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        rows: NDArray[Any] = memory[start : start + n_bytes].view(self.dtype)
        return rows.reshape(capacity, self.width) if self.width > 1 else rows

    def __str__(self) -> str:
        return self.dtype if self.width == 1 else f"({self.dtype}, {self.width})"


@dataclass(frozen=True)
class Scope:
    """What a stage may name.

    Attributes:
        columns: the columns of users' stages before it, and its own.
        ports: the pipeline's names of its ports.
    """

    columns: tuple[OwnColumn, ...] = ()
    ports: tuple[str, ...] = ("",)


def declared(stage: Stage) -> tuple[OwnColumn, ...]:
    """Return the columns that a stage declares.

    Raises:
        ChainError: one of them cannot be.
    """
    if not stage.columns:
        return ()
    if not isinstance(stage.columns, Mapping):
        raise ChainError(
            f"stage {stage.name}: columns={stage.columns!r}: write a dict of name and dtype, such "
            'as {"score": "float32"}'
        )
    return tuple(_declared(stage.name, name, what) for name, what in stage.columns.items())


def _declared(stage: str, name: Any, what: Any) -> OwnColumn:
    from xdpipe.batch import COLUMNS, Batch

    where = f"stage {stage}: column {name!r}"
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        raise ChainError(f"{where}: its name must be one that Python and C know: a to z, 0 to 9, _")
    if name in COLUMNS:
        raise ChainError(f"{where}: there is one, filled by {COLUMNS[name].provider}; name another")
    if name in _TAKEN or name[0] == "_" or hasattr(Batch, name):
        raise ChainError(f"{where}: a batch has an attribute of that name; name another")
    if keyword.iskeyword(name) or name in _C_KEYWORDS.split():
        raise ChainError(f"{where}: that is a word of Python's or C's own; name another")
    wanted, width = what if isinstance(what, tuple) and len(what) == 2 else (what, 1)
    try:
        dtype = None if wanted is None else np.dtype(wanted)
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.name not in _C_TYPES or not dtype.isnative:
        raise ChainError(
            f"{where}: no dtype {wanted!r}; there are bool, int8 to int64, uint8 to uint64, "
            "float32, float64"
        )
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= WIDTH_MAX:
        raise ChainError(f"{where}: {width!r} values per packet; 1 to {WIDTH_MAX} can be")
    return OwnColumn(name, dtype.name, width, stage)


def scopes(stages: Sequence[Stage], ports: Sequence[str]) -> list[Scope]:
    """Return what each stage of a chain may name.

    Raises:
        ChainError: stages declare one name in two ways, or what cannot be.
    """
    columns: dict[str, OwnColumn] = {}
    result = []
    for stage in stages:
        for column in declared(stage):
            former = columns.setdefault(column.name, column)
            if former.kind != column.kind:
                raise ChainError(
                    f"stage {stage.name}: column {column.name!r} as {column}, but stage "
                    f"{former.provider} has it as {former}: declare one, or name another"
                )
        result.append(Scope(tuple(columns.values()), tuple(ports)))
    return result
