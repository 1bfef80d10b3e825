"""Packets in tunnels, built byte by byte from the RFCs."""

import struct

from xdpipe.batch import ABSENT, Batch

MACS = bytes.fromhex("020000000001020000000002")
INNER_MACS = bytes.fromhex("0a00000000010a0000000002")
UDP, TCP, IPV4, IPV6, GRE = 17, 6, 4, 41, 47
VXLAN_PORT, GENEVE_PORT, GTPU_PORT = 4789, 6081, 2152
BRIDGED = 0x6558


def eth(kind: int, body: bytes, macs: bytes = MACS) -> bytes:
    return macs + struct.pack(">H", kind) + body


def ip4(proto: int, body: bytes, last: int = 1, fragment: int = 0) -> bytes:
    """IPv4 from 10.0.0.`last` to 10.0.1.`last`; no Ethernet before it."""
    head = struct.pack(">BBHHHBBH", 0x45, 4, 20 + len(body), 9, fragment, 60, proto, 0)
    return head + bytes([10, 0, 0, last, 10, 0, 1, last]) + body


def ip6(nh: int, body: bytes, last: int = 1) -> bytes:
    """IPv6 from fd00::`last` to fd00::1:`last`."""
    head = struct.pack(">IHBB", 6 << 28 | 5 << 20, len(body), nh, 61)
    return head + bytes([0xFD, *bytes(14), last]) + bytes([0xFD, *bytes(12), 1, 0, last]) + body


def udp(dport: int, body: bytes, sport: int = 50000, checksum: int = 0) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(body), checksum) + body


def tcp(dport: int, body: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", 50001, dport, 1, 2, 0x50, 0x18, 512, 0, 0) + body


def vxlan(vni: int, frame: bytes, flags: int = 8) -> bytes:
    return struct.pack(">II", flags << 24, vni << 8) + frame


def geneve(
    vni: int, kind: int, body: bytes, options: bytes = b"", version: int = 0, flags: int = 0
) -> bytes:
    first = version << 6 | len(options) // 4
    return struct.pack(">BBHI", first, flags, kind, vni << 8) + options + body


def gre(
    kind: int,
    body: bytes,
    key: int | None = None,
    sequence: int | None = None,
    checksum: int | None = None,
    flags: int = 0,
) -> bytes:
    fields = b""
    if checksum is not None:
        flags |= 0x8000
        fields += struct.pack(">HH", checksum, 0)
    if key is not None:
        flags |= 0x2000
        fields += struct.pack(">I", key)
    if sequence is not None:
        flags |= 0x1000
        fields += struct.pack(">I", sequence)
    return struct.pack(">HH", flags, kind) + fields + body


def erspan1(frame: bytes) -> bytes:
    return gre(0x88BE, frame)


def erspan2(session: int, frame: bytes, version: int = 1) -> bytes:
    head = struct.pack(">HHI", version << 12 | 99, 5 << 13 | session, 7)
    return gre(0x88BE, head + frame, sequence=3)


def erspan3(
    session: int, body: bytes, frame_type: int = 0, version: int = 2, more: bytes = b""
) -> bytes:
    last = frame_type << 10 | 3 << 4 | bool(more)
    head = struct.pack(">HHIHH", version << 12 | 99, session, 123456, 0, last)
    return gre(0x22EB, head + more + body, sequence=3)


def gtpu(
    teid: int,
    body: bytes,
    sequence: int | None = None,
    extensions: tuple[tuple[int, bytes], ...] = (),
    message: int = 255,
    first: int = 0x30,
) -> bytes:
    """GTP-U; an extension is its type and its content, of 4 n - 2 bytes."""
    optional = b""
    if sequence is not None or extensions:
        types = [kind for kind, _ in extensions] + [0]
        optional = struct.pack(">HBB", sequence or 0, 0, types[0])
        first |= (2 if sequence is not None else 0) | (4 if extensions else 0)
        for (_, content), following in zip(extensions, types[1:], strict=True):
            optional += bytes([(len(content) + 2) // 4]) + content + bytes([following])
    return struct.pack(">BBHI", first, message, len(optional) + len(body), teid) + optional + body


def over_udp(port: int, body: bytes, last: int = 1) -> bytes:
    return ip4(UDP, udp(port, body), last)


INNER_UDP = udp(53, b"0123456789", sport=5)
INNER4, INNER6 = ip4(UDP, INNER_UDP, last=7), ip6(TCP, tcp(80, b"data"), last=8)
FRAME = eth(0x0800, INNER4, INNER_MACS)
FRAME6 = eth(0x86DD, INNER6, INNER_MACS)
TAGGED = INNER_MACS + b"\x81\x00\x20\x05\x86\xdd" + INNER6
ARP = bytes.fromhex("0001080006040002") + bytes(range(20))
LABELS = struct.pack(">II", 17 << 12 | 64, 18 << 12 | 0x140)

# name: (what is behind the outer Ethernet: IPv4 unless a name says v6, kind, id, what lies within)
TUNNELS = {
    "vxlan": (over_udp(VXLAN_PORT, vxlan(0xABCDEF, FRAME)), "VXLAN", 0xABCDEF, FRAME),
    "vxlan, reserved bits": (
        over_udp(VXLAN_PORT, vxlan(5, TAGGED, flags=0xFF)), "VXLAN", 5, TAGGED),
    "vxlan v6": (ip6(UDP, udp(VXLAN_PORT, vxlan(1, FRAME6))), "VXLAN", 1, FRAME6),
    "vxlan arp": (over_udp(VXLAN_PORT, vxlan(1, eth(0x0806, ARP))), "VXLAN", 1, eth(0x0806, ARP)),
    "geneve": (over_udp(GENEVE_PORT, geneve(7, BRIDGED, FRAME)), "GENEVE", 7, FRAME),
    "geneve, options": (
        over_udp(GENEVE_PORT, geneve(0xFFFFFF, BRIDGED, TAGGED, bytes(252))),
        "GENEVE", 0xFFFFFF, TAGGED),
    "geneve ipv4": (
        over_udp(GENEVE_PORT, geneve(8, 0x0800, INNER4, bytes(4), flags=0x40)),
        "GENEVE", 8, INNER4),
    "geneve ipv6": (over_udp(GENEVE_PORT, geneve(8, 0x86DD, INNER6)), "GENEVE", 8, INNER6),
    "geneve arp": (over_udp(GENEVE_PORT, geneve(8, 0x0806, ARP)), "GENEVE", 8, ARP),
    "gre ipv4": (ip4(GRE, gre(0x0800, INNER4)), "GRE", 0, INNER4),
    "gre ipv6, key": (ip4(GRE, gre(0x86DD, INNER6, key=0xDEADBEEF)), "GRE", 0xDEADBEEF, INNER6),
    "gre ethernet": (ip4(GRE, gre(BRIDGED, FRAME, sequence=9)), "GRE", 0, FRAME),
    "gre, all fields": (
        ip4(GRE, gre(BRIDGED, TAGGED, key=3, sequence=9, checksum=0x1234)), "GRE", 3, TAGGED),
    "gre, ignored bits": (ip4(GRE, gre(0x0800, INNER4, flags=0x03F8)), "GRE", 0, INNER4),
    "gre v6": (ip6(GRE, gre(0x0800, INNER4, key=4)), "GRE", 4, INNER4),
    "gre mpls": (ip4(GRE, gre(0x8847, LABELS + INNER4)), "GRE", 0, LABELS + INNER4),
    "erspan I": (ip4(GRE, erspan1(FRAME)), "ERSPAN", 0, FRAME),
    "erspan II": (ip4(GRE, erspan2(1023, FRAME6)), "ERSPAN", 1023, FRAME6),
    "erspan III": (ip4(GRE, erspan3(513, TAGGED)), "ERSPAN", 513, TAGGED),
    "erspan III, more": (ip4(GRE, erspan3(5, FRAME, more=bytes(8))), "ERSPAN", 5, FRAME),
    "erspan III ipv4": (ip4(GRE, erspan3(5, INNER4, frame_type=2)), "ERSPAN", 5, INNER4),
    "erspan III ipv6": (ip4(GRE, erspan3(5, INNER6, frame_type=2)), "ERSPAN", 5, INNER6),
    "gtpu": (over_udp(GTPU_PORT, gtpu(0x12345678, INNER4)), "GTPU", 0x12345678, INNER4),
    "gtpu, sequence": (over_udp(GTPU_PORT, gtpu(9, INNER6, sequence=4)), "GTPU", 9, INNER6),
    "gtpu, extensions": (
        over_udp(GTPU_PORT, gtpu(9, INNER4, extensions=((0x85, b"\0\1"), (0xC0, bytes(6))))),
        "GTPU", 9, INNER4),
    "gtpu v6": (ip6(UDP, udp(GTPU_PORT, gtpu(9, INNER4))), "GTPU", 9, INNER4),
    "ipip": (ip4(IPV4, INNER4), "IPIP", 0, INNER4),
    "6in4": (ip4(IPV6, INNER6), "6IN4", 0, INNER6),
    "4in6 v6": (ip6(IPV4, INNER4), "4IN6", 0, INNER4),
    "6in6 v6": (ip6(IPV6, INNER6), "6IN6", 0, INNER6),
    "6in6 v6, limit": (ip6(60, bytes([IPV6, 0, 4, 1, 4, 1, 0, 0]) + INNER6), "6IN6", 0, INNER6),
}  # fmt: skip
"""A tunnel of each kind and form: IP behind the outer Ethernet, kind, id, what lies within."""


def whole(name: str) -> bytes:
    """Return a packet of TUNNELS with its outer Ethernet header."""
    return eth(0x86DD if " v6" in name else 0x0800, TUNNELS[name][0])


def kind_of(inner: bytes) -> int:
    """Return the EtherType of what lies within, BRIDGED for an Ethernet frame."""
    if inner.startswith(LABELS):
        return 0x8847
    if inner == ARP:
        return 0x0806
    if inner in (INNER4, INNER6):
        return 0x0800 if inner == INNER4 else 0x86DD
    return BRIDGED


def consistent(batch: Batch) -> None:
    """Check what must hold of every packet behind Headers and Decap, whatever its bytes."""
    tunnel = batch.has("TUNNEL")
    assert (tunnel == (batch.n_tunnels > 0)).all()
    assert (tunnel == (batch.inner != ABSENT)).all()
    assert (tunnel == (batch.outer_l3 != ABSENT)).all()
    assert ((batch.tunnels != 0).sum(1) == batch.n_tunnels).all()
    there = batch.payload != ABSENT
    assert (batch.payload_len >= 0).all()
    assert (batch.payload + batch.payload_len <= batch.len)[there].all()
    assert (there <= (batch.malformed == 0)).all()
    assert (batch.inner <= batch.len)[tunnel].all()
    assert ((batch.l3 >= batch.inner) | (batch.l3 == ABSENT))[tunnel].all()
    assert (batch.has("MALFORMED") == (batch.malformed != 0)).all()


def mended(packet: bytes, n: int, l3: int = 14) -> bytes:
    """Return a packet cut to n bytes, with the lengths of its outer IP and UDP put right."""
    made = bytearray(packet[:n])
    if made[l3] >> 4 == 4:
        struct.pack_into(">H", made, l3 + 2, n - l3)
        proto, l4 = made[l3 + 9], l3 + 20
    else:
        struct.pack_into(">H", made, l3 + 4, n - l3 - 40)
        proto, l4 = made[l3 + 6], l3 + 40
    if proto == UDP:
        struct.pack_into(">H", made, l4 + 4, n - l4)
    return bytes(made)
