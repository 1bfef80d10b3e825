"""What stages wrote into a packet, as text that a person can read and a program can apply.

    26=c0000207           these bytes stand from byte 26 on
    12-0+81000005         at byte 12 none are gone, and these have come: a VLAN tag was pushed
    12-4+                 at byte 12 four are gone
    60 bytes 9a1f0c…      too much to be written down: how long it is, and a BLAKE2b of it with
                          8 bytes (RFC 7693)

The first kind may stand several times. Equal packets give equal texts, different ones different,
as long as nobody looks for 64-bit hashes that collide.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

_MOST = 256
"""Bytes that are written down; of packets of which more was changed there is a hash."""
_GAP = 4
"""Changed bytes that lie so close are written as one piece."""
_PIECE = re.compile(r"(\d+)(?:=|-(\d+)\+)((?:[0-9a-f]{2})*)")
_HASH = re.compile(r"(\d+) bytes ([0-9a-f]{16})")


def describe(before: bytes, after: bytes) -> str:
    """Return what was done to a packet; empty: nothing."""
    if before == after:
        return ""
    pieces = _in_place(before, after) if len(before) == len(after) else _spliced(before, after)
    if sum(len(data) for _, data in pieces) > _MOST:
        return f"{len(after)} bytes {hashlib.blake2b(after, digest_size=8).hexdigest()}"
    return " ".join(f"{place}{data.hex()}" for place, data in pieces)


def _in_place(before: bytes, after: bytes) -> list[tuple[str, bytes]]:
    a, b = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    at = np.flatnonzero(a != b)
    pieces = np.split(at, np.flatnonzero(np.diff(at) > _GAP) + 1)
    return [(f"{piece[0]}=", after[piece[0] : piece[-1] + 1]) for piece in pieces]


def _spliced(before: bytes, after: bytes) -> list[tuple[str, bytes]]:
    start = first_different(before, after)
    most = min(len(before), len(after)) - start  # what is the same at the front is not so again
    end = first_different(before[: -most - 1 : -1], after[: -most - 1 : -1]) if most else 0
    gone = len(before) - end - start
    return [(f"{start}-{gone}+", after[start : len(after) - end])]


def first_different(a: bytes, b: bytes) -> int:
    """Return the place of the first byte that is not the same; the shorter one's end counts."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.frombuffer(a, np.uint8, n) != np.frombuffer(b, np.uint8, n))
    return int(different[0]) if len(different) else n


def is_valid(text: str) -> bool:
    """Return whether `describe` may have written this."""
    return bool(_HASH.fullmatch(text)) or all(map(_PIECE.fullmatch, text.split(" ")))


def apply(before: bytes, text: str) -> bytes | None:
    """Return the packet as it was left; None: there is only a hash of it.

    Args:
        before: the packet as it came.
        text: what `describe` said.

    Raises:
        ValueError: it cannot have said so of this packet.
    """
    if not text:
        return before
    if _HASH.fullmatch(text):
        return None
    after = bytearray(before)
    for piece in text.split(" "):
        match = _PIECE.fullmatch(piece)
        if match is None:
            raise ValueError(f"no change of a packet: {piece!r}")
        at, data = int(match[1]), bytes.fromhex(match[3])
        gone = len(data) if match[2] is None else int(match[2])
        if at + gone > len(after):
            raise ValueError(f"a change beyond the packet's {len(before)} bytes: {piece!r}")
        after[at : at + gone] = data
    return bytes(after)
