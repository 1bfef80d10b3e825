"""A name for all that has a say in what a function compiles to: its code, and what it reaches."""

from __future__ import annotations

import dis
import enum
import hashlib
import os
import platform
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.jit_layout import BASE, PORT, TEXTS, N

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpipe.jit_layout import JitLayout

_FORMAT = 1
_DEPTH = 8
_VERSIONED = ("builtins", "cmath", "math", "numba", "numpy", "operator")
"""Packages of which the version says all."""


class Unknown(Exception):
    """The function reaches something of which it cannot be told whether it is still the same."""


def key_of(function: Callable[..., Any], layout: JitLayout) -> str | None:
    """Return the name; None if there is none, and the code cannot be kept.

    Numba takes the values of globals, closures and modules' attributes for constants, so they have
    a say, too; as has the CPU, whose every instruction is used.
    """
    try:
        reached = "\n".join(_code(function, set()))
    except Unknown:
        return None
    numba = {name: value for name, value in os.environ.items() if name.startswith("NUMBA_")}
    what = [
        _FORMAT, reached, layout, (N, PORT, BASE, TEXTS), sys.version, platform.machine(), cpu(),
        sorted(numba.items()), *(metadata.version(name) for name in ("numba", "llvmlite", "numpy")),
        *_own_code(),
    ]  # fmt: skip
    return hashlib.sha256("\0".join(map(str, what)).encode()).hexdigest()


def globals_of(code: types.CodeType) -> set[str]:
    """Return the names of globals that code loads, without that of functions within it."""
    return {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}


def _own_code() -> Iterator[str]:
    """Yield what changes when xdpipe's own part in it does."""
    for path in sorted(Path(__file__).parent.glob("jit_*.py")):
        yield hashlib.sha256(path.read_bytes()).hexdigest()


def cpu() -> str:
    """Return what this CPU can do, as text."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return ""
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in lines if line.startswith(wanted))


def _code(function: Any, seen: set[Any]) -> Iterator[str]:
    """Yield what a function does and reaches."""
    if function in seen:
        return
    seen.add(function)
    yield f"{function.__code__.co_filename}:{function.__qualname__}"
    yield _value(function.__defaults__, 0, seen)
    yield _value(function.__kwdefaults__, 0, seen)
    for cell in function.__closure__ or ():
        yield _value(cell.cell_contents, 0, seen)
    yield from _names(function.__code__, function.__globals__, seen)


def _names(code: types.CodeType, scope: dict[str, Any], seen: set[Any]) -> Iterator[str]:
    yield f"{code.co_code!r} {code.co_varnames} {code.co_names} {code.co_freevars}"
    yield f"{code.co_firstlineno} {code.co_linetable!r}"  # they stand in what it says of errors
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant, scope, seen)
        else:
            yield repr(constant)
    for name in sorted(globals_of(code)):
        if name in scope:
            value = scope[name]
            yield f"{name}={_value(value, 0, seen)}"
            if isinstance(value, types.ModuleType):
                yield from (f"{name}.{each}" for each in _attributes(value, code.co_names, seen))


def _attributes(
    module: types.ModuleType, names: tuple[str, ...], seen: set[Any], depth: int = 0
) -> Iterator[str]:
    """Yield the attributes of a module that may be meant."""
    for name in names:
        value = vars(module).get(name, module)
        if isinstance(value, types.ModuleType):
            if value is not module and depth < _DEPTH:
                yield from (f"{name}.{x}" for x in _attributes(value, names, seen, depth + 1))
        else:
            yield f"{name}={_value(value, 0, seen)}"


def _value(value: Any, depth: int, seen: set[Any]) -> str:
    """Return a text that is another if the value is."""
    if depth > _DEPTH:
        raise Unknown
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | enum.Enum):
        return f"{type(value).__qualname__} {value!r}"
    if isinstance(value, tuple | list):
        inner = ",".join(_value(each, depth + 1, seen) for each in value)
        return f"{type(value).__qualname__}({inner})"
    if isinstance(value, dict):
        inner = ",".join(f"{k!r}:{_value(v, depth + 1, seen)}" for k, v in value.items())
        return f"dict({inner})"
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        array = np.asarray(value)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return f"array {array.dtype.descr} {array.shape} {digest}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    module = getattr(value, "__module__", None) or ""
    if module.partition(".")[0] in _VERSIONED or isinstance(value, types.BuiltinFunctionType):
        return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if isinstance(value, types.FunctionType):
        return "\n".join(_code(value, seen))
    inner_function = getattr(value, "py_func", None)  # numba's own kind of function
    if isinstance(inner_function, types.FunctionType):
        return "\n".join(_code(inner_function, seen))
    if isinstance(value, enum.EnumType):
        kind: Any = value
        members = {name: each.value for name, each in kind.__members__.items()}
        return f"{module}.{value.__qualname__} {members}"
    raise Unknown
