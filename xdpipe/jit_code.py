"""The machine code of jit stages: compiled by numba or kept from an earlier time, and loaded.

Kept is a shared object where there is a C compiler to link one, which a worker loads in no time.
Where there is none, the object file is kept, which takes llvmlite to load: 20 ms, and 40 MB in
each worker. Numba itself, 130 ms and 60 MB and a second to compile, is imported only by who
compiles.
"""

from __future__ import annotations

import ctypes
import io
import pickle
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xdpipe.c_compiler import find_compiler
from xdpipe.errors import CodeError
from xdpipe.jit_key import key_of
from xdpipe.kept_code import kept
from xdpipe.kept_code import load as load_library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdpipe.jit_layout import JitLayout

SYMBOL = "xp_jit_run"
_OBJECT, _SHARED = "code.o", "code.so"

_loaded: dict[tuple[Any, JitLayout], int] = {}
_held: list[Any] = []
"""What the code goes with; it stays for as long as the process lives."""


def where(function: Callable[..., Any]) -> str:
    """Return file:line of a function."""
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def load(function: Callable[..., Any], layout: JitLayout) -> int:
    """Return the address of a function's machine code.

    Raises:
        CodeError: it does not compile, or there is no numba; the message begins with file and line.
    """
    address = _loaded.get((function, layout))
    if address is not None:
        return address
    if find_spec("numba") is None:
        raise CodeError(f"{where(function)}: a jit stage takes numba: pip install 'xdpipe[jit]'")

    def make(directory: Path) -> dict[str, Any]:
        from xdpipe.jit_compile import compile_function

        (directory / _OBJECT).write_bytes(compile_function(function, layout))
        compiler = find_compiler()
        if compiler is not None:
            args = ["-shared", "-o", _SHARED, _OBJECT, "-lm", "-Wl,-z,defs"]
            linked, _ = compiler.run(args, directory)
            if linked:
                (directory / _OBJECT).unlink()
        return {"name": function.__qualname__, "where": where(function)}

    with kept(key_of(function, layout), make) as (directory, _):
        try:
            address = _open(directory)
        except (OSError, AttributeError, RuntimeError) as error:
            raise CodeError(
                f"{where(function)}: its machine code does not load: {error}"
            ) from error
    _loaded[function, layout] = address
    return address


def _open(directory: Path) -> int:
    shared = directory / _SHARED
    if shared.exists():
        library = load_library(shared)
        _held.append(library)
        return ctypes.cast(library[SYMBOL], ctypes.c_void_p).value or 0
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic")
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data((directory / _OBJECT).read_bytes()))
    engine.finalize_object()
    _held.append(engine)
    return int(engine.get_function_address(SYMBOL))


class _Builtins(pickle.Unpickler):
    """Reads what numba has written down of an exception; nothing but Python's own exceptions."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if module == "builtins" else None
        return found if isinstance(found, type) and issubclass(found, Exception) else Exception


def raised(address: int) -> str:
    """Return what an exception of machine code says.

    Args:
        address: of numba's excinfo_t (numba/core/callconv.py); 0: none was raised.
    """
    if not address:
        return ""
    data, size = (
        ctypes.c_void_p.from_address(address).value,
        ctypes.c_int32.from_address(address + 8),
    )
    try:
        kind, args, place = _Builtins(io.BytesIO(ctypes.string_at(data or 0, size.value))).load()
        text = f"{kind.__name__}: {', '.join(map(str, args or ()))}".rstrip(": ")
        return f"{text} ({place[1]}:{place[2]})" if place else text
    except Exception as error:  # whatever another version of numba writes
        return f"an exception ({type(error).__name__})"
