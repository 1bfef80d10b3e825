"""Packets of which one field is bent, for each field of each layer in turn; and packets cut short.

Everything else stays as it is, and checksums follow, so that a receiver gets as far as to what is
bent. Where a checksum is what is bent, it is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpipe.traffic.anatomy import Anatomy, changed
from xdpipe.traffic.expression import packets
from xdpipe.traffic.field_kind import kind_of
from xdpipe.traffic.recipe import Ingredient

if TYPE_CHECKING:
    from collections.abc import Iterator

BASES = {
    "dns": 'IP()/UDP(sport=1024)/DNS(qd=DNSQR(qname="example.com"))',
    "tcp": 'IP()/TCP(sport=1024, dport=80, flags="PA", options=[("MSS", 1460)])/b"GET / HTTP/1.0"',
    "icmp": "IP()/ICMP()/bytes(16)",
    "udp6": "IPv6()/IPv6ExtHdrDestOpt()/UDP(sport=1024, dport=9)/bytes(16)",
    "icmp6": "IPv6()/ICMPv6EchoRequest()/bytes(16)",
    "vlan": "Dot1Q(vlan=7)/IP()/UDP(sport=1024, dport=9)/bytes(16)",
    "arp": "ARP()",
}
"""What is bent; a kind of layer only in the first of them that has it."""


def bent() -> Iterator[Ingredient]:
    """Yield the packets; a name says what is bent: `dns IP.len-1`, `tcp TCP.dataofs=max`."""
    seen: set[str] = set()
    for base, template in BASES.items():
        [packet] = packets(template)
        anatomy = Anatomy(packet)
        for number, layer in enumerate(anatomy.layers):
            kind = type(layer).__name__
            if kind in seen:
                continue
            seen.add(kind)
            for field in layer.fields_desc:
                for how, packet_bent in _bends(anatomy, number, field.name):
                    yield Ingredient(f"{base} {kind}.{field.name}{how}", [packet_bent])
        yield from _cuts(base, packet)


def _bends(anatomy: Anatomy, number: int, name: str) -> Iterator[tuple[str, Any]]:
    """Yield how a field can be bent, and the packet: to 0, to all ones, one more, one less."""
    from scapy.packet import Raw

    kind = kind_of(anatomy.layers[number], name)
    if kind is None or kind.what == "text":
        return
    top = (1 << kind.size) - 1
    place = anatomy.find(number, name, kind.size, kind.scapy(0), kind.scapy(top))
    above = 8 * place.at + place.skip if place else _bits_before(anatomy, number, name)
    below = 8 * len(anatomy.data) - above - kind.size
    now = int.from_bytes(anatomy.data) >> below & top
    used = {now}
    for how, value in (("=0", 0), ("=max", top), ("+1", now + 1), ("-1", now - 1)):
        if not 0 <= value <= top or value in used:
            continue
        used.add(value)
        if place:
            yield how, changed(anatomy.packet, {(number, name): kind.scapy(value)})
        else:
            bits = int.from_bytes(anatomy.data) ^ (now ^ value) << below
            yield how, Raw(bits.to_bytes(len(anatomy.data)))


def _bits_before(anatomy: Anatomy, number: int, name: str) -> int:
    """Return where a field begins by which scapy would build the others in another form (ARP's)."""
    layer = anatomy.layers[number]
    built: Any = b""
    for field in layer.fields_desc:
        if field.name == name:
            break
        built = field.addfield(layer, built, layer.getfieldval(field.name))
    done, bits = (built, 0) if isinstance(built, bytes) else built[:2]
    return 8 * (len(anatomy.data) - len(layer.build()) + len(done)) + int(bits)


def _cuts(base: str, packet: Any) -> Iterator[Ingredient]:
    """Yield the packet cut in the middle of each header behind Ethernet's, and of its payload."""
    from scapy.packet import Raw

    whole = bytes(packet)
    for layer in list(packet.iterpayloads())[1:]:
        size = len(layer.build())
        header = size - len(layer.payload.build())
        n = len(whole) - size + header // 2
        yield Ingredient(f"{base} cut in {type(layer).__name__}", [Raw(whole[:n])])
