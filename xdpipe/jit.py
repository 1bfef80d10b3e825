"""The kind of stage that is a Python function compiled to machine code; takes xdpipe[jit].

@jit_stage(requires=("payload",), counters=("monlist",))
def drop_monlist(batch, counters):
    for i in range(batch.n):
        if batch.u8(i, batch.payload[i]) & 7 == 7 and batch.u8(i, batch.payload[i] + 3) == 42:
            counters.monlist += batch.drop(i)

pipeline = Pipeline("udp dst port 123", [Headers(), drop_monlist()])
"""

from __future__ import annotations

import inspect
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe import jit_code
from xdpipe.compiled_stage import CompiledStage, checked_names
from xdpipe.core._core import ffi, lib
from xdpipe.errors import CodeError
from xdpipe.jit_layout import JitLayout, layout_of
from xdpipe.jit_python import PythonBatch, PythonCounters, PythonState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from xdpipe.batch import Batch
    from xdpipe.own_columns import Scope

_PARAMETERS = ("batch", "counters", "state")


class JitStage(CompiledStage):
    """A stage that `jit_stage` made of a function; it runs in C calls, without Python and the GIL.

    The function goes packet by packet. What it may name:

    - `batch.n`, and every column of the stage's `requires`, of those filled at reception, and of
      its own: `batch.payload[i]`, `batch.src[i, k]`, `batch.score[i] = …`. A text is bytes.
      Integers are 64 bits wide, whatever the column's dtype. An index that is no packet's raises
      IndexError.
    - `batch.u8(i, offset, missing=0)`, `u16`, `u32`, `u64`; `batch.put_u8(i, offset, value,
      fix_checksum=False)`, `put_u16`, `put_u32`, which return 1, or 0 where nothing was stored;
      bounds and byte order as in Batch, also of packets in several frames.
    - `batch.has(i, "UDP", …)`, `batch.undecided[i]`, `batch.port == "inside"`.
    - `batch.drop(i)`, `tx`, `pass_`, `forward(i, port)`, `fill_checksum(i)`, which return 1 or 0.
    - `counters.NAME`, and of `state` the arrays and numbers that the stage declares.
    - Numbers, tuples, arrays of numbers, `math`; other functions in Python, which are compiled with
      it. Globals are constants. Nothing that allocates: no list, dict, text, new array.

    An exception ends the batch for this stage: it is counted under `errors`, and the first one is
    in the stage's report.

    Args:
        values: other values than declared, for this instance: numbers and arrays of `state`, by
            name.

    Raises:
        CodeError: there is no such number or array, or the value does not fit.
    """

    _kind: ClassVar[str] = "jit"
    function: ClassVar[Any]
    """The function as it was written."""
    state_values: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arrays and numbers as they are at first."""
    _report: ClassVar[Callable[[Any], Mapping[str, Any]] | None] = None

    _layout: JitLayout | None = None

    def __init__(self, **values: Any) -> None:
        self._values = dict(self.state_values)
        for name, value in values.items():
            if name not in self._values:
                raise CodeError(f"{_where(self.function)}: {self.name}({name}=…): no such state")
            former = self._values[name]
            new = _state_value(self.function, name, value)
            if former.dtype != new.dtype and not np.can_cast(new.dtype, former.dtype, "same_kind"):
                raise CodeError(
                    f"{_where(self.function)}: {self.name}({name}={value!r}): {former.dtype} wanted"
                )
            self._values[name] = new.astype(former.dtype)

    def prepare(self, scope: Scope) -> None:
        """Compile it for these columns and ports, unless it is."""
        layout = layout_of(self.requires, tuple(self.columns), self.counters, self._values, scope)
        if layout != self._layout:
            self._address = jit_code.load(self.function, layout)
            self._layout = layout

    def python(self, batch: Batch) -> None:
        """Run the function as it was written, uncompiled, on one batch; for tests and debugging.

        State and counters are those of `process`. What it raises is raised.
        """
        rows = self._ready(batch)
        lib.xp_zero_rows(batch.c, rows, len(rows))
        assert self._layout is not None
        given = {
            "batch": PythonBatch(batch, self._layout),
            "counters": PythonCounters(self),
            "state": self.state_now,
        }
        self.function(**{name: given[name] for name in inspect.signature(self.function).parameters})

    @property
    def state_now(self) -> Any:
        """The arrays and numbers of `state`, as attributes, as they are now."""
        assert self._layout is not None
        return PythonState(self._layout, self.table, self._arrays)

    def report(self) -> Mapping[str, Any]:
        """Return what the function given as `report` says, and what was raised first."""
        report = type(self)._report
        result = dict(report(self.state_now)) if report is not None else {}
        raised = jit_code.raised(int(self.table[JitLayout.RAISED]))
        return {**result, "raised": raised} if raised else result

    def _n_words(self) -> int:
        assert self._layout is not None
        return JitLayout.RAISED + 1 + len(self._layout.slots)

    def _own_words(self) -> Iterable[tuple[int, str]]:
        assert self._layout is not None
        for name, word in self._layout.slots.items():
            kind, _, column = name.partition(".")
            if kind == "columns":
                yield word, column

    def _fill(self, counters: int) -> None:
        assert self._layout is not None
        for word, function in (
            (JitLayout.LOAD, "xp_one_load"),
            (JitLayout.STORE, "xp_one_store"),
            (JitLayout.WANT_CHECKSUM, "xp_one_want_checksum"),
        ):
            self.table[word] = int(ffi.cast("uintptr_t", ffi.addressof(lib, function)))
        self.table[JitLayout.COUNTERS] = counters
        self._arrays: dict[str, Any] = {}
        for name, value in self._values.items():
            word = self._layout.slots[f"state.{name}"]
            if isinstance(value, np.ndarray):
                array = self._keep(value.nbytes).view(value.dtype).reshape(value.shape)
                array[...] = value
                # table[k].n as well as table[k]["n"], as in machine code
                self._arrays[name] = array.view(np.recarray) if value.dtype.fields else array
                self.table[word] = array.ctypes.data
            else:
                self.table[word : word + 1].view(value.dtype)[0] = value


def jit_stage(
    function: Callable[..., None] | None = None,
    /,
    *,
    requires: tuple[str, ...] = (),
    provides: tuple[str, ...] = (),
    counters: tuple[str, ...] = (),
    columns: Mapping[str, Any] = MappingProxyType({}),
    state: Mapping[str, Any] = MappingProxyType({}),
    report: Callable[[Any], Mapping[str, Any]] | None = None,
) -> Any:
    """Make a stage of a function: a subclass of JitStage, which says what the function may name.

    It is compiled when the user's file is loaded, and kept (`xdpipe/kept_code.py`), so that a later
    start need not even import numba.

    Args:
        function: its parameters are `batch` and, as far as it wants them, `counters` and `state`.
        requires: see Stage.
        provides: see Stage.
        counters: see Stage; `counters.NAME += 1`.
        columns: see Stage; `batch.NAME[i] = …`.
        state: what it keeps from batch to batch, each worker its own: by name an array of numbers,
            of fixed size, or a number. `NAME()` makes the stage with these, `NAME(limit=5)` with
            another.
        report: given `state`, returns what is worth showing; see Stage.report.

    Raises:
        CodeError: this cannot be a stage. What cannot be compiled is told when the stage is put
            into a pipeline.
    """

    def make(function: Callable[..., None]) -> type[JitStage]:
        _check(function)
        where = f"{_where(function)}: {function.__name__}"
        checked_names(where, "counters", counters)
        checked_names(where, "state", state)
        members = {
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "function": staticmethod(function),
            "requires": requires,
            "provides": provides,
            "counters": counters,
            "columns": columns,
            "state_values": {
                name: _state_value(function, name, value) for name, value in state.items()
            },
            "_report": staticmethod(report) if report is not None else None,
        }
        return type(function.__name__, (JitStage,), members)

    return make if function is None else make(function)


def _check(function: Any) -> None:
    """Refuse what is no function that could be a stage."""
    if not isinstance(function, FunctionType):
        raise CodeError(f"jit_stage: {function!r} is no function; write it above a def")
    where = f"{_where(function)}: {function.__name__}"
    if function.__code__.co_flags & (
        inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    ):
        raise CodeError(f"{where}: a generator or coroutine cannot be a stage")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in _PARAMETERS or parameter.kind != parameter.POSITIONAL_OR_KEYWORD:
            raise CodeError(
                f"{where}: parameter {parameter}: its parameters are batch, counters and state"
            )


def _state_value(function: Any, name: str, value: Any) -> Any:
    """Return an array, or a number, as numpy's.

    Raises:
        CodeError: it is neither.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.dtype.isnative:
        return np.ascontiguousarray(value).reshape(value.shape)
    if isinstance(value, bool | int | float | np.number | np.bool_):
        try:
            number: Any = np.int64(value) if type(value) is int else np.asarray(value)[()]
        except OverflowError:
            number = None
        if number is not None and number.dtype.char in "?bBhHiIlLqQfd":
            return number
    raise CodeError(
        f"{_where(function)}: state: {name}={value!r}: write an array of numbers, or a number of "
        "up to 64 bits"
    )


def _where(function: Any) -> str:
    return jit_code.where(function)
