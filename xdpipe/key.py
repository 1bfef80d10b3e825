"""Keys made of columns, by which stages count and limit; core/stages/key.c makes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.batch import COLUMNS, ENUMS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.batch import Column

KEY_BYTES: int = 8 * lib.XP_KEY_WORDS
"""The longest key."""
_ADDRESS, _MAC = 16, 6
_BITS4, _BITS6 = 32, 128
_MAPPED_BITS = 96
_TEXT_LEAST = 16
"""Bytes that a text gets at the least: its length, some of it, and a hash."""
_TEXT_IS_LONG, _TEXT_HASH = 255, 8
_FLOW = ("src", "dst", "l4_sport", "l4_dport", "ip_proto")
_FLOW_BYTES = 37


@dataclass(frozen=True)
class Prefix:
    """The network that an address is in, as part of a key: `Prefix("src", bits4=24, bits6=64)`.

    Args:
        column: of addresses, such as "src" or "dst".
        bits4: length of the prefix of IPv4 addresses, 0 to 32.
        bits6: length of the prefix of IPv6 addresses, 0 to 128.
    """

    column: str
    bits4: int = _BITS4
    bits6: int = _BITS6


@dataclass(frozen=True)
class Flow:
    """A flow, as a key: addresses, ports and protocol, the same for both directions.

    Later fragments have no ports, and are a flow of their own.
    """


@dataclass(frozen=True)
class _Part:
    name: str
    kind: int
    size: int
    decode: Callable[[bytes], dict[str, Any]]
    column: int = 0
    requires: tuple[str, ...] = ()
    mask4: int = 0
    mask6: int = 0


class Key:
    """Columns that together are a key of up to 64 bytes (KEY_BYTES).

    Of a text, a key holds as many bytes as there is room for; texts that are longer, and alike so
    far, are told apart by a hash.

    Args:
        stage: whose key it is, for messages.
        columns: names of columns, Prefix, Flow. () is a key that all packets share.

    Attributes:
        requires: the columns that must be filled before.
        n_words: of 8 bytes, that it takes.

    Raises:
        XdpipeError: there is no such column, or together they are too long.
    """

    def __init__(self, stage: str, columns: Sequence[str | Prefix | Flow]) -> None:
        room = KEY_BYTES - sum(_size(column) for column in columns)
        n_texts = sum(_is_text(column) for column in columns)
        text_size = room // n_texts if n_texts else 0
        parts = [_part(stage, column, text_size) for column in columns]
        names = [part.name for part in parts]
        if len(set(names)) < len(names):
            raise XdpipeError(f"{stage}: the same column twice: {', '.join(names)}")
        if room < 0 or (n_texts and text_size < _TEXT_LEAST) or len(parts) > lib.XP_KEY_PARTS:
            raise XdpipeError(
                f"{stage}: {', '.join(names)}: these are too long for a key: {KEY_BYTES} bytes in "
                f"up to {lib.XP_KEY_PARTS} columns, at least {_TEXT_LEAST} of each text"
            )
        self._parts = parts
        self.requires = tuple(dict.fromkeys(name for part in parts for name in part.requires))
        self.n_words = -(-sum(part.size for part in parts) // 8)

    def to_c(self) -> Any:
        """Return a struct xp_key *, with a secret of its own."""
        at = 0
        c_parts = []
        for part in self._parts:
            c_parts.append(
                {
                    "kind": part.kind, "column": part.column, "at": at, "size": part.size,
                    "mask4": _words(part.mask4), "mask6": _words(part.mask6),
                }
            )  # fmt: skip
            at += part.size
        secret = np.frombuffer(os.urandom(16), np.uint64).tolist()
        return ffi.new(
            "struct xp_key *",
            {
                "secret": secret, "n_words": self.n_words,
                "n_parts": len(c_parts), "parts": c_parts,
            },
        )  # fmt: skip

    def decode(self, key: bytes) -> dict[str, Any]:
        """Return the columns' values of a key, by name, as JSON can hold them.

        Addresses and texts are strings, prefixes as 192.0.2.0/24, values that have names are the
        names (None: none), flags are the names joined by "|".
        """
        values: dict[str, Any] = {}
        at = 0
        for part in self._parts:
            values |= part.decode(key[at : at + part.size])
            at += part.size
        return values


def _words(mask: int) -> list[int]:
    """Return a mask of 128 bits, the first one highest, as two words as they stand in memory."""
    words: list[int] = np.frombuffer(mask.to_bytes(_ADDRESS, "big"), np.uint64).tolist()
    return words


def _column(column: str | Prefix | Flow) -> Column | None:
    name = column.column if isinstance(column, Prefix) else column
    return COLUMNS.get(name) if isinstance(name, str) else None


def _is_text(column: str | Prefix | Flow) -> bool:
    found = _column(column)
    return found is not None and found.text


def _size(column: str | Prefix | Flow) -> int:
    """Return how many bytes of a key it takes; of texts and of what there is not: 0."""
    if isinstance(column, Flow):
        return _FLOW_BYTES
    found = _column(column)
    return 0 if found is None or found.text else found.dtype.itemsize * found.width


def _part(stage: str, given: str | Prefix | Flow, text_size: int) -> _Part:
    if isinstance(given, Flow):
        return _Part("flow", lib.XP_KEY_FLOW, _FLOW_BYTES, _decode_flow, requires=_FLOW)
    column = _column(given)
    if column is None:
        raise XdpipeError(f"{stage}: there is no column {given!r}")
    name, index = column.name, column.index
    if isinstance(given, Prefix):
        if column.dtype != np.uint8 or column.width != _ADDRESS:
            raise XdpipeError(f"{stage}: {given}: that column holds no addresses")
        bits = (given.bits4, given.bits6)
        if not (
            all(isinstance(n, int) for n in bits) and 0 <= bits[0] <= 32 and 0 <= bits[1] <= 128
        ):
            raise XdpipeError(f"{stage}: {given}: prefixes have 0 to 32 and 0 to 128 bits")
        return _Part(
            name, lib.XP_KEY_ADDRESS, _ADDRESS, lambda data: {name: _prefix(data, *bits)},
            index, (name,), _mask(_MAPPED_BITS + bits[0]), _mask(bits[1]),
        )  # fmt: skip
    if column.text:
        return _Part(name, lib.XP_KEY_TEXT, text_size, lambda data: {name: _text(data)}, index,
                     (name,))  # fmt: skip
    show = _shower(column)
    return _Part(name, lib.XP_KEY_VALUE, _size(given), lambda data: {name: show(data)}, index,
                 (name,))  # fmt: skip


def _shower(column: Column) -> Callable[[bytes], Any]:
    """Return what makes a value of this column one that people read."""
    if column.dtype == np.uint8 and column.width == _ADDRESS:
        return _address
    if column.dtype == np.uint8 and column.width == _MAC:
        return lambda data: data.hex(":")
    if column.width > 1:
        return lambda data: np.frombuffer(data, column.dtype).tolist()
    names = {value: name for name, (value, _) in ENUMS.get(column.name, {}).items()}
    if column.name == "verdict":
        names = {int(verdict): verdict.name for verdict in Verdict}
    bits = all(value.bit_count() == 1 for value in names)

    def show(data: bytes) -> Any:
        value = np.frombuffer(data, column.dtype)[0].item()
        if not names or value in names:
            return names.get(value, value)
        if bits and value:
            return "|".join(name for bit, name in names.items() if value & bit)
        return value or None

    return show


def _mask(bits: int) -> int:
    return ((1 << bits) - 1) << (128 - bits)


def _address(data: bytes) -> str:
    address = ip_address(data)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _prefix(data: bytes, bits4: int, bits6: int) -> str:
    address = _address(data)
    return str(ip_network(f"{address}/{bits6 if ':' in address else bits4}"))


def _text(data: bytes) -> str:
    if data[0] == _TEXT_IS_LONG:
        return data[1:-_TEXT_HASH].decode("ascii", "backslashreplace") + "…"
    return data[1 : 1 + data[0]].decode("ascii", "backslashreplace")


def _decode_flow(data: bytes) -> dict[str, Any]:
    ports = np.frombuffer(data[32:36], np.uint16).tolist()
    ends = [_end(_address(data[16 * k : 16 * k + 16]), ports[k]) for k in (0, 1)]
    return {"flow": " - ".join(ends), "ip_proto": data[36]}


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
