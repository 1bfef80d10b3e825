"""`xdpipe set`: look at and change the sets of a running pipeline."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError
from xdpipe.set_keeper import in_memory, pack, read_all, unpack
from xdpipe.sets import MAPPED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdpipe.rundir import RunDir
    from xdpipe.set_map import Entry

_ANSWER_S = 120.0
"""A million entries take the supervisor some seconds."""


def parse(text: str) -> Entry:
    """Read an address or a prefix, of IPv4 or IPv6, as ip(8) and files of lists have them.

    Raises:
        ValueError: it is none.
    """
    address, slash, bits = text.partition("/")
    try:  # several times as fast as ipaddress
        if ":" in address:
            packed, most, mapped = socket.inet_pton(socket.AF_INET6, address), 128, 0
        else:
            packed, most, mapped = MAPPED + socket.inet_pton(socket.AF_INET, address), 32, 96
    except OSError as error:
        raise ValueError(f"{text}: no address") from error
    if not slash:
        return 128, packed
    if not bits.isdecimal() or int(bits) > most:
        raise ValueError(f"{text}: no length of a prefix, 0 to {most}")
    length = mapped + int(bits)
    number = int.from_bytes(packed, "big")
    return length, (number >> 128 - length << 128 - length).to_bytes(16, "big")


def show(entry: Entry) -> str:
    """Write an entry as people do."""
    length, address = entry
    found = IPv6Address(address)
    if found.ipv4_mapped is not None and length >= 96:
        return str(found.ipv4_mapped) + (f"/{length - 96}" if length < 128 else "")
    return str(found) if length == 128 else str(ip_network((address, length)))


def read_list(lines: Iterable[str], name: str) -> list[Entry]:
    """Read addresses and prefixes, one a line; `#` begins a comment.

    Raises:
        XdpipeError: a line is none; the message tells which.
    """
    entries = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            entries.append(parse(text))
        except ValueError as error:
            raise XdpipeError(f"{name}:{number}: {error}; nothing was changed") from error
    return entries


def ask(
    run_dir: RunDir, name: str, op: str, entries: list[Entry], ttl_s: float | None = None
) -> tuple[dict[str, Any], list[tuple[Entry, float | None]]]:
    """Have the supervisor do something with a set; return its answer, and entries of list.

    Raises:
        XdpipeError: it is gone, or refuses.
    """
    data = in_memory(pack([(entry, None) for entry in entries]))
    try:
        request = {"set": name, "op": op, "ttl_s": ttl_s}
        answer = run_dir.talk("set", request, (data,), _ANSWER_S)
    finally:
        os.close(data)
    if answer is None:
        raise XdpipeError("the pipeline does not answer; is it about to end?")
    kind, body, fds = answer
    found = [each for fd in fds for each in unpack(read_all(fd))]
    if kind == "error":
        raise XdpipeError(str(body))
    return body, found
