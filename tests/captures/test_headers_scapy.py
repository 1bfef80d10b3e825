"""Headers against scapy, field by field, over all captures; and over every packet cut short.

What is compared, for each different Ethernet packet that xdpipe does not call malformed and scapy
dissects: EtherType, VLAN tags, MPLS labels, PPPoE session, LLC and SNAP, ARP operation, IP version,
protocol, ttl, tos, addresses, fragments, ports, TCP flags, ICMP type and code, IGMP type, payload.
DIFFERENCES has what is allowed to differ, and why; an entry that no packet needs is an error.
"""

import ctypes
import ctypes.util
import mmap
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import numpy as np
import pytest
from scapy.contrib.igmp import IGMP
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    _ICMPv6,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE, PPPoED
from scapy.packet import NoPayload, Packet, Padding

from xdpipe.batch import ABSENT, COLUMNS, FLAGS, MALFORMED, Batch
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers

REASONS = {value: name for name, value in MALFORMED.items()}
MOBILITY = 135
EXTENSIONS = (IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, AH)

DIFFERENCES: dict[str, str] = {
    "third tag": "scapy goes on through any number of VLAN tags; xdpipe reads two and tells the "
    "third by its EtherType",
    "mobility header": "RFC 6275 makes it an extension header, which xdpipe steps over; "
    "scapy takes it for the upper layer",
    "l4 of a first fragment": "scapy dissects no transport header in an IPv4 fragment; xdpipe "
    "gives the first one's, which is there",
}


def ethernet_packets(captures: Path) -> list[bytes]:
    """Return every different packet of the Ethernet captures."""
    packets: dict[bytes, None] = {}
    for path in sorted(path for path in captures.rglob("*") if path.is_file()):
        try:
            with CaptureReader(path) as reader:
                reader.require_ethernet()
                packets.update((packet.data, None) for packet in reader)
        except XdpipeError:
            continue  # another link type, or the licence
    return list(packets)


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    packets = ethernet_packets(captures)
    assert len(packets) > 10_000
    return packets


def parsed(packets: list[bytes]) -> Iterator[tuple[bytes, dict[str, object]]]:
    """Run Headers; yield each packet with its columns."""
    batch = Batch(mmap.mmap(-1, 8 << 20), 64)
    stage = Headers()
    for first in range(0, len(packets), 64):
        group = packets[first : first + 64]
        batch.load(group)
        stage.process(batch)
        columns = {name: getattr(batch, name).tolist() for name in COLUMNS}
        for i, packet in enumerate(group):
            yield packet, {name: column[i] for name, column in columns.items()}


def flags(row: dict[str, object]) -> set[str]:
    return {name for name, bit in FLAGS.items() if row["flags"] & bit}  # type: ignore[operator]


def from_scapy(packet: bytes) -> tuple[dict[str, object], set[str]]:
    """Return what scapy says, in the terms of the columns, and which differences apply."""
    excuses: set[str] = set()
    layer: Packet = Ether(packet)
    says: dict[str, object] = {"eth_type": layer.fields.get("type", layer.fields.get("len"))}
    says |= {"n_mpls": 0, "mpls_label": 0, "pppoe_session": 0, "arp_op": 0, "ip_version": 0}
    tags = []
    layer = layer.payload
    says |= {"LLC": isinstance(layer, LLC), "SNAP": False}
    if isinstance(layer, LLC) and isinstance(layer.payload, SNAP):
        layer = layer.payload
        says["SNAP"] = True
        if layer.OUI == 0:
            says["eth_type"] = layer.code
            layer = layer.payload
    while isinstance(layer, Dot1Q | Dot1AD):
        if len(tags) == 2:
            excuses.add("third tag")
            return {**says, "vlan_tci": tags, "n_vlans": 2, "ip_version": 0}, excuses
        tags.append(layer.prio << 13 | layer.dei << 12 | layer.vlan)
        says["eth_type"] = layer.type
        layer = layer.payload
    says |= {"vlan_tci": [*tags, 0, 0][:2], "n_vlans": len(tags)}
    labels = []
    while isinstance(layer, MPLS):
        labels.append(layer.label)
        layer = layer.payload
    says |= {"n_mpls": len(labels), "mpls_label": [*labels, 0][0]}
    says |= {"PPPOE": isinstance(layer, PPPoE | PPPoED)}
    if isinstance(layer, PPPoE):
        if not isinstance(layer, PPPoED):
            says["pppoe_session"] = layer.sessionid
        layer = layer.payload
        if isinstance(layer, PPP):
            layer = layer.payload
    if isinstance(layer, ARP):
        says["arp_op"] = layer.op
    if isinstance(layer, IP):
        says |= from_ipv4(layer, excuses)
    if isinstance(layer, IPv6):
        says |= from_ipv6(layer, excuses)
    return says, excuses


def from_ipv4(ip: IP, excuses: set[str]) -> dict[str, object]:
    says: dict[str, object] = {
        "ip_version": 4, "ip_proto": ip.proto, "ip_ttl": ip.ttl, "ip_tos": ip.tos,
        "src": list(b"\0" * 10 + b"\xff\xff" + IPv4Address(ip.src).packed),
        "dst": list(b"\0" * 10 + b"\xff\xff" + IPv4Address(ip.dst).packed),
        "FRAGMENT": bool(ip.flags.MF or ip.frag), "LATER_FRAGMENT": bool(ip.frag),
        "IP_OPTIONS": ip.ihl > 5,
    }  # fmt: skip
    if ip.flags.MF and not ip.frag and not isinstance(ip.payload, TCP | UDP | ICMP):
        excuses.add("l4 of a first fragment")
        return says
    return says | from_l4(ip.payload)


def from_ipv6(ip: IPv6, excuses: set[str]) -> dict[str, object]:
    says: dict[str, object] = {
        "ip_version": 6, "ip_ttl": ip.hlim, "ip_tos": ip.tc,
        "src": list(IPv6Address(ip.src).packed), "dst": list(IPv6Address(ip.dst).packed),
        "FRAGMENT": False, "LATER_FRAGMENT": False, "IP_OPTIONS": False,
    }  # fmt: skip
    layer: Packet = ip
    while isinstance(layer.payload, EXTENSIONS):
        layer = layer.payload
        says["IP_OPTIONS"] = True
        if isinstance(layer, IPv6ExtHdrFragment):
            says["FRAGMENT"] = bool(layer.m or layer.offset)
            says["LATER_FRAGMENT"] = bool(layer.offset)
    if layer.nh == MOBILITY:
        excuses.add("mobility header")
        del says["IP_OPTIONS"]
        return says
    says["ip_proto"] = layer.nh
    return says | from_l4(layer.payload)


def data_of(layer: Packet) -> bytes:
    if isinstance(layer.payload, NoPayload | Padding):
        return b""
    data: bytes = layer.payload.original
    return data


def from_l4(layer: Packet) -> dict[str, object]:
    if isinstance(layer, TCP):
        return {"l4_sport": layer.sport, "l4_dport": layer.dport,
                "tcp_flags": int(layer.flags) & 0xFF, "data": data_of(layer)}  # fmt: skip
    if isinstance(layer, UDP):
        return {"l4_sport": layer.sport, "l4_dport": layer.dport, "tcp_flags": 0,
                "data": data_of(layer)}  # fmt: skip
    if isinstance(layer, ICMP | _ICMPv6):
        return {"l4_sport": 0, "l4_dport": 0, "icmp_type": layer.type,
                "icmp_code": layer.fields.get("code", layer.original[1])}  # fmt: skip
    if isinstance(layer, IGMP):
        return {"igmp_type": layer.type}
    return {}


def test_headers_agree_with_scapy_on_every_packet(packets: list[bytes]) -> None:
    used: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    wrong = []
    for packet, row in parsed(packets):
        if row["malformed"]:
            continue
        says, excuses = from_scapy(packet)
        used.update(excuses)
        found = flags(row)
        start = row["payload"]
        if "data" in says:
            row["data"] = packet[start : start + row["payload_len"]]  # type: ignore[operator,index,misc]
        for name in ("FRAGMENT", "LATER_FRAGMENT", "IP_OPTIONS", "LLC", "SNAP", "PPPOE"):
            row[name] = name in found
        for name, value in says.items():
            compared[name] += 1
            if row[name] != value:
                wrong.append((name, value, row[name], packet.hex()))
    assert not wrong, f"{len(wrong)}: {wrong[:3]}"
    assert set(used) == set(DIFFERENCES), f"needed: {used}"
    assert compared["data"] > 7000
    assert min(compared[name] for name in ("icmp_type", "tcp_flags", "vlan_tci")) > 50


def contradiction(packet: bytes) -> str | None:
    """Say, without xdpipe's code, what a packet contradicts; None where nothing was found."""
    if len(packet) < 14:
        return "ETH_SHORT"
    at = 12
    while packet[at : at + 2] in (b"\x81\x00", b"\x88\xa8") and at < 20:
        at += 4
    if len(packet) < at + 2:
        return "VLAN_SHORT"
    return contradiction_behind(int.from_bytes(packet[at : at + 2], "big"), packet[at + 2 :])


def contradiction_behind(kind: int, rest: bytes) -> str | None:
    """The same for what an EtherType or a length says."""
    match kind:
        case 0x0800:
            return contradiction4(rest)
        case 0x86DD:
            return contradiction6(rest)
        case 0x0806:
            return "ARP_SHORT" if len(rest) < 8 + 2 * sum(rest[4:6]) else None
        case 0x8847 | 0x8848:
            return contradiction_mpls(rest)
        case 0x8864:
            return contradiction_pppoe(rest)
    if kind > 1500:
        return None
    if kind > len(rest):
        return "LLC_LEN"
    rest = rest[:kind]
    if rest[:2] == b"\xff\xff" and len(rest) > 2:
        return None
    if len(rest) < 3 or (len(rest) < 4 and rest[2] & 3 != 3):
        return "LLC_SHORT"
    if rest[:3] != b"\xaa\xaa\x03":
        return None
    if len(rest) < 8:
        return "LLC_SHORT"
    behind = int.from_bytes(rest[6:8], "big")
    return (
        contradiction_behind(behind, rest[8:]) if rest[3:6] == bytes(3) and behind > 1500 else None
    )


def contradiction_mpls(rest: bytes) -> str | None:
    for _ in range(8):
        label, rest = rest[:4], rest[4:]
        if len(label) < 4:
            return "MPLS_SHORT"
        if label[2] & 1:
            break
    else:
        return None if len(rest) >= 4 else "MPLS_SHORT"
    if not rest:
        return "MPLS_SHORT"
    version = rest[0] >> 4
    return contradiction4(rest) if version == 4 else contradiction6(rest) if version == 6 else None


def contradiction_pppoe(rest: bytes) -> str | None:
    if len(rest) < 6:
        return "PPPOE_SHORT"
    if rest[0] != 0x11:
        return "PPPOE_VERSION"
    if rest[1]:
        return "PPPOE_CODE"
    size = int.from_bytes(rest[4:6], "big")
    if not 2 <= size <= len(rest) - 6:
        return "PPPOE_LEN"
    kind, ppp = rest[6:8], rest[8 : 6 + size]
    if kind == b"\x00\x21":
        return contradiction4(ppp)
    return contradiction6(ppp) if kind == b"\x00\x57" else None


def contradiction4(ip: bytes) -> str | None:
    if len(ip) < 20:
        return "IP4_SHORT"
    size, total = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
    if ip[0] >> 4 != 4:
        return "IP4_VERSION"
    if not 20 <= size <= len(ip):
        return "IP4_IHL"
    if not size <= total <= len(ip):
        return "IP4_LEN"
    fragment = int.from_bytes(ip[6:8], "big") & 0x3FFF
    if fragment & 0x1FFF:
        return None
    return contradiction_l4(ip[9], ip[size:total], whole=not fragment)


def contradiction6(ip: bytes) -> str | None:
    if len(ip) < 40:
        return "IP6_SHORT"
    if ip[0] >> 4 != 6:
        return "IP6_VERSION"
    end = 40 + int.from_bytes(ip[4:6], "big")
    if end > len(ip):
        return "IP6_LEN"
    kind, rest, whole = ip[6], ip[40:end], True
    while kind in (0, 43, 44, 51, 60, 135, 139, 140):
        if len(rest) < 8:
            return "IP6_EXT"
        fragment = int.from_bytes(rest[2:4], "big") & 0xFFF9 if kind == 44 else 0
        if fragment & 0xFFF8:
            return None
        whole = whole and not fragment
        size = {44: 8, 51: (rest[1] + 2) * 4}.get(kind, (rest[1] + 1) * 8)
        if size > len(rest):
            return "IP6_EXT"
        kind, rest = rest[0], rest[size:]
    return contradiction_l4(kind, rest, whole=whole)


def contradiction_l4(proto: int, data: bytes, *, whole: bool) -> str | None:
    if proto == 6:
        if len(data) < 20:
            return "TCP_SHORT"
        return None if 20 <= (data[12] >> 4) * 4 <= len(data) else "TCP_OFFSET"
    if proto == 17:
        if len(data) < 8:
            return "UDP_SHORT"
        size = int.from_bytes(data[4:6], "big")
        return "UDP_LEN" if size < 8 or (whole and size > len(data)) else None
    return {1: "ICMP", 58: "ICMP", 2: "IGMP_SHORT"}.get(proto) if len(data) < 8 else None


def test_what_is_called_malformed_contradicts_itself_and_nothing_else_does(
    packets: list[bytes],
) -> None:
    reasons: Counter[str] = Counter()
    for packet, row in parsed(packets):
        found = contradiction(packet)
        reason = REASONS.get(row["malformed"])  # type: ignore[call-overload]
        if found == "ICMP":
            found = "ICMP_SHORT" if row["ip_version"] == 4 else "ICMP6_SHORT"
        assert reason == found, packet.hex()
        if reason:
            reasons[reason] += 1
    assert len(reasons) >= 8


CUTS = 160
PAGE = mmap.PAGESIZE


@pytest.fixture(scope="module")
def guarded() -> Batch:
    """Return a batch whose packet of n bytes ends at a page that nobody may touch."""
    memory = mmap.mmap(-1, 2 * PAGE * CUTS)
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for i in range(CUTS):
        page = ctypes.c_void_p(start + (2 * i + 1) * PAGE)
        assert libc.mprotect(page, ctypes.c_size_t(PAGE), 0) == 0
    batch = Batch(memory, CUTS)
    batch.place([(2 * i + 1) * PAGE - i for i in range(CUTS)], list(range(CUTS)))
    return batch


def test_a_packet_cut_at_any_length_is_read_no_further(
    packets: list[bytes], guarded: Batch
) -> None:
    """Each packet at all lengths from 0 to 159 at once: all headers of the captures lie within.

    Reading one byte beyond a packet is a segmentation fault. What is filled in must be what the
    uncut packet says.
    """
    prefixes = list(dict.fromkeys(packet[:CUTS] for packet in packets))
    pages = np.frombuffer(guarded.memory, np.uint8).reshape(CUTS, 2 * PAGE)
    stage = Headers()
    lens = np.arange(CUTS)
    n_malformed = 0
    for prefix in prefixes:
        for n in range(1, min(len(prefix), CUTS - 1) + 1):
            pages[n, PAGE - n : PAGE] = np.frombuffer(prefix, np.uint8, n)
        stage.process(guarded)
        there = (lens <= len(prefix)) & (guarded.ip_version != 0)
        n_malformed += int((guarded.malformed[: len(prefix)] != 0).sum())
        for name in ("ip_version", "ip_ttl", "ip_tos", "src", "dst", "l3", "eth_type"):
            column = getattr(guarded, name)[there]
            assert (column == column[-1:]).all(), (name, prefix.hex())
        ends = guarded.payload.astype(np.int64) + guarded.payload_len
        assert ((ends <= guarded.len) | (guarded.payload == ABSENT)).all(), prefix.hex()
    assert n_malformed > 100_000
