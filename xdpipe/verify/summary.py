"""A packet in half a line: who to whom, by which protocol."""

from __future__ import annotations

from ipaddress import IPv6Address

from xdpipe.batch import HEADROOM, Batch
from xdpipe.stages import Headers

_PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMP6", "IGMP", "ARP")
"""Names of flags."""


def summary(packet: bytes) -> str:
    """Return ends, protocol and length, such as `10.0.0.1:7 > 10.0.0.2:9 UDP, 60 bytes`.

    For people: costs some 50 us. What is no IP is shown by MAC addresses and type.
    """
    batch = Batch(bytearray(HEADROOM + len(packet) + 64), 1)
    batch.load([packet])
    Headers().process(batch)
    kind = next((name for name in _PROTOCOLS if _has(batch, name)), None)
    if _has(batch, "IPV4") or _has(batch, "IPV6"):
        has_ports = kind in ("TCP", "UDP") and not _has(batch, "LATER_FRAGMENT")
        ends = [
            _end(address.tobytes(), int(port) if has_ports else None)
            for address, port in (
                (batch.src[0], batch.l4_sport[0]), (batch.dst[0], batch.l4_dport[0])
            )
        ]  # fmt: skip
        kind = kind or f"protocol {batch.ip_proto[0]}"
    elif len(packet) >= 14:
        ends = [packet[6:12].hex(":"), packet[:6].hex(":")]
        kind = kind or f"type {int(batch.eth_type[0]):#06x}"
    else:
        return f"{len(packet)} bytes, no whole Ethernet header"
    return f"{' > '.join(ends)} {kind}, {len(packet)} bytes"


def _has(batch: Batch, flag: str) -> bool:
    return bool(batch.has(flag)[0])


def _end(address: bytes, port: int | None) -> str:
    ip = IPv6Address(address)
    text = str(ip.ipv4_mapped or ip)
    if port is None:
        return text
    return f"{text}:{port}" if ip.ipv4_mapped else f"[{text}]:{port}"
