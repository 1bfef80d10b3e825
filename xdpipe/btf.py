"""Find the kernel's functions for eBPF programs (kfuncs) in its type information.

A program calls a kfunc by the number of its type in /sys/kernel/btf/vmlinux; the format is that of
Documentation/bpf/btf.rst.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
# struct btf_header: magic, version, flags, length of the header; offset and length of the types,
# offset and length of the strings, both from the header's end
_HEADER = struct.Struct("=HBBIIIII")
# struct btf_type: name, a place among the strings; info: bits 24 to 28 the kind, 0 to 15 the number
# of members; size or type
_TYPE = struct.Struct("=III")
_KIND_FUNC = 12
# How many bytes follow a type, by kind: for each member, or once.
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_ONCE = {1: 4, 3: 12, 14: 4, 17: 4}


def function_ids(names: Iterable[str], path: Path = VMLINUX) -> dict[str, int]:
    """Return the type numbers of those of the functions that the kernel has.

    Args:
        names: of functions.
        path: of the type information. Without it (a kernel built without CONFIG_DEBUG_INFO_BTF) no
            function is found.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    magic, _, _, size, types_at, types_size, strings_at, strings_size = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return {}
    types = memoryview(data)[size + types_at : size + types_at + types_size]
    strings = data[size + strings_at : size + strings_at + strings_size]
    wanted = {strings.find(b"\0" + name.encode() + b"\0") + 1: name for name in names}
    wanted.pop(0, None)
    found: dict[str, int] = {}
    at, number = 0, 1
    while at < len(types):
        name, info, _ = _TYPE.unpack_from(types, at)
        kind = info >> 24 & 31
        if kind == _KIND_FUNC and name in wanted:
            found[wanted[name]] = number
        members = info & 0xFFFF
        at += _TYPE.size + _PER_MEMBER.get(kind, 0) * members + _ONCE.get(kind, 0)
        number += 1
    return found
