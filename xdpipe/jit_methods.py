"""Machine code for the methods that a batch has in a jit stage.

No call remains but, for packets in several frames and for checksums, one of the core's.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import lower_builtin
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate

from xdpipe.batch import FLAGS
from xdpipe.jit_layout import PORT, JitLayout
from xdpipe.jit_memory import (
    NO_PACKET,
    PACKET,
    alone,
    byte,
    checked,
    element,
    is_zero,
    proxy,
    read,
)
from xdpipe.jit_types import I8, I32, I64, BatchType, Problem
from xdpipe.verdict import DROP, FORWARD, PASS, TX

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Signature: TypeAlias = Any
    Builder: TypeAlias = Any

METHODS: dict[str, type[AbstractTemplate]] = {}
"""By name."""
_INT, _BOOL, _NAME = "an integer", "True or False", "a name in quotes"


def _method(name: str, form: str, kinds: tuple[str, ...], result: Callable[..., Any]) -> Any:
    """Make a method of BatchType; decorates what lowers it.

    Args:
        name: of the method.
        form: its parameters, as Python writes them.
        kinds: of these.
        result: given the batch's type and the arguments' types, the result's.
    """
    python = inspect.signature(eval(f"lambda {form}: None"))

    class Method(AbstractTemplate):
        key = f"xdpipe.batch.{name}"
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Signature:
            try:
                bound = python.bind(*args, **kws).arguments
            except TypeError as error:
                raise Problem(f"batch.{name}({form}): {error}") from None
            given = []
            for (parameter, default), kind in zip(python.parameters.items(), kinds, strict=True):
                ty = bound.get(parameter)
                if ty is None:
                    given.append(_type_of(kind, default.default))
                    continue
                plain = types.unliteral(ty)
                if kind == _NAME and not isinstance(ty, types.StringLiteral | types.NoneType):
                    raise Problem(f"batch.{name}: {parameter} must be {kind}, not {plain}")
                if kind == _INT and not isinstance(plain, types.Integer):
                    raise Problem(f"batch.{name}: {parameter} must be {kind}, not {plain}")
                if kind == _BOOL and plain != types.boolean:
                    raise Problem(f"batch.{name}: {parameter} must be {kind}, not {plain}")
                given.append(ty if kind == _NAME else _type_of(kind, 0))
            answer = result(self.this, *given)
            return signature(answer, *given, recvr=self.this).replace(pysig=python)

    METHODS[name] = Method

    def decorate(lower: Any) -> Any:
        lower_builtin(Method.key, BatchType, types.VarArg(types.Any))(lower)
        return lower

    return decorate


def port_number(ports: tuple[str, ...], name: types.StringLiteral) -> int:
    """Return the number of a port that code names."""
    if name.literal_value not in ports:
        names = ", ".join(filter(None, ports)) or "one without a name"
        raise Problem(f"port {name.literal_value!r}: the pipeline's ports are: {names}")
    return ports.index(name.literal_value)


def _type_of(kind: str, default: Any) -> types.Type:
    if kind == _NAME:
        return types.none
    return types.boolean if kind == _BOOL else types.int64


class _At:
    """Packet i of a batch, whose index is checked.

    Args:
        context: numba's.
        builder: where the code is put.
        ty: of the batch.
        value: of the batch.
        i: the index.
    """

    def __init__(self, context: Any, builder: Builder, ty: BatchType, value: Any, i: Any) -> None:
        self.builder = builder
        self.layout = ty.layout
        self.batch = proxy(ty, context, builder, value)
        self.i = checked(context, builder, i, self.batch.n, NO_PACKET)

    def get(self, column: str, kind: ir.Type) -> Any:
        """Load its value of a column."""
        return self._alone(self.builder.load(self._place(column, kind)), column)

    def put(self, column: str, value: Any) -> None:
        """Store its value of a column."""
        self._alone(self.builder.store(value, self._place(column, value.type)), column)

    def _place(self, column: str, kind: ir.Type) -> Any:
        return element(self.builder, getattr(self.batch, f"at_{column}"), kind, self.i)

    def _alone(self, access: Any, what: str) -> Any:
        return alone(self.builder, access, what, self.layout.memories)

    def bytes_at(self, offset: Any, kind: ir.Type) -> Any:
        """Return the address of a value in the packet's first frame."""
        start = byte(self.builder, self.batch.base, self.get("addr", I64))
        return self.builder.bitcast(byte(self.builder, start, offset), kind.as_pointer())

    def load(self, offset: Any, kind: ir.Type) -> Any:
        """Load a value from there, as it lies."""
        loaded = self.builder.load(self.bytes_at(offset, kind), align=1)
        return self._alone(loaded, PACKET)

    def store(self, offset: Any, value: Any) -> None:
        """Store a value there, as it is."""
        stored = self.builder.store(value, self.bytes_at(offset, value.type), align=1)
        self._alone(stored, PACKET)

    def number(self) -> Any:
        """Return its index as the core wants it."""
        return self.builder.trunc(self.i, I32)


def _in_first_frame(builder: Builder, at: _At, offset: Any, width: int) -> Any:
    """Return whether a value lies in the first frame, which is all of most packets."""
    head = builder.sext(at.get("head_len", I32), I64)
    last = builder.sub(head, I64(width))  # no sum that could wrap: offset may be any number
    inside = builder.icmp_signed("<=", offset, last)
    return builder.and_(builder.icmp_signed(">=", offset, I64(0)), inside)


def _core(builder: Builder, at: _At, slot: int, result: ir.Type, *args: Any) -> Any:
    """Call a function of the core, whose address is in the table, for a packet."""
    args = (at.batch.c, at.number(), *args)
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(read(builder, at.batch.table, kind.as_pointer(), 8 * slot), args)


def _loads(width: int) -> None:
    kind = ir.IntType(8 * width)

    @_method(
        f"u{8 * width}", "i, offset, missing=0", (_INT, _INT, _INT),
        lambda ty, *_: types.uint64 if width == 8 else types.int64,
    )  # fmt: skip
    def lower(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
        value, i, offset, missing = args
        packet = _At(context, builder, sig.args[0], value, i)
        if width < 8:  # as a column of that dtype would hold it
            missing = builder.zext(builder.trunc(missing, kind), I64)
        within = _in_first_frame(builder, packet, offset, width)
        result = cgutils.alloca_once_value(builder, missing)
        with builder.if_else(within, likely=True) as (here, elsewhere):
            with here:
                raw = packet.load(offset, kind)
                raw = builder.bswap(raw) if width > 1 else raw
                builder.store(builder.zext(raw, I64) if width < 8 else raw, result)
            with elsewhere:
                several = builder.icmp_unsigned(">", packet.get("n_frames", I8), I8(1))
                with builder.if_then(several, likely=False):
                    found = _core(builder, packet, JitLayout.LOAD, I64, offset, I32(width), missing)
                    builder.store(found, result)
        return builder.load(result)


def _stores(width: int) -> None:
    kind = ir.IntType(8 * width)

    def result(ty: BatchType, *_: Any) -> types.Type:
        return types.int64

    @_method(
        f"put_u{8 * width}", "i, offset, value, fix_checksum=False", (_INT, _INT, _INT, _BOOL),
        result,
    )  # fmt: skip
    def lower(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
        value, i, offset, new, fix = args
        packet = _At(context, builder, sig.args[0], value, i)
        fix = context.cast(builder, fix, types.boolean, types.int32)
        plain = builder.icmp_unsigned("==", fix, I32(0))
        plain = builder.and_(plain, _in_first_frame(builder, packet, offset, width))
        result = cgutils.alloca_once_value(builder, I64(1))
        with builder.if_else(plain) as (here, elsewhere):
            with here:
                raw = builder.trunc(new, kind) if width < 8 else new
                packet.store(offset, builder.bswap(raw) if width > 1 else raw)
            with elsewhere:
                done = _core(builder, packet, JitLayout.STORE, I32, offset, new, I32(width), fix)
                builder.store(builder.zext(done, I64), result)
        return builder.load(result)


for _width in (1, 2, 4, 8):
    _loads(_width)
for _width in (1, 2, 4):
    _stores(_width)


def _decide(builder: Builder, at: _At, verdict: int) -> Any:
    """Give a packet this verdict if it is undecided; return whether it was."""
    former = at.get("verdict", I8)
    hit = is_zero(builder, former)
    at.put("verdict", builder.select(hit, I8(verdict), former))
    return hit


def _decisions(name: str, verdict: int) -> None:
    @_method(name, "i", (_INT,), lambda ty, *_: types.int64)
    def lower(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
        at = _At(context, builder, sig.args[0], *args)
        return builder.zext(_decide(builder, at, verdict), I64)


for _name, _verdict in (("drop", DROP), ("tx", TX), ("pass_", PASS)):
    _decisions(_name, _verdict)


def _forwards_to(ty: BatchType, i: types.Type, port: types.Type) -> types.Type:
    if isinstance(port, types.StringLiteral):
        port_number(ty.layout.ports, port)
    elif len(ty.layout.ports) != 2:
        raise Problem("batch.forward(i): say to which port; the pipeline has not two")
    return types.int64


@_method("forward", "i, port=None", (_INT, _NAME), _forwards_to)
def _forward(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    ty, _, port = sig.args
    at = _At(context, builder, ty, args[0], args[1])
    if isinstance(port, types.StringLiteral):
        number = I8(port_number(ty.layout.ports, port))
    else:
        came_by = builder.trunc(read(builder, at.batch.c, I32, PORT), I8)
        number = builder.sub(I8(1), came_by)
    hit = _decide(builder, at, FORWARD)
    at.put("out_port", builder.select(hit, number, at.get("out_port", I8)))
    return builder.zext(hit, I64)


_FLAGS_MAX = 6


def _has_flags(ty: BatchType, i: types.Type, *flags: types.Type) -> types.Type:
    for flag in flags:
        if isinstance(flag, types.StringLiteral) and flag.literal_value not in FLAGS:
            raise Problem(
                f"batch.has: no flag {flag.literal_value!r}; there are {', '.join(FLAGS)}"
            )
    if ty.layout.column("flags") is None:
        raise Problem("batch.has takes the column flags: add it to requires=(…)")
    return types.boolean


@_method(
    "has", ", ".join(["i", "flag", *(f"flag{k}=None" for k in range(2, _FLAGS_MAX + 1))]),
    (_INT, *(_NAME,) * _FLAGS_MAX), _has_flags,
)  # fmt: skip
def _has(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    at = _At(context, builder, sig.args[0], args[0], args[1])
    names = [ty.literal_value for ty in sig.args[2:] if isinstance(ty, types.StringLiteral)]
    bits = I32(sum(FLAGS[name] for name in set(names)))
    flags = builder.and_(at.get("flags", I32), bits)
    return builder.icmp_unsigned("==", flags, bits)


@_method("fill_checksum", "i", (_INT,), lambda ty, *_: types.int64)
def _fill_checksum(context: Any, builder: Builder, sig: Signature, args: Any) -> Any:
    at = _At(context, builder, sig.args[0], *args)
    done = _core(builder, at, JitLayout.WANT_CHECKSUM, I32)
    return builder.zext(done, I64)
