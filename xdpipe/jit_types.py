"""What numba knows of a batch: types for the arguments of a jit stage, and how their values lie.

Integers are int64, whatever the column's dtype, so that sums neither wrap nor depend on dtypes;
uint64 is uint64. A batch's value holds the number of packets and the address of each column, read
once before the stage's code: so LLVM sees loops over plain arrays whose bounds do not change.
"""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import errors, types
from numba.core.datamodel import models
from numba.core.extending import register_model
from numba.np import numpy_support

from xdpipe.jit_layout import JitColumn, JitLayout, digest_of

I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))
BYTES = I8.as_pointer()


class Problem(errors.TypingError):
    """What is wrong with the use of a batch, in words of ours; numba buries it in its own."""

    noted: list[str] = []  # noqa: RUF012 - one compilation at a time
    """Those of this compilation, which may have got over them."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.noted.append(message)


class BatchType(types.Type):
    """A batch, as a stage with this layout may name it."""

    def __init__(self, layout: JitLayout) -> None:
        self.layout = layout
        super().__init__(name=f"batch({layout.digest})")


class ColumnType(types.Type):
    """A column: `batch.payload`. That of name `undecided` is the verdict's, compared with none.

    Args:
        column: which it is.
        memories: of the layout.
    """

    def __init__(self, column: JitColumn, memories: tuple[str, ...]) -> None:
        self.column = column
        self.memories = memories
        super().__init__(name=f"column {column.name}({digest_of((column, memories))})")


class RowType(types.Type):
    """The values that one packet has in a column of several: `batch.src[i]`."""

    def __init__(self, column: JitColumn, memories: tuple[str, ...]) -> None:
        self.column = column
        self.memories = memories
        super().__init__(name=f"row of {column.name}({digest_of((column, memories))})")


class TextType(types.Type):
    """A packet's text, as bytes: `batch.dns_name[i]`."""

    def __init__(self) -> None:
        super().__init__(name="text")


class PortType(types.Type):
    """The port that the batch came by, to be compared with a name."""

    def __init__(self, ports: tuple[str, ...]) -> None:
        self.ports = ports
        super().__init__(name=f"port{ports}")


class TableType(types.Type):
    """The stage's counters, or its state."""

    def __init__(self, what: str, layout: JitLayout) -> None:
        self.what = what
        self.layout = layout
        super().__init__(name=f"{what}({layout.digest})")

    def attribute(self, name: str) -> types.Type | None:
        """Return the type of one of them; None: there is none of that name."""
        if self.what == "counters":
            return types.int64 if name in self.layout.counters else None
        for value in self.layout.state:
            if value.name == name:
                descr = value.descr
                dtype = np.dtype(ast.literal_eval(descr) if descr[0] == "[" else descr)
                item = numpy_support.from_dtype(dtype)
                return item if value.shape is None else types.Array(item, len(value.shape), "C")
        return None


def seen_as(dtype: str) -> types.Type:
    """Return the type that a value of a column has in the code."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return types.boolean
    if kind == "f":
        return types.float64
    return types.uint64 if dtype == "uint64" else types.int64


def stored_as(dtype: str) -> types.Type:
    """Return the type of a value as it lies in the column."""
    return types.uint8 if dtype == "bool" else numpy_support.from_dtype(np.dtype(dtype))


def _model(ty: type[types.Type], members: Any) -> None:
    """Say how values of a type lie: a struct of members(type)."""

    class Model(models.StructModel):
        def __init__(self, dmm: Any, fe_type: types.Type) -> None:
            super().__init__(dmm, fe_type, members(fe_type))

    register_model(ty)(Model)


_model(
    BatchType,
    lambda ty: [
        ("n", types.int64), ("c", types.voidptr), ("base", types.voidptr),
        ("texts", types.voidptr), ("table", types.voidptr),
        *((f"at_{column.name}", types.voidptr) for column in ty.layout.columns),
    ],
)  # fmt: skip
_model(ColumnType, lambda ty: [("n", types.int64), ("at", types.voidptr), ("texts", types.voidptr)])
_model(RowType, lambda ty: [("at", types.voidptr)])
_model(TextType, lambda ty: [("at", types.voidptr), ("n", types.int64)])
_model(PortType, lambda ty: [("number", types.int64)])
_model(TableType, lambda ty: [("words", types.voidptr)])
