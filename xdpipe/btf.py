"""Find the kernel's functions for eBPF programs (kfuncs) in its type information.

A program calls a kfunc by the number of its type in /sys/kernel/btf/vmlinux; the format is that of
Documentation/bpf/btf.rst.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from xdpipe.core._core import ffi, lib

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
# struct btf_header: magic, version, flags, length of the header; offset and length of the types,
# offset and length of the strings, both from the header's end
_HEADER = struct.Struct("=HBBIIIII")


def function_ids(names: Iterable[str], path: Path = VMLINUX) -> dict[str, int]:
    """Return the type numbers of those of the functions that the kernel has.

    Args:
        names: of functions.
        path: of the type information. Without it (a kernel built without CONFIG_DEBUG_INFO_BTF) no
            function is found.
    """
    try:
        data = path.read_bytes()
        head = _HEADER.unpack_from(data)
    except (OSError, struct.error):
        return {}
    magic, _, _, size, types_at, types_size, strings_at, strings_size = head
    if magic != _MAGIC:
        return {}
    types = memoryview(data)[size + types_at : size + types_at + types_size]
    strings = data[size + strings_at : size + strings_at + strings_size]
    places = {name: strings.find(b"\0" + name.encode() + b"\0") + 1 for name in names}
    wanted = [name for name, place in places.items() if place]
    numbers = ffi.new("uint32_t[]", len(wanted))
    lib.xp_btf_functions(
        ffi.from_buffer("uint8_t[]", types), len(types), [places[name] for name in wanted],
        len(wanted), numbers,
    )  # fmt: skip
    return {name: number for name, number in zip(wanted, numbers, strict=True) if number}
