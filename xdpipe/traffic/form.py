"""The form of a packet: a template of it, and from that, templates of packets of like form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError
from xdpipe.traffic.anatomy import fold
from xdpipe.traffic.template import Link, Place, Sum, Template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpipe.traffic.anatomy import Anatomy, Checksum
    from xdpipe.traffic.template import Varied

    Key = tuple[int, str]
    """A field: the number of its layer, and its name."""

_MOST_SUMS = 16
"""Checksums of a template: XP_CRAFT_SUMS."""
_WORD = 64


@dataclass(frozen=True)
class _Part:
    """A field whose place is known: of `size` bits, from bit `begin` of the packet on."""

    key: Key
    begin: int
    size: int
    zeros: Any
    ones: Any


@dataclass(frozen=True)
class Form:
    """A template of a packet, and what a packet of like form needs to be told of it.

    Attributes:
        template: of the packet.
        varied: fields that values are put into.
        parts: all fields whose places are known, in the packet's order.
    """

    template: Template
    varied: tuple[Varied, ...]
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, anatomy: Anatomy, varied: Sequence[Varied], *, grows: bool) -> Form | None:
        """Make a template of a packet.

        Args:
            anatomy: of the packet.
            varied: fields that values are put into.
            grows: it may be made longer.

        Returns:
            None: it cannot be told how a field, or a length, changes the packet.
        """
        if not (varied or grows):
            return cls(Template(anatomy.data, (), (), ()), (), ())
        checksums = anatomy.checksums
        if len(checksums) > _MOST_SUMS:
            raise XdpipeError(f"{len(checksums)} checksums in a packet; {_MOST_SUMS} are the most")
        still = _still(varied)
        parts = [_Part((c.number, c.name), 8 * c.at, 16, 0, 0xFFFF) for c in checksums]
        places: list[Place] = []
        for each in varied:
            key, zeros, ones = _ends(each)
            bits = anatomy.find(*key, each.size, zeros, ones)
            if bits is None or (bits.skip and bits.skip + bits.size > _WORD):
                return None
            found = _places(anatomy, each, 8 * bits.at + bits.skip, still)
            if found is None:
                return None
            places += found
            parts.append(_Part(key, 8 * bits.at + bits.skip, each.size, zeros, ones))
        lengths = anatomy.lengths if grows else {}
        if lengths is None:
            return None
        parts += [_Part(key, 8 * at, 16, 0, 0xFFFF) for key, at in lengths.items()]
        sums = []
        for checksum in checksums:
            key = checksum.number, checksum.name
            links = _links(anatomy, still, {key: 0}, {key: 1}, 1, but=checksum)
            weight = anatomy.grows_by(checksum) if grows else 0
            if links is None or weight is None:
                return None
            base = anatomy.value(checksum, still)
            sums.append(Sum(checksum.at, base, weight, checksum.never_zero, links))
        template = Template(anatomy.data, tuple(places), tuple(lengths.values()), tuple(sums))
        return cls(template, tuple(varied), tuple(sorted(parts, key=lambda part: part.begin)))

    def like(self, anatomy: Anatomy) -> Template | None:
        """Make a template of a packet that differs in a field of another length or the like.

        Its fields lie in the same order, and so are found all at once, in two builds.

        Returns:
            None: it is of another form.
        """
        if not self.parts:
            return Template(anatomy.data, (), (), ())
        low = anatomy.built({**anatomy.still, **{part.key: part.zeros for part in self.parts}})
        high = anatomy.built({**anatomy.still, **{part.key: part.ones for part in self.parts}})
        moved = self._moved(low, high)
        if moved is None:
            return None
        still = _still(self.varied)
        built = anatomy.built(still)
        ats = [each.at + moved[8 * each.at] for each in self.template.sums]
        sums: list[Sum] = []
        for number, (each, at) in enumerate(zip(self.template.sums, ats, strict=True)):
            if any((moved[8 * to] - at + each.at) & 1 for to in self.template.lengths):
                return None  # what its weight says is of other bytes
            total = 0xFFFF ^ int.from_bytes(built[at : at + 2])
            for inner in sums:
                for to, swapped in inner.links:
                    if to == number:
                        word = int.from_bytes(built[inner.at : inner.at + 2])
                        total += 0xFFFF - ((word >> 8 | (word & 0xFF) << 8) if swapped else word)
            total = fold(total)
            total = 0xFFFF if total == 0 and each.never_zero else total
            links = self._turned(each.links, each.at, at, ats)
            sums.append(replace(each, at=at, base=total, links=links))
        places = []
        for place in self.template.places:
            part = next(p for p in self.parts if p.key == self._key(place.variation))
            at = place.at + moved[part.begin]
            links = self._turned(place.links, place.at, at, ats)
            places.append(replace(place, at=at, links=links))
        lengths = tuple(at + moved[8 * at] for at in self.template.lengths)
        return Template(built, tuple(places), lengths, tuple(sums))

    def _key(self, variation: int) -> Key:
        return next((v.layer, v.name) for v in self.varied if v.variation == variation)

    def _moved(self, low: bytes, high: bytes) -> dict[int, int] | None:
        """Return by how many bytes each part has moved, by the bit that it began at."""
        if len(low) != len(high):
            return None
        n_bits = 8 * len(low)
        changed = int.from_bytes(low) ^ int.from_bytes(high)
        moved: dict[int, int] = {}
        at = 0
        for part in self.parts:
            left = changed & ((1 << (n_bits - at)) - 1)
            begin = n_bits - left.bit_length()
            end = begin + part.size
            ones = (1 << part.size) - 1
            if end > n_bits or left >> (n_bits - end) != ones or (begin - part.begin) % 8:
                return None
            moved[part.begin] = (begin - part.begin) // 8
            at = end
        return None if changed & ((1 << (n_bits - at)) - 1) else moved

    def _turned(
        self, links: Sequence[Link], was: int, at: int, ats: Sequence[int]
    ) -> tuple[Link, ...]:
        """Return links where what they are of, and the checksums, may have moved by odd bytes."""
        sums = self.template.sums
        return tuple(
            (number, bool(swapped ^ (at - was - ats[number] + sums[number].at) & 1))
            for number, swapped in links
        )


def _ends(varied: Varied) -> tuple[Key, Any, Any]:
    """Return the field, and its values of zeros and ones alone."""
    ones = (1 << varied.size) - 1
    return (varied.layer, varied.name), varied.scapy(0), varied.scapy(ones)


def _still(varied: Sequence[Varied]) -> dict[Key, Any]:
    """Return the fields with 0 in all bits that ever change."""
    return {(each.layer, each.name): each.scapy(each.rest) for each in varied}


def _places(
    anatomy: Anatomy, varied: Varied, begin: int, still: Mapping[Key, Any]
) -> list[Place] | None:
    """Return where each word of a value goes, in a field from bit `begin` of the packet on."""
    places: list[Place] = []
    at, skip = divmod(begin, 8)
    left = varied.size
    for word in range(-(-varied.size // _WORD)):
        n = min(left, _WORD)
        left -= n
        shift = _WORD - skip - n
        mask = (varied.moving >> left & ((1 << n) - 1)) << shift
        if mask == 0:
            continue
        lowest = mask & -mask
        if places and varied.kind.what == "text":
            links: tuple[Link, ...] | None = places[0].links
        else:
            other = varied.scapy(varied.rest | (lowest >> shift) << left)
            key = varied.layer, varied.name
            links = _links(anatomy, still, {}, {key: other}, fold(lowest))
        if links is None:
            return None
        places.append(Place(at + 8 * word, shift, mask, varied.variation, word, links))
    return places


def _links(
    anatomy: Anatomy,
    still: Mapping[Key, Any],
    one: Mapping[Key, Any],
    other: Mapping[Key, Any],
    change: int,
    but: Checksum | None = None,
) -> tuple[Link, ...] | None:
    """Find the checksums that follow a change; None: one does in a way that is not known."""
    links: list[Link] = []
    for number, checksum in enumerate(anatomy.checksums):
        if checksum is but:
            continue
        factor = anatomy.covers(checksum, {**still, **one}, {**still, **other}, change)
        if factor < 0:
            return None
        if factor and but is not None and number < anatomy.checksums.index(but):
            return None  # it would cover what is computed after it
        if factor:
            links.append((number, factor == 256))
    return tuple(links)
