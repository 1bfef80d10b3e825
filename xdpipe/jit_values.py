"""Machine code for the values that a jit stage has: its batch, columns, texts, counters, state.

An index that is no packet's raises IndexError, as in Python; in a loop over range(batch.n) LLVM
finds that it cannot be, and nothing is left of the check.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from numba.core import types
from numba.core.extending import lower_builtin, overload
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing import signature
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer_getattr,
    infer_global,
)
from numba.np.arrayobj import make_array, populate_array

from xdpipe.jit_layout import BASE, PORT, TEXTS, JitColumn, JitLayout, N
from xdpipe.jit_memory import COUNTERS, NO_PACKET, alone, byte, checked, is_zero, proxy, read
from xdpipe.jit_methods import METHODS, port_number
from xdpipe.jit_types import (
    BYTES,
    I32,
    I64,
    BatchType,
    ColumnType,
    PortType,
    Problem,
    RowType,
    TableType,
    TextType,
    seen_as,
    stored_as,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Signature: TypeAlias = Any
    Builder: TypeAlias = Any

_UNDECIDED = JitColumn("undecided", "uint8", 1, False, False, 0)


def batch_value(context: Any, builder: Builder, ty: BatchType, c: Any, table: Any) -> Any:
    """Return the value of a batch: all that is read once.

    Args:
        context: numba's.
        builder: where the code is put.
        ty: of the batch.
        c: struct xp_batch *.
        table: address of the table that JitLayout describes.
    """
    batch = proxy(ty, context, builder)
    batch.n = builder.zext(read(builder, c, I32, N), I64)
    batch.c, batch.table = c, table
    batch.base, batch.texts = read(builder, c, BYTES, BASE), read(builder, c, BYTES, TEXTS)
    slots = ty.layout.slots
    for column in ty.layout.columns:
        if column.field >= 0:
            at = read(builder, c, BYTES, column.field)
        else:
            at = read(builder, table, BYTES, 8 * slots[f"columns.{column.name}"])
        setattr(batch, f"at_{column.name}", at)
    return batch._getvalue()


def table_value(context: Any, builder: Builder, ty: TableType, words: Any) -> Any:
    """Return the value of the stage's counters, or of its state, whose words are there."""
    value = proxy(ty, context, builder)
    value.words = words
    return value._getvalue()


class Counters:
    """The stage's counters, on the stack while its code runs: LLVM has them in registers then.

    In memory that others see, a count that is conditional would keep a loop from going over many
    packets at once.

    Args:
        builder: where the code is put.
        layout: of the stage.
        table: address of the table that JitLayout describes.
    """

    def __init__(self, builder: Builder, layout: JitLayout, table: Any) -> None:
        self._builder = builder
        self._n = len(layout.counters)
        self._shared = read(builder, table, BYTES, 8 * JitLayout.COUNTERS)
        self.local = builder.bitcast(builder.alloca(I64, I64(max(self._n, 1))), BYTES)
        self._copy(self._shared, self.local)

    def give_back(self) -> None:
        """Write them where they are kept."""
        self._copy(self.local, self._shared)

    def _copy(self, source: Any, to: Any) -> None:
        for k in range(self._n):
            value = read(self._builder, source, I64, 8 * k)
            at = byte(self._builder, to, I64(8 * k))
            self._builder.store(value, self._builder.bitcast(at, I64.as_pointer()))


# Attributes of a batch


@infer_getattr
class _BatchAttributes(AttributeTemplate):
    key = BatchType

    def generic_resolve(self, ty: BatchType, name: str) -> types.Type:
        """Say of which type batch.NAME is."""
        if name == "n":
            return types.int64
        if name == "port":
            return PortType(ty.layout.ports)
        if name == "undecided":
            return ColumnType(_UNDECIDED, ty.layout.memories)
        column = ty.layout.column(name)
        if column is not None:
            return ColumnType(column, ty.layout.memories)
        if name in METHODS:
            return types.BoundFunction(METHODS[name], ty)
        raise Problem(ty.layout.why_not(name))


@lower_getattr_generic(BatchType)
def _get_of_batch(context: Any, builder: Builder, ty: BatchType, value: Any, name: str) -> Any:
    batch = proxy(ty, context, builder, value)
    if name == "n":
        return batch.n
    if name == "port":
        port = proxy(PortType(ty.layout.ports), context, builder)
        port.number = builder.zext(read(builder, batch.c, I32, PORT), I64)
        return port._getvalue()
    column = _UNDECIDED if name == "undecided" else ty.layout.column(name)
    if column is None:
        return context.get_dummy_value()  # a method
    result = proxy(ColumnType(column, ty.layout.memories), context, builder)
    result.n = batch.n
    result.at = getattr(batch, "at_verdict" if column is _UNDECIDED else f"at_{name}")
    if column.text:
        result.texts = batch.texts
    return result._getvalue()


@lower_setattr_generic(BatchType)
def _set_of_batch(context: Any, builder: Builder, sig: Signature, args: Any, name: str) -> None:
    raise Problem(f"batch.{name} = …: write into it, batch.{name}[i] = …")


class _PortIs(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Signature | None:
        port, name = args
        if not (isinstance(port, PortType) and isinstance(name, types.StringLiteral)):
            return None
        port_number(port.ports, name)
        return signature(types.boolean, port, name)


def _compare_port(comparison: str) -> Callable[..., Any]:
    def lower(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
        port, name = sig.args
        number = proxy(port, context, builder, args[0]).number
        return builder.icmp_unsigned(comparison, number, I64(port_number(port.ports, name)))

    return lower


for _operator, _comparison in ((operator.eq, "=="), (operator.ne, "!=")):
    infer_global(_operator)(_PortIs)
    lower_builtin(_operator, PortType, types.Any)(_compare_port(_comparison))


# Values of columns


def _is_index(ty: types.Type) -> bool:
    return isinstance(types.unliteral(ty), types.Integer)


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Signature | None:
        of, index = args
        if not isinstance(of, ColumnType | RowType | TextType):
            return None
        if isinstance(of, TextType):
            result = types.int64
        elif isinstance(of, RowType) or of.column.width == 1:
            result = TextType() if of.column.text else seen_as(of.column.dtype)
            result = types.boolean if of.column == _UNDECIDED else result
        elif isinstance(index, types.BaseTuple) and len(index) == 2 and all(map(_is_index, index)):
            return signature(seen_as(of.column.dtype), of, types.UniTuple(types.int64, 2))
        else:
            result = RowType(of.column, of.memories)
        if not _is_index(index):
            raise Problem(f"{_shown(of)}: the index must be a packet's number, not {index}")
        return signature(result, of, types.int64)


def _shown(of: types.Type) -> str:
    return "a text" if isinstance(of, TextType) else f"column {of.column.name}"


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Signature | None:
        of, index, value = args
        if not isinstance(of, ColumnType | RowType):
            return None
        if not of.column.writable:
            raise Problem(f"column {of.column.name} is read-only")
        pair = isinstance(index, types.BaseTuple) and len(index) == 2
        if pair != (isinstance(of, ColumnType) and of.column.width > 1):
            raise Problem(f"column {of.column.name}: {of.column.width} values per packet")
        if not isinstance(types.unliteral(value), types.Integer | types.Float | types.Boolean):
            raise Problem(f"column {of.column.name}: {value} is no number that it could hold")
        where = types.UniTuple(types.int64, 2) if pair else types.int64
        return signature(types.none, of, where, seen_as(of.column.dtype))


def _place(
    context: Any, builder: Builder, ty: ColumnType, value: Any, index: Any, *, pair: bool
) -> Any:
    """Return the address of a value of a column, or of a row; raise IndexError if there is none."""
    column, of = ty.column, proxy(ty, context, builder, value)
    i, k = (builder.extract_value(index, 0), builder.extract_value(index, 1)) if pair else (
        index, None
    )  # fmt: skip
    checked(context, builder, i, of.n, NO_PACKET)
    size = _size(column)
    at = byte(builder, of.at, builder.mul(i, I64(size * column.width)))
    if k is None:
        return at
    checked(context, builder, k, I64(column.width), "no value has this index")
    return byte(builder, at, builder.mul(k, I64(size)))


def _size(column: JitColumn) -> int:
    return 8 if column.text else np.dtype(column.dtype).itemsize


def _get(context: Any, builder: Builder, ty: ColumnType | RowType, at: Any) -> Any:
    """Load a value of a column as the code sees it."""
    stored, seen = stored_as(ty.column.dtype), seen_as(ty.column.dtype)
    raw = _own(builder, ty, read(builder, at, context.get_data_type(stored)))
    if ty.column == _UNDECIDED:
        return is_zero(builder, raw)
    if seen == types.boolean:
        return builder.not_(is_zero(builder, raw))
    return context.cast(builder, raw, stored, seen)


def _put(context: Any, builder: Builder, ty: ColumnType | RowType, at: Any, value: Any) -> None:
    stored, seen = stored_as(ty.column.dtype), seen_as(ty.column.dtype)
    raw = context.cast(builder, value, seen, stored)
    _own(builder, ty, builder.store(raw, builder.bitcast(at, raw.type.as_pointer())))


def _own(builder: Builder, ty: ColumnType | RowType, access: Any) -> Any:
    """Return a load or store, of which LLVM now knows that it is of this column."""
    name = "verdict" if ty.column == _UNDECIDED else ty.column.name
    return alone(builder, access, name, ty.memories)


@lower_builtin(operator.getitem, ColumnType, types.Any)
def _get_of_column(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    ty = sig.args[0]
    pair = isinstance(sig.args[1], types.BaseTuple)
    at = _place(context, builder, ty, args[0], args[1], pair=pair)
    if ty.column.text:
        text = proxy(TextType(), context, builder)
        texts = proxy(ty, context, builder, args[0]).texts
        text.at = byte(builder, texts, builder.zext(read(builder, at, I32), I64))
        text.n = builder.zext(read(builder, at, I32, 4), I64)
        return text._getvalue()
    if isinstance(sig.return_type, RowType):
        row = proxy(sig.return_type, context, builder)
        row.at = at
        return row._getvalue()
    return _get(context, builder, ty, at)


@lower_builtin(operator.setitem, ColumnType, types.Any, types.Any)
def _set_of_column(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    pair = isinstance(sig.args[1], types.BaseTuple)
    at = _place(context, builder, sig.args[0], args[0], args[1], pair=pair)
    _put(context, builder, sig.args[0], at, args[2])
    return context.get_dummy_value()


def _place_in_row(context: Any, builder: Builder, ty: RowType, value: Any, k: Any) -> Any:
    checked(context, builder, k, I64(ty.column.width), "no value has this index")
    at = proxy(ty, context, builder, value).at
    return byte(builder, at, builder.mul(k, I64(_size(ty.column))))


@lower_builtin(operator.getitem, RowType, types.Any)
def _get_of_row(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    at = _place_in_row(context, builder, sig.args[0], *args)
    return _get(context, builder, sig.args[0], at)


@lower_builtin(operator.setitem, RowType, types.Any, types.Any)
def _set_of_row(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    at = _place_in_row(context, builder, sig.args[0], *args[:2])
    _put(context, builder, sig.args[0], at, args[2])
    return context.get_dummy_value()


@lower_builtin(operator.getitem, TextType, types.Any)
def _get_of_text(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    text = proxy(sig.args[0], context, builder, args[0])
    checked(context, builder, args[1], text.n, "the text ends before this index")
    return builder.zext(builder.load(byte(builder, text.at, args[1])), I64)


@infer_global(len)
class _Len(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Signature | None:
        ok = isinstance(args[0], BatchType | ColumnType | RowType | TextType)
        return signature(types.int64, *args) if ok else None


@lower_builtin(len, BatchType)
@lower_builtin(len, ColumnType)
@lower_builtin(len, TextType)
def _len_of(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    return proxy(sig.args[0], context, builder, args[0]).n


@lower_builtin(len, RowType)
def _len_of_row(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    return I64(sig.args[0].column.width)


@overload(operator.eq)
def _text_is(text: Any, other: Any) -> bool:
    if not (isinstance(text, TextType) and isinstance(other, types.Bytes | TextType)):
        return None  # type: ignore[return-value]

    def equal(text: Any, other: Any) -> bool:
        if len(text) != len(other):
            return False
        for k in range(len(text)):  # noqa: SIM110 - what numba compiles
            if text[k] != other[k]:
                return False
        return True

    return equal  # type: ignore[return-value]


@overload(operator.ne)
def _text_is_not(text: Any, other: Any) -> bool:
    if not (isinstance(text, TextType) and isinstance(other, types.Bytes | TextType)):
        return None  # type: ignore[return-value]

    def differs(text: Any, other: Any) -> bool:
        return not text == other  # noqa: SIM201 - what numba compiles

    return differs  # type: ignore[return-value]


# Counters and state


@infer_getattr
class _TableAttributes(AttributeTemplate):
    key = TableType

    def generic_resolve(self, ty: TableType, name: str) -> types.Type:
        """Say of which type counters.NAME or state.NAME is."""
        found = ty.attribute(name)
        if found is None:
            raise Problem(f"{ty.what}.{name}: the stage declares none of that name by {ty.what}=…")
        return found


def _word(context: Any, builder: Builder, ty: TableType, value: Any, name: str) -> Any:
    """Return the address of a counter, or of the word of the table that is the state's."""
    if ty.what == "counters":
        place = ty.layout.counters.index(name)
    else:
        place = ty.layout.slots[f"state.{name}"]
    return byte(builder, proxy(ty, context, builder, value).words, I64(8 * place))


@lower_getattr_generic(TableType)
def _get_of_table(context: Any, builder: Builder, ty: TableType, value: Any, name: str) -> Any:
    found = ty.attribute(name)
    at = _word(context, builder, ty, value, name)
    if ty.what == "counters":
        return alone(builder, read(builder, at, I64), COUNTERS, ty.layout.memories)
    if not isinstance(found, types.Array):
        return context.unpack_value(
            builder, found, builder.bitcast(at, context.get_data_type(found).as_pointer())
        )
    shape = next(v.shape for v in ty.layout.state if v.name == name)
    assert shape is not None
    item = context.get_abi_sizeof(context.get_data_type(found.dtype))
    strides = [item]
    for extent in reversed(shape[1:]):
        strides.insert(0, strides[0] * extent)
    array = make_array(found)(context, builder)
    data = builder.bitcast(read(builder, at, BYTES), array.data.type)
    populate_array(
        array, data=data, shape=[I64(extent) for extent in shape],
        strides=[I64(stride) for stride in strides], itemsize=I64(item), meminfo=None,
    )  # fmt: skip
    return array._getvalue()


@lower_setattr_generic(TableType)
def _set_of_table(context: Any, builder: Builder, sig: Signature, args: Any, name: str) -> None:
    ty = sig.args[0]
    found = ty.attribute(name)
    at = _word(context, builder, ty, args[0], name)
    if ty.what == "counters":
        stored = builder.store(args[1], builder.bitcast(at, I64.as_pointer()))
        alone(builder, stored, COUNTERS, ty.layout.memories)
        return
    context.pack_value(
        builder, found, args[1], builder.bitcast(at, context.get_data_type(found).as_pointer())
    )
