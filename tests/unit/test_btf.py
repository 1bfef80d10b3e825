"""Finding functions of the kernel in its type information."""

import struct
from pathlib import Path

from xdpipe.btf import VMLINUX, function_ids

INT, STRUCT, ENUM, FUNC, FUNC_PROTO, VAR = 1, 4, 6, 12, 13, 14


def btf(*types: tuple[str, int, int]) -> bytes:
    """Return BTF of types by name, kind and number of members, with what follows each kind."""
    strings, body = b"\0", b""
    for name, kind, members in types:
        body += struct.pack("=III", len(strings), kind << 24 | members, 0)
        strings += name.encode() + b"\0"
        follows = {INT: 4, STRUCT: 12 * members, ENUM: 8 * members, FUNC_PROTO: 8 * members, VAR: 4}
        body += b"\xaa" * follows.get(kind, 0)
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
    return head + body + strings


def test_functions_are_found_behind_types_of_every_length(tmp_path: Path) -> None:
    path = tmp_path / "btf"
    path.write_bytes(btf(
        ("int", INT, 0), ("pair", STRUCT, 2), ("colours", ENUM, 3), ("first", FUNC, 0),
        ("", FUNC_PROTO, 4), ("here", VAR, 0), ("second", FUNC, 0),
    ))  # fmt: skip
    wanted = ["second", "first", "pair", "econd", "third"]
    assert function_ids(wanted, path) == {"first": 4, "second": 7}


def test_without_type_information_there_are_none(tmp_path: Path) -> None:
    assert function_ids(["printk"], tmp_path / "none") == {}
    for other in (bytes(64), b"\x9f\xeb"):
        (tmp_path / "other").write_bytes(other)
        assert function_ids(["printk"], tmp_path / "other") == {}


def test_types_that_are_cut_off_end_the_search(tmp_path: Path) -> None:
    whole = btf(("first", FUNC, 0), ("pair", STRUCT, 2), ("second", FUNC, 0))
    path = tmp_path / "btf"
    for types_size in range(12 + 36 + 12):
        path.write_bytes(whole[:12] + struct.pack("=I", types_size) + whole[16:])
        found = {"first": 1} if types_size >= 12 else {}
        assert function_ids(["first", "second"], path) == found


def test_the_running_kernels_functions_are_found() -> None:
    if VMLINUX.exists():
        assert set(function_ids(["schedule", "no_such_function"])) == {"schedule"}
