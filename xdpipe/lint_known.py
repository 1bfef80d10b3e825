"""What known calls give: Python's, numpy's, the batch's, and those of arrays and containers."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xdpipe.core._core import ffi, lib
from xdpipe.lint_rules import words
from xdpipe.lint_value import COPIED, COUNT, SCALAR, UNKNOWN, Value, join, origin

WIDE = {
    ffi.string(lib.xp_columns[i].name).decode(): lib.xp_columns[i].width > 1
    for i in range(lib.xp_n_columns)
}
"""Columns that there are, and whether each has several values for a packet."""
_COLUMN = Value(per_packet=True, array=True, view=True)
_LOADS = words("u8 u16 u32 u64 has undecided")
_NO_COLUMNS = words("port ports capacity c memory")
_NUMBERS = words("drop tx pass_ forward decide put_u8 put_u16 put_u32 fill_checksum want_tx_time")

_VIEWS = words(
    "asarray asanyarray ascontiguousarray ravel reshape squeeze atleast_1d atleast_2d transpose "
    "swapaxes moveaxis expand_dims broadcast_to flip frombuffer view newbyteorder cast T real flat "
    "data base toreadonly"
)
_REDUCTIONS = words(
    "sum any all max min amax amin mean median std var prod argmax argmin count_nonzero ptp "
    "percentile quantile average nansum nanmax nanmin item dot vdot"
)
_FEW = words(
    "unique bincount histogram histogram2d setdiff1d intersect1d union1d setxor1d tobytes hex "
    "add.at subtract.at maximum.at minimum.at bitwise_or.at"
)
_SPLITS = words("split array_split hsplit vsplit dsplit")
_WIDENING = words("hstack vstack stack column_stack dstack")
_NUMBER_MAKERS = words(
    "int float bool abs round hash ord len sum min max any all isinstance issubclass id pow divmod "
    "callable hasattr"
)
_GOES_THROUGH = words("sum min max any all sorted set frozenset list tuple map filter dict")
"""Python's own functions that make an object of each value of an array."""
SMALL_STEP = 8


def constant(node: ast.AST | None) -> object:
    """Return what a constant says, with its sign; None for all else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = constant(node.operand)
        return -value if isinstance(value, int | float) else None
    return node.value if isinstance(node, ast.Constant) else None


def says_a_bound(node: ast.expr) -> bool:
    """Return whether code says a number that packets have no influence on, or a setting of self."""
    value = constant(node)
    if isinstance(value, int):
        return value >= 0
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "self"
    return isinstance(node, ast.Name) and node.id.isupper()


def batch_attribute(name: str) -> Value:
    """Return what `batch.name` is, unless it is a method that is called."""
    if name in WIDE:
        return replace(_COLUMN, wide=WIDE[name])
    if name == "undecided":
        return COPIED
    if name in _NO_COLUMNS:
        return Value(short=True)
    return _COLUMN  # sent_tag and the like, and columns of the user's own


def batch_method(name: str, args: Sequence[Value]) -> Value:
    """Return what `batch.name(…)` gives."""
    if name in _LOADS:
        return COPIED
    if name == "bytes_at":
        return replace(COPIED, wide=True)
    if name == "text":
        return Value(per_packet=True, growing="list")
    if name == "packet":
        return Value(view=True)
    return SCALAR if name in _NUMBERS else UNKNOWN


def goes_through(name: str, args: Sequence[Value]) -> bool:
    """Return whether a function of Python's makes an object of each value of an array."""
    if name in ("map", "filter"):
        args = args[1:]
    elif len(args) != 1:
        return False
    names = name in _GOES_THROUGH or name == "collections.Counter"
    return names and any(arg.per_packet and arg.array for arg in args)


def python_call(
    name: str, args: Sequence[Value], nodes: Sequence[ast.expr], options: Mapping[str, ast.expr]
) -> Value | None:
    """Return what a call of one of Python's functions gives; None: it is none that matters."""
    first = args[0] if args else UNKNOWN
    if name == "len":
        return COUNT if first.batch or first.per_packet else SCALAR
    if name == "min" and any(map(says_a_bound, nodes)):
        return Value(scalar=True, short=True)
    if name in _NUMBER_MAKERS:
        return SCALAR
    if name == "range":
        return _range(args, nodes)
    if name in ("zip", "itertools.zip_longest"):
        row = Value(items=tuple(arg.row for arg in args))
        return _through(args, row)
    if name == "enumerate":
        return _through(args[:1], Value(items=(SCALAR, first.row)))
    if name in ("map", "filter"):
        row = UNKNOWN if name == "map" else join(arg.row for arg in args[1:])
        return replace(_through(args[1:], row), array=False)  # it has been told of already
    if name in ("reversed", "iter", "sorted", "list", "tuple", "set", "frozenset"):
        rows_are_views = first.view and (first.wide or not first.array)
        through = _through(args[:1], first.row)
        growing = {"sorted": "list", "list": "list", "set": "set"}.get(name, "")
        items = first.items if name in ("list", "tuple", "iter") else None
        return replace(through, array=through.array and name in ("reversed", "iter"), items=items,
                       view=rows_are_views, growing=growing)  # type: ignore[arg-type]  # fmt: skip
    if name in (
        "dict",
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
    ):
        return replace(origin(f"{name}()"), growing="dict", view=first.view and not first.array)
    if name == "collections.deque":
        length = options.get("maxlen", nodes[1] if len(nodes) > 1 else None)
        bounded = length is not None and not (
            isinstance(length, ast.Constant) and length.value is None
        )
        return replace(origin("collections.deque()"), growing="" if bounded else "list")
    if name == "itertools.islice":
        bounded = len(nodes) > 1 and isinstance(constant(nodes[-1]), int)
        return (
            _through(args[:1], first.row) if not bounded else Value(short=True, element=first.row)
        )
    if name.startswith("itertools."):
        return _through(args, first.row)
    if name in ("memoryview", "copy.copy", "copy.deepcopy"):
        return first if name == "memoryview" else first.copy
    if name == "functools.partial":
        return first
    if name == "dataclasses.field" and isinstance(
        factory := options.get("default_factory"), ast.Name
    ):
        growing = factory.id if factory.id in ("list", "dict", "set") else ""
        return Value(growing=growing)  # type: ignore[arg-type]
    return None


def _through(args: Sequence[Value], row: Value) -> Value:
    """Return what goes through these together, row by row."""
    short = any(arg.short and not arg.per_packet for arg in args)
    return Value(
        per_packet=any(arg.per_packet for arg in args) and not short,
        array=any(arg.array and arg.per_packet for arg in args), short=short, element=row,
    )  # fmt: skip


def _range(args: Sequence[Value], nodes: Sequence[ast.expr]) -> Value:
    step = constant(nodes[2]) if len(nodes) > 2 else 1
    small = isinstance(step, int) and abs(step) < SMALL_STEP
    counted = any(arg.count for arg in args[:2])
    known = all(says_a_bound(n) or v.short for n, v in zip(nodes, args, strict=False))
    return Value(per_packet=counted and small, short=known, element=SCALAR)


def _entries(value: Value) -> bool:
    """Return whether a value, or one of those that it lists, has an entry for each packet."""
    return value.per_packet or value.count or any(map(_entries, value.items or ()))


def numpy_call(
    name: str, args: Sequence[Value], options: Mapping[str, ast.expr], n_given: int
) -> Value:
    """Return what `numpy.name(…)` gives.

    Args:
        name: dotted.
        args: what it is called with, those with a name too.
        options: those with a name.
        n_given: how many have none.
    """
    first = args[0] if args else UNKNOWN
    came = origin(f"numpy.{name}()")
    if name in _VIEWS or (name == "array" and constant(options.get("copy")) is False):
        if name not in ("reshape", "transpose", "frombuffer") and (
            "dtype" in options or n_given > 1
        ):
            return first.copy
        return replace(first, array=True, origins=frozenset())
    if name in _FEW:
        return UNKNOWN
    if name in _SPLITS:
        return Value(short=True, element=first)
    if name in _REDUCTIONS:
        return _reduced(first, options, n_given - 1)
    entries = any(map(_entries, args))
    wide = name in _WIDENING or any(arg.wide or (arg.items and len(arg.items) > 1) for arg in args)
    return replace(came, per_packet=entries, array=True, wide=bool(wide))


def _reduced(value: Value, options: Mapping[str, ast.expr], n_given: int) -> Value:
    axis = options.get("axis")
    if axis is None and n_given < 1:
        return SCALAR
    return COPIED if value.per_packet and constant(axis) not in (0, None) else Value(array=True)


def array_attribute(value: Value, name: str) -> Value:
    """Return what an attribute of an array is, unless it is a method that is called."""
    if name in _VIEWS:
        return value
    if name == "size":
        return COUNT if value.per_packet else SCALAR
    if name == "shape":
        return Value(shape=value.per_packet)
    return UNKNOWN


def array_method(
    value: Value, name: str, args: Sequence[Value], options: Mapping[str, ast.expr], n_given: int
) -> Value:
    """Return what a method of an array, or of a view of bytes, gives."""
    if name in _VIEWS or (name == "astype" and constant(options.get("copy")) is False):
        return value
    if name == "tolist":
        return Value(
            per_packet=value.per_packet, short=value.short, growing="list", element=UNKNOWN
        )
    if name in _FEW:
        return UNKNOWN
    if name in _REDUCTIONS:
        return _reduced(value, options, n_given)
    return value.copy if value.array else UNKNOWN


def container_method(value: Value, name: str) -> Value:
    """Return what a method of a list, dict or set gives."""
    key = Value(short=value.short)
    element = value.element if value.element is not None else join(value.items or ())
    if name == "items":
        return Value(short=value.short, element=Value(items=(key, element)))
    if name == "keys":
        return Value(short=value.short, element=key)
    if name == "values":
        return Value(short=value.short, element=element)
    if name in ("get", "pop", "setdefault", "popleft"):
        return element
    return value if name == "copy" else UNKNOWN


def subscript(base: Value, node: ast.expr, index: Value) -> Value:
    """Return what `base[…]` is.

    Args:
        base: what it is of.
        node: what stands between the brackets.
        index: what that is; of a slice, its end.
    """
    place = constant(node)
    if base.items is not None and isinstance(place, int):
        at = place + len(base.items) if place < 0 else place
        return base.items[at] if 0 <= at < len(base.items) else UNKNOWN
    if base.shape:
        return COUNT if place == 0 else SCALAR
    if isinstance(node, ast.Tuple) and node.elts:
        slices = [isinstance(elt, ast.Slice) for elt in node.elts]
        if not any(slices) and not index.per_packet:
            return SCALAR
        head = subscript(base, node.elts[0], index if index.per_packet else SCALAR)
        head = head.copy if index.per_packet else head
        return head if all(slices[1:]) else replace(head, wide=False)
    if isinstance(node, ast.Slice):
        if _bounded(node, index):
            return replace(base, per_packet=False, count=False, short=True, items=None)
        return replace(base, items=None, element=base.row if base.items else base.element)
    if (index.per_packet or index.array) and not base.growing:
        entries = base.per_packet or index.per_packet
        return Value(per_packet=entries, array=True, wide=base.wide)
    if base.array:
        return base.row if index.scalar else Value(array=True)
    if base.view and not base.growing:
        return SCALAR
    if base.growing or not base.origins:
        return base.row
    return origin(*(f"{name}[]" for name in base.origins if len(name) < 100))


def _bounded(node: ast.Slice, upper: Value) -> bool:
    """Return whether a slice says how many it takes at the most."""
    lower, step = constant(node.lower), constant(node.step)
    if node.upper is not None and (says_a_bound(node.upper) or upper.short):
        return True
    if isinstance(step, int) and abs(step) >= SMALL_STEP:
        return True
    return node.upper is None and isinstance(lower, int) and lower < 0
