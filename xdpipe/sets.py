"""Sets of addresses that the XDP program looks in: declared in a pipeline's file, fed by stages.

An address is 16 bytes, IPv4 as ::ffff:a.b.c.d, as in the columns `src` and `dst`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from xdpipe.errors import XdpipeError

ADDRESS_BYTES = 16
MAPPED = b"\0" * 10 + b"\xff\xff"
"""What IPv4 addresses begin with: ::ffff:0:0/96 (RFC 4291, 2.5.5.2)."""
CAPACITY = 1 << 20
_CAPACITY_MAX = 1 << 26


@dataclass(frozen=True)
class KeySet:
    """A set of addresses, or of prefixes.

    Args:
        prefixes: it holds prefixes, and an address that one covers is in it; else addresses.
        ttl_s: seconds after which an entry is gone, unless it was added again; None: never.
        capacity: entries at the most; memory is taken only for those that there are.
        match: which address of a packet is looked for: `src` or `dst`.
    """

    prefixes: bool = False
    ttl_s: float | None = None
    capacity: int = CAPACITY
    match: str = "src"
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.match not in ("src", "dst"):
            raise XdpipeError(f"match={self.match!r}: which address is looked for, 'src' or 'dst'")
        if not 1 <= self.capacity <= _CAPACITY_MAX:
            raise XdpipeError(f"capacity={self.capacity}: 1 to {_CAPACITY_MAX} entries")
        if self.ttl_s is not None and not self.ttl_s > 0:
            raise XdpipeError(f"ttl_s={self.ttl_s}: seconds, more than 0; or None: for ever")


class DropSet(KeySet):
    """Of the packets that the filter takes, those with an address in it are dropped.

    By the XDP program, before they cost a frame. What the guard keeps is not dropped.
    """

    kind = "drop"


class PassSet(KeySet):
    """Of the packets that the filter takes, those with an address in it go to the kernel."""

    kind = "pass"


class TakeSet(KeySet):
    """Packets with an address in it are taken, also where the filter says no."""

    kind = "take"


_KINDS = {each.kind: each for each in (DropSet, PassSet, TakeSet)}


def to_dict(declared: KeySet) -> dict[str, Any]:
    """Return a declaration as what JSON can say."""
    return {"kind": declared.kind, **asdict(declared)}


def from_dict(data: dict[str, Any]) -> KeySet:
    """Undo to_dict."""
    fields = dict(data)
    return _KINDS[fields.pop("kind")](**fields)


def check(sets: object) -> None:
    """Check what a file declares.

    Raises:
        XdpipeError: it is no dict of names and sets.
    """
    good = isinstance(sets, dict) and all(
        isinstance(name, str) and name.isidentifier() and isinstance(each, KeySet) and each.kind
        for name, each in sets.items()
    )
    if not good:
        raise XdpipeError(
            f"sets={sets!r}: write a dict of names and sets: sets={{'offenders': DropSet()}}"
        )
