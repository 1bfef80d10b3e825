"""The kind of stage that is written in C, in a file beside the pipeline's."""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import os
import platform
import re
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.c_compiler import find_compiler
from xdpipe.compiled_stage import CompiledStage, checked_names
from xdpipe.errors import CodeError, XdpipeError
from xdpipe.kept_code import kept, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from xdpipe.own_columns import OwnColumn, Scope

_FORMAT = 1
_CORE = Path(__file__).parent / "core"
_FLAGS = (
    "-std=gnu11", "-O3", "-g", "-fPIC", "-Wall", "-Wextra", "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types", "-Werror=int-conversion",
)  # fmt: skip
_ENTRY, _STATE_BYTES = "xp_c_run", "xp_c_state_bytes"
_GENERATED = "generated.c"
_SAID = re.compile(r"(.+?):(\d+):(?:\d+:)? (fatal error|error|warning): (.*)")
_UNDEFINED = re.compile(r"(\S+?):(\d+): (undefined reference to .*)")

_held: list[Any] = []
"""Libraries that were loaded; they stay for as long as the process lives."""


class CStage(CompiledStage):
    """A stage in C: `int NAME(struct xp_batch *b, struct xp_own *own)`, in a file of the user's.

    It is compiled when the user's file is loaded, and kept (`xdpipe/kept_code.py`) until it, what
    it includes, xdpipe's headers or the compiler change. `xp_batch.h` says what such a function
    may do; it is included before the file, as is what this class generates of the declarations
    here:

        struct xp_own {
            struct { uint64_t NAME; … } *counters;  own->counters->monlist++
            float *score;                           own->score[i] = …, for each of `columns`, and
            for
                                                    each of other stages' that it requires
            struct flows *state;                    with state="struct flows"
        };

    What the compiler warns of is told on stderr as it compiles.

    Args:
        file: relative to the file that makes the stage, mostly the pipeline's.
        function: its name; None: the file's, without its ending.
        requires: see Stage.
        provides: see Stage.
        counters: see Stage.
        columns: see Stage; of several values per packet, value k of packet i is [i * width + k].
        state: a type that the file defines, such as "struct flows": memory of its size, zeroed at
            first and kept from batch to batch, each worker its own.
        flags: more for the compiler, such as ("-march=native",).

    Raises:
        XdpipeError: there is no such file, or the names cannot be used in C. What does not compile
            is told when the stage is put into a pipeline.
    """

    _kind: ClassVar[str] = "c"

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        function: str | None = None,
        requires: tuple[str, ...] = (),
        provides: tuple[str, ...] = (),
        counters: tuple[str, ...] = (),
        columns: Mapping[str, Any] = MappingProxyType({}),
        state: str = "",
        flags: tuple[str, ...] = (),
    ) -> None:
        self.file = _beside_caller(file)
        if not self.file.is_file():
            raise XdpipeError(f"CStage({str(file)!r}): no such file: {self.file}")
        self._function = self.file.stem if function is None else function
        if not self._function.isidentifier() or not self._function.isascii():
            raise XdpipeError(
                f"CStage({str(file)!r}): {self._function!r} is no name of a C function; say which "
                "it is by function='…'"
            )
        if not re.fullmatch(r"((struct|union) )?\w+|", state):
            raise XdpipeError(f"CStage({str(file)!r}): state={state!r}: write 'struct NAME'")
        checked_names(f"CStage({str(file)!r})", "counters", counters)
        vars(self).update(  # which others declare for the class
            requires=requires, provides=provides, counters=counters, columns=columns
        )
        self._state = state
        self._flags = tuple(flags)
        self._mine: tuple[OwnColumn, ...] = ()
        self._code = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self._function

    @property
    def state_bytes(self) -> NDArray[np.uint8]:
        """The memory of `state`, once the stage is in a chain; for reports."""
        return self._own_state

    def prepare(self, scope: Scope) -> None:
        """Compile it for these columns, unless it is."""
        mine = tuple(c for c in scope.columns if c.name in self.columns or c.name in self.requires)
        code = self._generated(mine)
        if code != self._code:
            self._address, self._n_state = self._load(code)
            self._mine, self._code = mine, code

    def _generated(self, columns: Iterable[OwnColumn]) -> str:
        """Return what is compiled: the file, and around it what goes with the declarations."""
        path = str(self.file).replace("\\", "\\\\").replace('"', '\\"')
        counters = "".join(f" uint64_t {name};" for name in self.counters)
        members = [f"struct {{{counters} }} *counters;"] if counters else ["void *counters;"]
        members += [f"{column.c_type} *{column.name};" for column in columns]
        members += [f"{self._state} *state;"] if self._state else []
        ahead = f"{self._state};\n" if self._state.startswith(("struct ", "union ")) else ""
        size = f"sizeof({self._state})" if self._state else "0"
        return (
            f'#include "xp_packet.h"\n{ahead}struct xp_own {{\n\t'
            + "\n\t".join(members)
            + f'\n}};\n#include "{path}"\n'
            f"const unsigned long {_STATE_BYTES} = {size};\n"
            f"int {_ENTRY}(struct xp_batch *b, void *own) {{ return {self._function}(b, own); }}\n"
        )

    def _load(self, code: str) -> tuple[int, int]:
        """Return the address of the function, compiled or kept, and the size of its state."""
        compiler = find_compiler()
        if compiler is None:
            raise CodeError(f"{self.file}:1: no C compiler; install one: apt install gcc")

        def make(directory: Path) -> dict[str, Any]:
            (directory / _GENERATED).write_text(code)
            args = [
                *_FLAGS, *self._flags, "-shared", "-Wl,-z,defs", f"-I{_CORE}",
                f"-I{self.file.parent}", "-MMD", "-MF", "needs", "-o", "code.so", _GENERATED, "-lm",
            ]  # fmt: skip
            done, said = compiler.run(args, directory)
            warnings = self._told(said, done)
            for line in warnings:
                print(f"xdpipe: {line}", file=sys.stderr)
            needs = _needs((directory / "needs").read_text())
            (directory / "needs").unlink()
            return {"needs": {path: _digest(path) for path in needs if Path(path).is_absolute()}}

        what = [
            _FORMAT, code, self.file, compiler.path, compiler.identity, platform.machine(), _FLAGS,
            self._flags, _cpu() if any("native" in flag for flag in self._flags) else "",
        ]  # fmt: skip
        key = hashlib.sha256("\0".join(map(str, what)).encode()).hexdigest()
        with kept(key, make, _is_valid) as (directory, _):
            try:
                library = load(directory / "code.so")
            except OSError as error:
                raise CodeError(
                    f"{self.file}:1: its machine code does not load: {error}"
                ) from error
        _held.append(library)
        address = ctypes.cast(library[_ENTRY], ctypes.c_void_p).value or 0
        return address, ctypes.c_ulong.in_dll(library, _STATE_BYTES).value

    def _told(self, said: str, done: bool) -> list[str]:
        """Return what the compiler warns of, a line each.

        Raises:
            CodeError: it did not compile; the message is of the first error.
        """
        lines = [match.groups() for match in map(_SAID.fullmatch, said.splitlines()) if match]
        if done:
            return [f"{file}:{line}: {what}: {text}" for file, line, what, text in lines]
        errors = [each for each in lines if each[2] != "warning"]
        missing = _UNDEFINED.search(said)
        if errors:
            file, line, _, text = errors[0]
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            if (
                Path(file).name == _GENERATED
            ):  # no place of the user's: what is declared is not there
                raise CodeError(f"{self.file}:1: {self._lacks(text)}")
            raise CodeError(f"{file}:{line}: {text}{more}")
        if missing:
            raise CodeError(f"{missing[1]}:{missing[2]}: {missing[3]}")
        raise CodeError(f"{self.file}:1: the compiler fails: {said.strip().splitlines()[:1]}")

    def _lacks(self, text: str) -> str:
        if self._state and "sizeof" in text:
            return f"state={self._state!r}: the file does not define it"
        return (
            f"wanted is a function int {self._function}(struct xp_batch *, struct xp_own *); the "
            f"compiler says: {text}"
        )

    def _n_words(self) -> int:
        return 1 + len(self._mine) + bool(self._state)

    def _own_words(self) -> Iterable[tuple[int, str]]:
        return ((1 + k, column.name) for k, column in enumerate(self._mine))

    def _fill(self, counters: int) -> None:
        self.table[0] = counters
        self._own_state = self._keep(self._n_state)
        if self._state:
            self.table[1 + len(self._mine)] = self._own_state.ctypes.data


def _beside_caller(file: str | os.PathLike[str]) -> Path:
    """Return a path relative to the file whose code makes the stage."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    caller = frame.f_globals.get("__file__") if frame is not None else None
    return (Path(caller).parent if caller else Path.cwd()).joinpath(file).resolve()


def _needs(text: str) -> list[str]:
    """Return the files that a rule of make names as needed (gcc -MMD)."""
    rule = text.partition(":")[2].replace("\\\n", " ")
    return [re.sub(r"\\([ #\\])", r"\1", each) for each in re.findall(r"(?:\\.|[^\s\\])+", rule)]


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _is_valid(told: dict[str, Any]) -> bool:
    """Whether all that was included is as it was."""
    return all(_digest(path) == digest for path, digest in told["needs"].items())


def _cpu() -> str:
    from xdpipe.jit_key import cpu

    return cpu()
