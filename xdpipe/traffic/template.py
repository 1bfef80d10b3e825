"""A template: a packet's bytes, where in them values go, and how checksums follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpipe.traffic.anatomy import fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpipe.traffic.field_kind import FieldKind
    from xdpipe.traffic.variation import Values

_WORD = 64

Link = tuple[int, bool]
"""A checksum by its place in `Template.sums`, and whether a value adds to it with its bytes
swapped."""


@dataclass(frozen=True)
class Place:
    """Where one word of a variation's value goes, in the 8 bytes from `at` on, big-endian.

    Attributes:
        at: the first of them.
        shift: bits below the value.
        mask: of the bits that the value is put into.
        variation: number of the variation.
        word: which of its value's words of 64 bits, from the top.
        links: the checksums that it adds to.
    """

    at: int
    shift: int
    mask: int
    variation: int
    word: int
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Sum:
    """A checksum, and what it is made of.

    Attributes:
        at: where it stands.
        base: the sum of what never changes, 16 bits.
        weight: what each byte adds by which the packet grows.
        never_zero: 0xffff stands for 0.
        links: the outer checksums that cover it.
    """

    at: int
    base: int
    weight: int
    never_zero: bool
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Template:
    """A packet to make others of.

    Attributes:
        data: its bytes.
        places: where values go.
        lengths: where lengths of 16 bits stand that grow with it.
        sums: its checksums, inner ones before the outer ones.
    """

    data: bytes
    places: tuple[Place, ...]
    lengths: tuple[int, ...]
    sums: tuple[Sum, ...]

    def fill(self, values: Mapping[int, Sequence[int]], more: int = 0) -> bytes:
        """Return a packet, as core/traffic/craft.c makes it; to try a template.

        Args:
            values: the words of each variation's value.
            more: zeros behind it.
        """
        out = bytearray(self.data + bytes(more + 8))
        totals = [each.base + each.weight * more for each in self.sums]
        for place in self.places:
            bits = values[place.variation][place.word] << place.shift & place.mask
            now = int.from_bytes(out[place.at : place.at + 8]) & ~place.mask
            out[place.at : place.at + 8] = (now | bits).to_bytes(8)
            _add(totals, place.links, fold(bits))
        for at in self.lengths:
            length = int.from_bytes(self.data[at : at + 2]) + more
            out[at : at + 2] = (length & 0xFFFF).to_bytes(2)
        for each, total in zip(self.sums, totals, strict=True):
            checksum = 0xFFFF ^ fold(total)
            checksum = 0xFFFF if checksum == 0 and each.never_zero else checksum
            out[each.at : each.at + 2] = checksum.to_bytes(2)
            _add(totals, each.links, checksum)
        return bytes(out[: len(self.data) + more])


def _add(totals: list[int], links: Sequence[Link], word: int) -> None:
    for number, swapped in links:
        totals[number] += (word >> 8 | (word & 0xFF) << 8) if swapped else word


@dataclass
class Varied:
    """A field of a packet that a variation changes.

    Attributes:
        variation: its number.
        layer: the number of the field's layer.
        name: of the field.
        kind: of the field.
        values: that it goes through.
    """

    variation: int
    layer: int
    name: str
    kind: FieldKind
    values: Values

    @property
    def size(self) -> int:
        """Bits of a value; of texts that differ in length those of the first."""
        if self.kind.size:
            return self.kind.size
        if self.values.noise:
            return 8 * len(self.kind.layer.getfieldval(self.name))
        return 8 * len(self.first)  # type: ignore[arg-type]

    @property
    def first(self) -> int | bytes:
        """The first value; of bits at random 0."""
        if self.values.noise and not self.kind.size:
            return bytes(self.size // 8)
        return self.values[0]

    @property
    def moving(self) -> int:
        """The bits that ever change: all, but of a range within 2^64 the last 64 of an address."""
        if self.size <= _WORD or self.values.items or self.kind.what == "text":
            return (1 << self.size) - 1
        if self.values.noise:
            return self.values.n - 1
        return (1 << _WORD) - 1

    def words(self, value: int | bytes) -> list[int]:
        """Return a value as words of 64 bits, from the top; the last one may be shorter."""
        number = int.from_bytes(value) if isinstance(value, bytes) else value
        left = self.size
        out = []
        while left > 0:
            n = min(left, _WORD)
            left -= n
            out.append(number >> left & ((1 << n) - 1))
        return out

    def scapy(self, number: int) -> Any:
        """Return a value that is given by its bits, as scapy takes it."""
        if self.kind.what == "text":
            return number.to_bytes(self.size // 8)
        return self.kind.scapy(number)

    @property
    def rest(self) -> int:
        """The first value without the bits that change."""
        first = self.first
        number = int.from_bytes(first) if isinstance(first, bytes) else first
        return number & ~self.moving
