"""A compiled file of C as plain data, and loaded: its maps made, its functions ready to load.

What the compiler (bpf_compile.py) gives has no tie to the process that compiled it, so it can be
kept (bpf_cache.py): loading from there needs neither bcc nor clang.
"""

import base64
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from xdpipe.bpf import Map, MapSpec
from xdpipe.bpf_program import PROG_TYPE_XDP, Program, call_kfuncs, renumber_maps
from xdpipe.errors import XdpipeError


@dataclass(frozen=True)
class Compiled:
    """Functions as bytecode, in which a map is its place in `maps` instead of a descriptor."""

    functions: Mapping[str, bytes]
    maps: tuple[MapSpec, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can say."""
        return {
            "functions": {
                name: base64.b64encode(code).decode() for name, code in self.functions.items()
            },
            "maps": [asdict(spec) for spec in self.maps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make it from what `to_dict` gave."""
        return cls(
            {name: base64.b64decode(code) for name, code in data["functions"].items()},
            tuple(MapSpec(**{**spec, "fields": tuple(spec["fields"])}) for spec in data["maps"]),
        )


class Module:
    """The maps of a compiled file, made, and its functions, to be loaded; a context manager.

    Programs and maps taken from it stay when it is closed; what was taken from nowhere is gone
    then.

    Args:
        compiled: the file.
        given: maps that there are already, in the place of those of that name. Not owned.

    Raises:
        BpfError: not permitted, or the kernel has not such maps.
    """

    def __init__(self, compiled: Compiled, given: Mapping[str, Map] | None = None) -> None:
        self._compiled = compiled
        self._open = ExitStack()
        self._maps: dict[str, Map] = {}
        try:
            for spec in compiled.maps:
                there = (given or {}).get(spec.name)
                self._maps[spec.name] = there or self._open.enter_context(Map.make(spec))
        except BaseException:
            self.close()
            raise

    def load(
        self,
        function: str,
        *,
        name: str = "",
        prog_type: int = PROG_TYPE_XDP,
        flags: int = 0,
        ifindex: int = 0,
        kfuncs: Mapping[int, int] | None = None,
    ) -> Program:
        """Load a function as a program, by its own name or another.

        Args:
            function: in the source.
            name: seen by others; the function's if empty.
            prog_type: PROG_TYPE_*.
            flags: such as XDP_HAS_FRAGS.
            ifindex: of the interface that it is bound to, with XDP_DEV_BOUND_ONLY.
            kfuncs: see call_kfuncs.

        Raises:
            BpfError: not permitted, or the verifier refused.
        """
        fds = {place: self._maps[spec.name].fd for place, spec in enumerate(self._compiled.maps)}
        code = renumber_maps(self._compiled.functions[function], fds)
        return Program.load(
            call_kfuncs(code, kfuncs or {}), name or function, prog_type=prog_type, flags=flags,
            ifindex=ifindex,
        )  # fmt: skip

    def map(self, name: str) -> Map:
        """Return a map, by a descriptor of its own."""
        if name not in self._maps:
            raise XdpipeError(f"no map {name} in the program")
        return Map(os.dup(self._maps[name].fd))

    def fields(self, name: str) -> tuple[str, ...]:
        """Return the names of the fields of a map's value, a struct, in order."""
        [fields] = [spec.fields for spec in self._compiled.maps if spec.name == name]
        return fields

    def close(self) -> None:
        """Close its descriptors. May be called twice."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
