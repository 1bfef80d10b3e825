"""Find functions for programs (kfuncs), and members of structs, in the kernel's type information.

A program calls a kfunc by the number of its type in /sys/kernel/btf/vmlinux; the format is that of
Documentation/bpf/btf.rst.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
# struct btf_header: magic, version, flags, length of the header; offset and length of the types,
# offset and length of the strings, both from the header's end
_HEADER = struct.Struct("=HBBIIIII")
# struct btf_type: name, a place among the strings; info: bits 24 to 28 the kind, 0 to 15 the number
# of members; size or type
_TYPE = struct.Struct("=III")
_KIND_STRUCT, _KIND_FUNC = 4, 12
# struct btf_member: name; type; offset in bits, of which 24 count; above may be the size of bits
_MEMBER = struct.Struct("=III")
# How many bytes follow a type, by kind: for each member, or once.
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_ONCE = {1: 4, 3: 12, 14: 4, 17: 4}


class _Type(NamedTuple):
    number: int
    name: int
    kind: int
    members: memoryview


class _Btf:
    """Type information, read from front to end.

    Raises:
        ValueError: that is none.
    """

    def __init__(self, data: bytes) -> None:
        magic, _, _, size, types_at, types_size, strings_at, strings_size = _HEADER.unpack_from(
            data
        )
        if magic != _MAGIC:
            raise ValueError("no type information")
        self._types = memoryview(data)[size + types_at : size + types_at + types_size]
        self._strings = data[size + strings_at : size + strings_at + strings_size]

    def name(self, text: str) -> int:
        """Return the place of a name among the strings; 0: it is not there."""
        return self._strings.find(b"\0" + text.encode() + b"\0") + 1

    def __iter__(self) -> Iterator[_Type]:
        at, number = 0, 1
        while at < len(self._types):
            name, info, _ = _TYPE.unpack_from(self._types, at)
            kind, n = info >> 24 & 31, info & 0xFFFF
            at += _TYPE.size
            size = _PER_MEMBER.get(kind, 0) * n + _ONCE.get(kind, 0)
            yield _Type(number, name, kind, self._types[at : at + size])
            at += size
            number += 1


def _read(path: Path) -> _Btf | None:
    try:
        return _Btf(path.read_bytes())
    except (OSError, ValueError, struct.error):
        return None


def function_ids(names: Iterable[str], path: Path = VMLINUX) -> dict[str, int]:
    """Return the type numbers of those of the functions that the kernel has.

    Args:
        names: of functions.
        path: of the type information. Without it (a kernel built without CONFIG_DEBUG_INFO_BTF) no
            function is found.
    """
    btf = _read(path)
    if btf is None:
        return {}
    wanted = {btf.name(name): name for name in names}
    wanted.pop(0, None)
    return {
        wanted[type_.name]: type_.number
        for type_ in btf
        if type_.kind == _KIND_FUNC and type_.name in wanted
    }


def member_offset(struct_name: str, member: str, path: Path = VMLINUX) -> int | None:
    """Return where in one of the kernel's structs a member is; bytes. None: nobody knows.

    Args:
        struct_name: of the struct.
        member: its own, not one of a struct without a name within it.
        path: see function_ids.
    """
    btf = _read(path)
    if btf is None:
        return None
    name, wanted = btf.name(struct_name), btf.name(member)
    for type_ in btf:
        if name and type_.kind == _KIND_STRUCT and type_.name == name:
            for found, _, offset in _MEMBER.iter_unpack(type_.members):
                if found == wanted:
                    return int(offset & 0xFFFFFF) // 8
    return None
