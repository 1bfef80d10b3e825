"""Where in a packet that scapy builds the fields, checksums and lengths are.

All is found by building: a field is where the bytes differ when it is all zeros and when it is all
ones; a checksum covers it, from an even byte on or an odd one, if it changes by as much. So nothing
needs to be known of a protocol, and fields within fields (a question in DNS) are found, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Setting = Mapping[tuple[int, str], Any]
    """Values of fields, as scapy takes them, by number of the layer and name."""

_SUMS = ("chksum", "cksum", "checksum")
_PROBE = 3
"""Bytes by which a packet is made longer, to see which lengths follow."""
_MOST_LENGTHS = 64


@dataclass(frozen=True)
class Bits:
    """Where a value of a fixed size stands, most significant bit first.

    Attributes:
        at: the first byte that it has a bit in.
        skip: bits of that byte before it, 0 to 7.
        size: of the value; bits.
    """

    at: int
    skip: int
    size: int


@dataclass(frozen=True)
class Checksum:
    """A checksum that scapy computes.

    Attributes:
        number: of its layer.
        name: of the field.
        at: its first byte.
        never_zero: 0xffff stands for 0 (RFC 768).
    """

    number: int
    name: str
    at: int
    never_zero: bool


def fold(total: int) -> int:
    """Return a sum of 16-bit words in one's complement: 16 bits, 0 only if it is 0 (RFC 1071)."""
    return (total - 1) % 0xFFFF + 1 if total else 0


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2])


def layers(packet: Any) -> Iterator[Any]:
    """Yield all layers, and the packets that their fields hold, always in the same order."""
    from scapy.packet import Packet

    for layer in packet.iterpayloads():
        yield layer
        for field in layer.fields_desc:
            if not (field.holds_packets or field.islist):
                continue
            value = layer.getfieldval(field.name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Packet):
                    yield from layers(item)


def changed(packet: Any, setting: Setting, more: int = 0) -> Any:
    """Return a copy with fields set, and `more` zeros behind it, in the innermost payload."""
    from scapy.packet import Padding, Raw

    packet = packet.copy()
    packet.clear_cache()
    if setting:
        for number, layer in enumerate(layers(packet)):
            for (wanted, name), value in setting.items():
                if wanted == number:
                    layer.setfieldval(name, value)
    if more:
        last = packet.lastlayer()
        if isinstance(last, Padding):
            last.load += bytes(more)
        else:
            packet = packet / Raw(bytes(more))
    return packet


class Anatomy:
    """A scapy packet from Ethernet on.

    Attributes:
        packet: it; a copy that is built again and again.
        layers: all in it, by their numbers.
        data: as scapy builds it.
    """

    def __init__(self, packet: Any) -> None:
        self.packet = packet = packet.copy()
        packet.clear_cache()
        self.layers = list(layers(packet))
        for layer in self.layers:
            layer.explicit = (
                1  # no value is several: scapy need not look, which takes half its time
            )
        self.data = bytes(packet)
        self.still = {
            (number, field.name): 0
            for number, layer in enumerate(self.layers)
            for field in layer.fields_desc
            if field.name in _SUMS and layer.getfieldval(field.name) is None
        }
        """All checksums that scapy computes, held at 0 so that they do not move."""

    @cached_property
    def checksums(self) -> list[Checksum]:
        """The checksums that scapy computes, innermost first."""
        return list(self._checksums())

    def _checksums(self) -> Iterator[Checksum]:
        for number, name in reversed(list(self.still)):
            place = self.find(number, name, 16, 0, 0xFFFF)
            if place is not None and place.skip == 0:
                layer = type(self.layers[number]).__name__
                yield Checksum(number, name, place.at, never_zero=layer.startswith("UDP"))

    def built(self, setting: Setting, more: int = 0) -> bytes:
        """Return the packet as scapy builds it with fields set and `more` zeros behind."""
        if more:
            return bytes(changed(self.packet, setting, more))
        before = []
        try:
            for (number, name), value in setting.items():
                layer = self.layers[number]
                before.append((layer.fields, dict(layer.fields)))
                layer.fields[name] = layer.get_field(name).any2i(layer, value)
            return bytes(self.packet)
        finally:
            for fields, were in reversed(before):
                fields.clear()
                fields.update(were)

    def find(self, number: int, name: str, size: int, zeros: Any, ones: Any) -> Bits | None:
        """Return where a field stands.

        Args:
            number: of its layer.
            name: of the field.
            size: its bits.
            zeros: the value whose bits are all 0, as scapy takes it.
            ones: the value whose bits are all 1.

        Returns:
            None: it has no fixed place: other bytes change with it, or scapy refuses the values.
        """
        try:
            low = self.built({**self.still, (number, name): zeros})
            high = self.built({**self.still, (number, name): ones})
        except Exception:  # in scapy's many ways
            return None
        if not len(low) == len(high) == len(self.data):
            return None
        was, now = int.from_bytes(low), int.from_bytes(high)
        mask = was ^ now
        below = (mask & -mask).bit_length() - 1
        if mask == 0 or mask >> below != (1 << size) - 1 or was & mask:
            return None
        begin = 8 * len(low) - mask.bit_length()
        return Bits(begin // 8, begin % 8, size)

    def value(self, checksum: Checksum, setting: Setting, more: int = 0) -> int:
        """Return the sum that a checksum is made of, with the other checksums 0.

        Returns:
            16 bits, 0 only if all that it covers is 0.
        """
        still = {key: 0 for key in self.still if key != (checksum.number, checksum.name)}
        built = self.built({**still, **setting}, more)
        total = 0xFFFF ^ _u16(built, checksum.at)
        return 0xFFFF if total == 0 and checksum.never_zero else total

    def covers(self, checksum: Checksum, setting: Setting, other: Setting, change: int) -> int:
        """Tell whether a checksum follows a field.

        Args:
            checksum: which.
            setting: of the field and of others.
            other: the same, with another value of the field.
            change: by which the field's bytes change then, as words from its first byte on.

        Returns:
            1: it does; 256: it does, and the field begins at an odd byte of its words; 0: it does
            not; -1: it changes in another way.
        """
        was, now = self.value(checksum, setting), self.value(checksum, other)
        for factor in (0, 1, 256):
            if (was + factor * change - now) % 0xFFFF == 0:
                return factor
        return -1

    @cached_property
    def lengths(self) -> dict[tuple[int, str], int] | None:
        """Where the lengths of 16 bits stand that grow with the packet; None: it cannot grow."""
        try:
            now = self.built(self.still)
            longer = self.built(self.still, _PROBE)
        except Exception:
            return None
        if longer[len(now) :] != bytes(_PROBE):
            return None
        found: dict[tuple[int, str], int] = {}
        for number, layer in enumerate(self.layers):
            for field in layer.fields_desc:
                if field.name in _SUMS or layer.getfieldval(field.name) is not None:
                    continue
                place = self.find(number, field.name, 16, 0, 0xFFFF)
                if place is None or place.skip:
                    continue
                if _u16(longer, place.at) - _u16(now, place.at) == _PROBE:
                    found[number, field.name] = place.at
        for at in found.values():
            now = now[:at] + (_u16(now, at) + _PROBE).to_bytes(2) + now[at + 2 :]
        return found if now == longer[: len(now)] else None

    def grows_by(self, checksum: Checksum) -> int | None:
        """Return by what a checksum grows with each byte that the packet is longer.

        Lengths stand in it, and in its pseudo header: each adds 1, or 256 at an odd byte. None: in
        another way.
        """
        was = self.value(checksum, {})
        for high in range(_MOST_LENGTHS):
            for low in range(_MOST_LENGTHS):
                weight = low + 256 * high
                if all(
                    (was + weight * more - self._grown[checksum][more]) % 0xFFFF == 0
                    for more in (1, _PROBE)
                ):
                    return weight
        return None

    @cached_property
    def _grown(self) -> dict[Checksum, dict[int, int]]:
        return {
            checksum: {more: self.value(checksum, {}, more) for more in (1, _PROBE)}
            for checksum in self.checksums
        }
