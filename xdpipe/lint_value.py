"""What is known of a value in code that is only read: where it came from, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdpipe.lint_module import Class, Function, Module

Growing = Literal["", "list", "dict", "set"]


@dataclass(frozen=True)
class Value:
    """What a value may be; where branches meet, each of what it may be.

    Attributes:
        origins: dotted names that it came from: `socket.socket()` is what a call of socket.socket
            gave, whether here or in __init__.
        functions: the user's own functions, each with the class of the instance it is bound to.
        classes: the user's own classes.
        instances: of which of the user's own classes it is one.
        modules: the user's own modules.
        batch: it is the batch.
        per_packet: it has an entry for each packet, or for each that matches.
        array: it is an array: going through it in Python makes an object of each entry.
        wide: a row of it is an array, too.
        view: it lies in memory that is the next batch's.
        count: it is the number of packets.
        shape: it is the shape of what has an entry for each packet.
        scalar: it is a number.
        short: what it holds is written down in the code, or bounded by it.
        growing: what kind of container it is that has no bound of its own.
        items: what a tuple or list holds, where that is written down.
        element: what going through it gives.
    """

    origins: frozenset[str] = frozenset()
    functions: frozenset[tuple[Function, Class | None]] = frozenset()
    classes: frozenset[Class] = frozenset()
    instances: frozenset[Class] = frozenset()
    modules: frozenset[Module] = frozenset()
    batch: bool = False
    per_packet: bool = False
    array: bool = False
    wide: bool = False
    view: bool = False
    count: bool = False
    shape: bool = False
    scalar: bool = False
    short: bool = False
    growing: Growing = ""
    items: tuple[Value, ...] | None = field(default=None)
    element: Value | None = field(default=None)

    @property
    def row(self) -> Value:
        """What going through it, or an index, gives."""
        if self.items is not None:
            return join(self.items)
        if self.element is not None:
            return self.element
        if self.array and self.wide:
            return Value(array=True, view=self.view)
        return SCALAR if self.array else UNKNOWN

    @property
    def copy(self) -> Value:
        """The same in memory of its own."""
        return replace(self, view=False, items=None, element=None, origins=frozenset())


UNKNOWN = Value()
SCALAR = Value(scalar=True)
COUNT = Value(count=True, scalar=True)
COPIED = Value(per_packet=True, array=True)
"""An array with an entry for each packet, in memory of its own."""
_FLAGS = ("batch", "per_packet", "array", "wide", "view", "count", "shape", "scalar", "short")
_SETS = ("origins", "functions", "classes", "instances", "modules")


def origin(*names: str) -> Value:
    """Return what came from there."""
    return Value(origins=frozenset(names))


def join(values: Iterable[Value]) -> Value:
    """Return what may be any of these."""
    distinct = list(dict.fromkeys(values))
    if not distinct:
        return UNKNOWN
    first, *others = distinct
    for other in others:
        first = _either(first, other)
    return first


def _either(a: Value, b: Value) -> Value:
    if b == UNKNOWN:
        return a
    if a == UNKNOWN:
        return b
    items = None
    if a.items is not None and b.items is not None and len(a.items) == len(b.items):
        items = tuple(_either(x, y) for x, y in zip(a.items, b.items, strict=True))
    elements = [v.element for v in (a, b) if v.element is not None]
    if items is None:  # what one of them says by its items, the other does not
        elements += [join(v.items) for v in (a, b) if v.items]
    return Value(
        **{name: getattr(a, name) | getattr(b, name) for name in _SETS},
        **{name: getattr(a, name) or getattr(b, name) for name in _FLAGS},
        growing=a.growing or b.growing,
        items=items,
        element=join(elements) if elements else None,
    )
