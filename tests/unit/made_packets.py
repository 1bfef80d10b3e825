"""Packets of many kinds made by scapy, with addresses and ports that are told."""

from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    HAO,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

WAS = {
    "eth_src": "02:00:00:00:00:02", "eth_dst": "02:00:00:00:00:01",
    "src4": "192.0.2.1", "dst4": "198.51.100.2",
    "src6": "2001:db8::1", "dst6": "2001:db8:ffff::2",
    "sport": 1000, "dport": 53,
}  # fmt: skip
NEW = {
    "eth_src": "02:00:00:00:0a:0b", "eth_dst": "02:ff:00:00:0c:0d",
    "src4": "10.255.0.7", "dst4": "203.0.113.255",
    "src6": "fd00:1:2:3:4:5:6:7", "dst6": "fd00:ffff:0:0:ffff::",
    "sport": 65535, "dport": 0,
}  # fmt: skip
PAYLOAD = bytes(range(1, 100))


def ether(v: dict[str, Any]) -> Packet:
    return Ether(src=v["eth_src"], dst=v["eth_dst"])


def ip4(v: dict[str, Any], **more: Any) -> Packet:
    return IP(src=v["src4"], dst=v["dst4"], **more)


def ip6(v: dict[str, Any], **more: Any) -> Packet:
    return IPv6(src=v["src6"], dst=v["dst6"], **more)


def udp(v: dict[str, Any], **more: Any) -> Packet:
    return UDP(sport=v["sport"], dport=v["dport"], **more)


def tcp(v: dict[str, Any]) -> Packet:
    return TCP(sport=v["sport"], dport=v["dport"], options=[("MSS", 1460)])


def fragments4(v: dict[str, Any]) -> list[Packet]:
    return [ether(v) / piece for piece in fragment(ip4(v, id=7) / udp(v) / Raw(PAYLOAD), 48)]


def fragments6(v: dict[str, Any]) -> list[Packet]:
    whole = ip6(v) / IPv6ExtHdrFragment(id=7) / udp(v) / Raw(PAYLOAD * 20)
    return [ether(v) / piece for piece in fragment6(whole, 1280)]


def route4(v: dict[str, Any]) -> Packet:
    option = IPOption_LSRR(routers=["10.1.1.1", "10.2.2.2"], pointer=4)
    return ether(v) / ip4(v, options=[option, IPOption_NOP()]) / udp(v) / PAYLOAD


def route6(v: dict[str, Any], left: int) -> Packet:
    routing = IPv6ExtHdrRouting(type=0, segleft=left, addresses=["2001:db8::a", "2001:db8::b"])
    return ether(v) / ip6(v) / routing / tcp(v) / PAYLOAD


def home6(v: dict[str, Any]) -> Packet:
    options = IPv6ExtHdrDestOpt(options=[HAO(hoa="2001:db8::abcd")])
    return ether(v) / ip6(v) / options / udp(v) / PAYLOAD


KINDS: dict[str, Any] = {
    "IPv4 TCP": lambda v: ether(v) / ip4(v) / tcp(v) / PAYLOAD,
    "IPv4 UDP": lambda v: ether(v) / ip4(v) / udp(v) / PAYLOAD,
    "IPv4 UDP, odd": lambda v: ether(v) / ip4(v) / udp(v) / PAYLOAD[:-1],
    "IPv4 UDP, padded": lambda v: Raw(raw(ether(v) / ip4(v) / udp(v) / b"abc") + b"\xff" * 15),
    "IPv4 UDP without checksum": lambda v: ether(v) / ip4(v) / udp(v, chksum=0) / PAYLOAD,
    "IPv4 ICMP": lambda v: ether(v) / ip4(v) / ICMP(id=7, seq=9) / PAYLOAD,
    "IPv4 options": lambda v: ether(v) / ip4(v, options=[IPOption_NOP()] * 4) / tcp(v) / PAYLOAD,
    "IPv4 with a way to go": route4,
    "IPv4, another protocol": lambda v: ether(v) / ip4(v, proto=253) / PAYLOAD,
    "IPv4 first fragment": lambda v: fragments4(v)[0],
    "IPv4 later fragment": lambda v: fragments4(v)[1],
    "IPv6 TCP": lambda v: ether(v) / ip6(v) / tcp(v) / PAYLOAD,
    "IPv6 UDP": lambda v: ether(v) / ip6(v) / udp(v) / PAYLOAD,
    "IPv6 UDP without checksum": lambda v: ether(v) / ip6(v) / udp(v, chksum=0) / PAYLOAD,
    "IPv6 ICMPv6": lambda v: ether(v) / ip6(v) / ICMPv6EchoRequest(id=7, data=PAYLOAD),
    "IPv6 options": lambda v: ether(v) / ip6(v) / IPv6ExtHdrHopByHop() / udp(v) / PAYLOAD,
    "IPv6 with a way to go": lambda v: route6(v, 2),
    "IPv6 at the end of its way": lambda v: route6(v, 0),
    "IPv6 away from home": home6,
    "IPv6 first fragment": lambda v: fragments6(v)[0],
    "IPv6 later fragment": lambda v: fragments6(v)[1],
    "VLAN": lambda v: ether(v) / Dot1Q(vlan=5) / ip4(v) / udp(v) / PAYLOAD,
    "two tags": lambda v: ether(v) / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip6(v) / tcp(v) / PAYLOAD,
    "ARP": lambda v: ether(v) / ARP(hwsrc="02:00:00:00:00:02", psrc="192.0.2.1"),
}  # fmt: skip


MALFORMED = {
    "ends within IPv4": raw(KINDS["IPv4 UDP"](WAS))[:33],
    "ends within UDP": raw(KINDS["IPv4 UDP"](WAS))[:40],
    "longer than what is there": raw(KINDS["IPv4 UDP"](WAS))[:60],
    "ends within IPv6": raw(KINDS["IPv6 UDP"](WAS))[:50],
    "not of its version": raw(ether(WAS))[:12] + b"\x08\0\x60" + raw(ip4(WAS) / udp(WAS))[1:],
    "a tag without a type": raw(ether(WAS))[:12] + b"\x81\x00\x00\x05",
    "no Ethernet header": b"\x02" * 13,
    "nothing": b"",
}


def with_filler(packet: Packet, layer: type[Packet], target: int) -> Packet:
    """Return the packet with its last two bytes, at an even offset, such that a checksum is so."""
    data = bytearray(raw(packet))
    data[-2:] = b"\0\0"
    zeroed = Ether(bytes(data))
    del zeroed[layer].chksum
    checksum = Ether(raw(zeroed))[layer].chksum
    filler = (checksum - target) % 0xFFFF  # the sum grows by it, and the checksum falls
    data[-2:] = filler.to_bytes(2, "big")
    filled = Ether(bytes(data))
    del filled[layer].chksum
    return filled


def partial(packet: Packet) -> bytes:
    """Return the packet as it comes from a sender that leaves the checksum to the link."""
    layer = TCP if TCP in packet else UDP
    data = bytearray(raw(packet))
    probe = packet.copy()
    del probe[layer].chksum
    built = Ether(raw(probe))
    ip = built[IP] if IP in built else built[IPv6]
    length = len(raw(built[layer]))
    words = [int.from_bytes(raw(ip)[k : k + 2], "big")
             for k in (range(12, 20, 2) if IP in built else range(8, 40, 2))]  # fmt: skip
    total = sum(words) + length + (6 if layer is TCP else 17)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = len(data) - length + (16 if layer is TCP else 6)
    data[at : at + 2] = total.to_bytes(2, "big")
    return bytes(data)
