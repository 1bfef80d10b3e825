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
                for how, setting in _bends(anatomy, number, field.name):
                    name = f"{base} {kind}.{field.name}{how}"
                    yield Ingredient(name, [changed(packet, setting)])
        yield from _cuts(base, packet)


def _bends(
    anatomy: Anatomy, number: int, name: str
) -> Iterator[tuple[str, dict[tuple[int, str], Any]]]:
    """Yield how a field can be bent: to 0, to all ones, one more, one less; each another value."""
    kind = kind_of(anatomy.layers[number], name)
    if kind is None or kind.what == "text":
        return
    top = (1 << kind.size) - 1
    place = anatomy.find(number, name, kind.size, kind.scapy(0), kind.scapy(top))
    if place is None:
        return
    below = 8 * len(anatomy.data) - 8 * place.at - place.skip - place.size
    now = int.from_bytes(anatomy.data) >> below & top
    used = {now}
    for how, value in (("=0", 0), ("=max", top), ("+1", now + 1), ("-1", now - 1)):
        if 0 <= value <= top and value not in used:
            used.add(value)
            yield how, {(number, name): kind.scapy(value)}


def _cuts(base: str, packet: Any) -> Iterator[Ingredient]:
    """Yield the packet cut in the middle of each header behind Ethernet's, and of its payload."""
    from scapy.packet import Raw

    whole = bytes(packet)
    for layer in list(packet.iterpayloads())[1:]:
        size = len(layer.build())
        header = size - len(layer.payload.build())
        n = len(whole) - size + header // 2
        yield Ingredient(f"{base} cut in {type(layer).__name__}", [Raw(whole[:n])])
