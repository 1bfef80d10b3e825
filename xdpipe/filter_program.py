"""A filter as the core runs it: classic BPF, by libpcap's interpreter."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIBPCAP = ("libpcap.so.0.8", "libpcap.so.1")
_INSTRUCTION = struct.Struct("=HBBI")
"""struct bpf_insn."""


class FilterProgram:
    """A program and what runs it, for the core; keeps the memory that they lie in.

    Args:
        instructions: code, jt, jf, k of each, as Filter.program gives them.

    Attributes:
        c: struct bpf_insn *.
        run: xp_bpf_filter_fn *, libpcap's bpf_filter. It does not look whether that is a program.

    Raises:
        XdpipeError: no libpcap, or the instructions are none that may be run.
    """

    def __init__(self, instructions: Sequence[tuple[int, int, int, int]]) -> None:
        # By ctypes, since the worker's queue fills up meanwhile: the binding that compiles filters
        # takes fifty times as long to import.
        import ctypes  # 5 ms, which a supervisor need not spend

        for name in _LIBPCAP:
            try:
                libpcap = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise XdpipeError(f"libpcap is missing ({_LIBPCAP[0]}); apt-get install libpcap0.8")
        program = b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)
        if not libpcap.bpf_validate(program, len(instructions)):
            raise XdpipeError("the filter is no valid program of classic BPF")
        address = ctypes.cast(libpcap.bpf_filter, ctypes.c_void_p).value
        self.c: Any = ffi.new("uint8_t[]", program)
        self.run: Any = ffi.cast("xp_bpf_filter_fn *", address)
