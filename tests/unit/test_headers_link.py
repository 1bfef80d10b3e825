"""Headers on what lies between Ethernet and IP, or beside it: ARP, LLC, SNAP, MPLS, PPPoE; IGMP."""

import struct

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3
from scapy.layers.ppp import PPP, PPPoE, PPPoED
from scapy.packet import Raw
from test_headers import BAD, KINDS, LAYERS, V4, V6, check, columns, eth, stack

from xdpipe.batch import ABSENT, MALFORMED, Batch
from xdpipe.stage import OWN
from xdpipe.stages import Headers

DATA = Raw(b"0123456789")
DOT3 = Dot3(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
ARPS = ARP(hwsrc="02:00:00:00:00:02", psrc="10.0.0.1", hwdst="02:00:00:00:00:01", pdst="10.0.0.2")
TAGS = {"none": [], "one": [Dot1Q(vlan=5)], "two": [Dot1AD(vlan=5), Dot1Q(vlan=6)]}


def dot3(*layers: object) -> bytes:
    packet = DOT3.copy()
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def snap(kind: int, body: bytes) -> bytes:
    return eth(8 + len(body), b"\xaa\xaa\x03\0\0\0" + struct.pack(">H", kind) + body)


# What carries IP, its size behind Ethernet, and what its columns say then.
CARRIERS = {
    "mpls": (lambda ip: [MPLS(label=1 << 19 | 5, s=0, ttl=9), MPLS(label=3, s=1), ip], 8,
             {"eth_type": 0x8847, "n_mpls": 2, "mpls_label": 1 << 19 | 5}, {"MPLS"}),
    "one label": (lambda ip: [MPLS(label=16, s=1), ip], 4,
                  {"eth_type": 0x8847, "n_mpls": 1, "mpls_label": 16}, {"MPLS"}),
    "pppoe": (lambda ip: [PPPoE(sessionid=0xABCD), PPP(), ip], 8,
              {"eth_type": 0x8864, "pppoe_session": 0xABCD}, {"PPPOE"}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "version"), KINDS)
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("tags", TAGS)
def test_ip_is_found_behind_what_carries_it(
    kind: str, version: int, carrier: str, tags: str
) -> None:
    layer, proto, size, fields = LAYERS[kind]
    make, behind, told, flags = CARRIERS[carrier]
    network, l3_size = (V4, 20) if version == 4 else (V6, 40)
    vlans = TAGS[tags]
    l3 = 14 + 4 * len(vlans) + behind
    packet = stack(*vlans, *make(network / layer / DATA))
    l4 = l3 + l3_size
    check(
        packet.ljust(120, b"\0"),
        ip_version=version, ip_proto=proto, src=network.src, dst=network.dst, l3=l3, l4=l4,
        payload=l4 + size, payload_len=10, malformed=0, n_vlans=len(vlans),
        flags={f"IPV{version}", kind.upper(), *flags, *(["VLAN"] if vlans else [])},
        **fields, **told,
    )  # fmt: skip
    plain = columns(stack(network, layer, DATA))
    assert columns(packet)["flow_hash"] == plain["flow_hash"]


@pytest.mark.parametrize("kind", [0x8847, 0x8848])
@pytest.mark.parametrize("n", range(1, 9))
def test_up_to_eight_labels_are_read_and_nothing_behind_more(kind: int, n: int) -> None:
    labels = b"".join(struct.pack(">I", label << 12 | 0x40) for label in range(17, 17 + n - 1))
    bottom = struct.pack(">I", (16 + n) << 12 | 0x140)
    ip = bytes(V4 / UDP(sport=5, dport=6))
    check(eth(kind, labels + bottom + ip), n_mpls=n, mpls_label=17, eth_type=kind, l4_sport=5,
          l3=14 + 4 * n, flags={"MPLS", "IPV4", "UDP"}, malformed=0)  # fmt: skip
    above = struct.pack(">I", 99 << 12) * (9 - n)
    check(eth(kind, above + labels + bottom + ip), n_mpls=8, mpls_label=99, ip_version=0,
          flags={"MPLS"}, l3=ABSENT, payload=ABSENT, malformed=0)  # fmt: skip


@pytest.mark.parametrize("first", [0x00, 0x10, 0x35, 0x55, 0x75, 0xF0])
def test_behind_mpls_only_the_version_says_ip(first: int) -> None:
    packet = stack(MPLS(label=16, s=1), Raw(bytes([first]) + bytes(59)))
    check(packet, n_mpls=1, mpls_label=16, flags={"MPLS"}, ip_version=0, l3=ABSENT, malformed=0)


def test_a_ppp_protocol_that_is_not_ip_is_left_alone() -> None:
    packet = stack(PPPoE(sessionid=5), Raw(b"\xc0\x21\x01\x01\x00\x04"))
    check(packet, pppoe_session=5, flags={"PPPOE"}, ip_version=0, l3=ABSENT, malformed=0)


def test_pppoe_discovery_is_flagged_and_no_more() -> None:
    check(stack(PPPoED(code=9)), eth_type=0x8863, flags={"PPPOE"}, pppoe_session=0, malformed=0)
    check(eth(0x8863, b""), eth_type=0x8863, flags={"PPPOE"}, malformed=0)


def test_pppoes_length_bounds_the_packet() -> None:
    ip = bytes(V4 / UDP(sport=5, dport=6) / DATA)
    for less in range(len(ip) + 1):
        body = struct.pack(">BBHHH", 0x11, 0, 7, 2 + len(ip) - less, 0x21) + ip
        reason = "IP4_SHORT" if len(ip) - less < 20 else "IP4_LEN" if less else None
        assert columns(eth(0x8864, body))["malformed"] == (MALFORMED[reason] if reason else 0)


@pytest.mark.parametrize("op", [1, 2, 0x1234])
def test_arp_tells_its_operation(op: int) -> None:
    arp = ARPS.copy()
    arp.op = op
    for packet in (stack(arp), stack(Dot1Q(vlan=5), arp), snap(0x0806, bytes(arp))):
        row = columns(packet.ljust(60, b"\0"))
        assert (row["eth_type"], row["arp_op"], row["malformed"]) == (0x0806, op, 0)
        assert "ARP" in row["flags"]
        assert (row["ip_version"], row["src"], row["l3"]) == (0, "::", ABSENT)


def test_arp_of_other_lengths_of_address_is_whole_when_all_of_them_are_there() -> None:
    head = struct.pack(">HHBBH", 1, 0x86DD, 3, 16, 1)
    check(eth(0x0806, head + bytes(38)), flags={"ARP"}, arp_op=1, malformed=0)
    check(eth(0x0806, head + bytes(37)), flags={"MALFORMED"}, arp_op=0,
          malformed=MALFORMED["ARP_SHORT"])  # fmt: skip


@pytest.mark.parametrize("kind", [0x11, 0x16, 0x17, 0x22])
def test_igmp_tells_its_type(kind: int) -> None:
    packet = stack(IP(src="10.0.0.1", dst="224.0.0.1", proto=2), Raw(bytes([kind]) + bytes(11)))
    check(packet, ip_proto=2, igmp_type=kind, flags={"IPV4", "IGMP"}, l4=34, payload=42,
          payload_len=4, malformed=0, icmp_type=0)  # fmt: skip


def test_igmp_is_of_ipv4() -> None:
    packet = stack(V6, Raw(b"\x11" + bytes(3)))
    check(packet[:20] + b"\x02" + packet[21:], ip_proto=2, flags={"IPV6"}, igmp_type=0, malformed=0)


LLCS = {
    "spanning tree": (dot3(LLC(dsap=0x42, ssap=0x42, ctrl=3), STP()), 38),
    "I frame": (dot3(Raw(b"\xf0\xf0\x00\x02data")), 8),
    "S frame": (dot3(Raw(b"\xf0\xf0\x01\x02")), 4),
    "shortest": (dot3(Raw(b"\x42\x42\x03")), 3),
    "half a SNAP": (dot3(Raw(b"\xaa\x42\x03")), 3),
}


@pytest.mark.parametrize("name", LLCS)
def test_a_length_below_1501_is_llc(name: str) -> None:
    packet, size = LLCS[name]
    check(packet.ljust(60, b"\0"), eth_type=size, flags={"LLC"}, ip_version=0, l3=ABSENT,
          malformed=0)  # fmt: skip


def test_llc_behind_a_tag_ends_by_its_length() -> None:
    llc = b"\x42\x42\x03" + bytes(35)
    packet = stack(Dot1Q(vlan=5, type=38), Raw(llc + b"trailer"))
    check(packet, eth_type=38, flags={"VLAN", "LLC"}, n_vlans=1, malformed=0)


def test_ipx_without_llc_is_no_llc() -> None:
    check(dot3(Raw(b"\xff\xff" + bytes(28))), eth_type=30, flags=set(), malformed=0)


@pytest.mark.parametrize("size", [1501, 1535, 1536])
def test_neither_a_length_nor_a_known_ethertype_is_left_alone(size: int) -> None:
    check(eth(size, bytes(46)), eth_type=size, flags=set(), malformed=0)
    check(eth(1500, b"\x42\x42\x03" + bytes(1497)), eth_type=1500, flags={"LLC"}, malformed=0)


@pytest.mark.parametrize(("kind", "version"), KINDS)
def test_snap_with_oui_0_goes_on_as_ethernet_would(kind: int, version: int) -> None:
    layer, proto, size, fields = LAYERS[kind]
    network, l3_size = (V4, 20) if version == 4 else (V6, 40)
    ip = bytes(network / layer / DATA)
    code = 0x0800 if version == 4 else 0x86DD
    l4 = 22 + l3_size
    check(snap(code, ip).ljust(120, b"\0"), eth_type=code, ip_version=version, ip_proto=proto,
          l3=22, l4=l4, payload=l4 + size, payload_len=10, malformed=0,
          flags={"LLC", "SNAP", f"IPV{version}", kind.upper()}, **fields)  # fmt: skip


def test_snap_may_have_tags_behind_it_two_in_all() -> None:
    ip = bytes(V4 / UDP(sport=5, dport=6))
    body = struct.pack(">HHHH", 7, 0x8100, 8, 0x0800) + ip
    check(snap(0x8100, body), n_vlans=2, vlan_tci=[7, 8], eth_type=0x0800, l3=30, malformed=0,
          flags={"LLC", "SNAP", "VLAN", "IPV4", "UDP"})  # fmt: skip
    packet = stack(Dot1Q(vlan=1), Dot1Q(vlan=2, type=8 + len(body)), Raw(snap(0x8100, body)[14:]))
    check(packet, n_vlans=2, vlan_tci=[1, 2], eth_type=0x8100, ip_version=0, malformed=0,
          flags={"LLC", "SNAP", "VLAN"})  # fmt: skip


def test_snap_of_another_oui_keeps_the_length() -> None:
    packet = dot3(
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3), SNAP(OUI=0x00000C, code=0x2000), Raw(bytes(30))
    )
    check(packet, eth_type=38, flags={"LLC", "SNAP"}, ip_version=0, malformed=0)


def test_a_length_behind_snap_is_no_second_llc() -> None:
    check(snap(20, b"\x42\x42\x03" + bytes(17)), eth_type=20, flags={"LLC", "SNAP"}, malformed=0)


def test_the_802_3_length_bounds_ip() -> None:
    ip = bytes(V4 / UDP(sport=5, dport=6) / DATA)
    packet = bytearray(snap(0x0800, ip + b"trailer"))
    packet[12:14] = struct.pack(">H", 8 + len(ip))
    check(bytes(packet), malformed=0, payload_len=10)
    packet[12:14] = struct.pack(">H", 8 + len(ip) - 1)
    check(bytes(packet), malformed=MALFORMED["IP4_LEN"], payload_len=0, ip_version=4)


def test_each_kind_has_its_counter() -> None:
    packets = {
        "arp": [stack(ARPS)] * 2,
        "igmp": [stack(IP(src="10.0.0.1", dst="10.0.0.2", proto=2), Raw(bytes(8)))] * 3,
        "mpls": [stack(MPLS(label=5, s=1), V4, UDP())] * 4,
        "pppoe": [stack(PPPoE(), PPP(), V6, UDP()), stack(PPPoED())],
        "llc": [snap(0x1234, b""), LLCS["S frame"][0]],
        "vlan": [stack(Dot1Q(vlan=5), V4, UDP())],
    }
    stage = Headers()
    counts = memoryview(bytearray(8 * (OWN + len(stage.counters)))).cast("Q")
    stage.bind(counts)
    batch = Batch(bytearray(1 << 16), 64)
    batch.load([packet for some in packets.values() for packet in some])
    stage.process(batch)
    told = {name: n for name, n in zip(stage.counters, counts[OWN:], strict=True) if n}
    assert told == {
        "ipv4": 3 + 4 + 1, "ipv6": 1, "other": 2 + 1 + 2, "udp": 4 + 1 + 1, "igmp": 3, "arp": 2,
        "vlan": 1, "mpls": 4, "pppoe": 2, "llc": 2, "snap": 1,
    }  # fmt: skip


@pytest.mark.parametrize("n", range(1, 10))
def test_a_row_has_nothing_of_the_packet_that_it_had_before(n: int) -> None:
    """The columns are used again, and not all of them are written for each packet."""
    batch = Batch(bytearray(1 << 16), 64)
    stage = Headers()
    rare = [packet for _, packet in BAD][:32] + [
        stack(*make(V4 / LAYERS["icmp"][0])) for make, *_ in CARRIERS.values()
    ]
    batch.load((rare * 2)[:64])
    stage.process(batch)
    common = [stack(V4, UDP(sport=1, dport=2)), stack(V6, UDP(sport=1, dport=2)), b""]
    batch.load((common * 20)[:n])
    stage.process(batch)
    fresh = [columns(packet) for packet in (common * 20)[:n]]
    for name in Headers.provides:
        if name not in ("flags", "src", "dst"):
            assert getattr(batch, name).tolist() == [row[name] for row in fresh], name
