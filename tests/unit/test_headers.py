"""Headers on crafted packets: what each column says, and each way to be malformed."""

import itertools
import struct
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from xdpipe.batch import ABSENT, FLAGS, MALFORMED, Batch
from xdpipe.chain import Chain
from xdpipe.stage import OWN, PACKETS
from xdpipe.stages import Headers

# With both addresses: scapy would ask the network for a missing one.
ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
V4 = IP(src="10.0.0.1", dst="10.0.0.2", ttl=61, tos=0x28)
V6 = IPv6(src="fd00::1", dst="fd00::2", hlim=62, tc=0x2C)
DATA = Raw(b"0123456789")


def columns(packet: bytes) -> dict[str, object]:
    """Return a packet's columns, with flags as a set of names and addresses as text."""
    batch = Batch(bytearray(1 << 17), 1)
    batch.load([packet])
    Headers().process(batch)
    row = {name: getattr(batch, name)[0].tolist() for name in Headers.provides}
    row["flags"] = {name for name, bit in FLAGS.items() if row["flags"] & bit}
    for name in ("src", "dst"):
        address = ip_address(bytes(row[name]))
        row[name] = str(getattr(address, "ipv4_mapped", None) or address)
    return row


def check(packet: bytes, **expected: object) -> None:
    row = columns(packet)
    assert {name: row[name] for name in expected} == expected


LAYERS = {
    "tcp": (TCP(sport=1000, dport=80, flags="SA", options=[("MSS", 1460)]), 6, 24,
            {"l4_sport": 1000, "l4_dport": 80, "tcp_flags": 0x12}),
    "udp": (UDP(sport=1000, dport=53), 17, 8, {"l4_sport": 1000, "l4_dport": 53, "tcp_flags": 0}),
    "icmp": (ICMP(type=8, code=3), 1, 8, {"icmp_type": 8, "icmp_code": 3, "l4_sport": 0}),
    "icmp6": (ICMPv6EchoRequest(code=5), 58, 8, {"icmp_type": 128, "icmp_code": 5}),
}  # fmt: skip
KINDS = [("tcp", 4), ("udp", 4), ("icmp", 4), ("tcp", 6), ("udp", 6), ("icmp6", 6)]
TAGS = {
    "none": ([], [0, 0]),
    "802.1Q": ([Dot1Q(vlan=42, prio=5)], [5 << 13 | 42, 0]),
    "802.1ad": ([Dot1AD(vlan=7)], [7, 0]),
    "QinQ": ([Dot1AD(vlan=7), Dot1Q(vlan=42, dei=1)], [7, 1 << 12 | 42]),
}


def stack(*layers: object) -> bytes:
    packet = ETHER.copy()
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


@pytest.mark.parametrize(("kind", "version"), KINDS)
@pytest.mark.parametrize("tags", TAGS)
def test_each_layer_fills_its_columns(kind: str, version: int, tags: str) -> None:
    layer, proto, size, fields = LAYERS[kind]
    vlans, tci = TAGS[tags]
    network, l3_size = (V4, 20) if version == 4 else (V6, 40)
    l3 = 14 + 4 * len(vlans)
    present = {f"IPV{version}", kind.upper()} | ({"VLAN"} if vlans else set())
    check(
        stack(*vlans, network, layer, DATA),
        eth_type=0x0800 if version == 4 else 0x86DD, n_vlans=len(vlans), vlan_tci=tci,
        ip_version=version, ip_proto=proto, ip_ttl=61 if version == 4 else 62,
        ip_tos=0x28 if version == 4 else 0x2C, src=network.src, dst=network.dst, l3=l3,
        l4=l3 + l3_size, payload=l3 + l3_size + size, payload_len=10, flags=present, malformed=0,
        **fields,
    )  # fmt: skip


def test_ethernet_padding_is_no_payload() -> None:
    packet = stack(V4, UDP(sport=1, dport=2), Raw(b"ab")).ljust(60, b"\0")
    check(packet, payload=42, payload_len=2)
    check(stack(V4, TCP(sport=1, dport=2)).ljust(60, b"\0"), payload=54, payload_len=0)


def test_a_third_tag_is_told_by_its_ethertype() -> None:
    packet = stack(Dot1AD(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3), V4, UDP())
    check(packet, n_vlans=2, vlan_tci=[1, 2], eth_type=0x8100, ip_version=0, malformed=0,
          flags={"VLAN"}, l3=ABSENT, payload=ABSENT)  # fmt: skip


def test_what_is_not_ip_is_told_by_its_ethertype() -> None:
    arp = bytes(ETHER / ARP(hwsrc="02:00:00:00:00:02", psrc="10.0.0.1", pdst="10.0.0.2"))
    check(arp, eth_type=0x0806, ip_version=0, l3=ABSENT, l4=ABSENT, flags={"ARP"}, malformed=0,
          arp_op=1, src="::", dst="::", flow_hash=0)  # fmt: skip
    check(altered(arp, 12, b"\x12\x34"), eth_type=0x1234, flags=set(), malformed=0, arp_op=0)


def test_another_protocol_has_its_header_at_l4_and_no_ports() -> None:
    check(stack(IP(src="10.0.0.1", dst="10.0.0.2", proto=47), DATA), ip_proto=47, l4=34,
          payload=34, payload_len=10, l4_sport=0, l4_dport=0, flags={"IPV4"})  # fmt: skip


def test_ipv4_options_are_stepped_over() -> None:
    network = IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_NOP()] * 8)
    check(stack(network, UDP(sport=5, dport=6), DATA), l4=42, payload=50, l4_sport=5,
          flags={"IPV4", "IP_OPTIONS", "UDP"})  # fmt: skip


EXTENSIONS = {
    "hop by hop": IPv6ExtHdrHopByHop(),
    "routing": IPv6ExtHdrRouting(addresses=["fd00::9"]),
    "destination": IPv6ExtHdrDestOpt(),
    "authentication": AH(nh=17, payloadlen=4, spi=1, seq=2, icv=b"\0" * 12),
    "mobility": None,
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_ipv6_extension_headers_are_stepped_over(name: str) -> None:
    if name == "mobility":
        udp = struct.pack(">HHHH", 5, 6, 18, 0) + b"0123456789"
        body = bytes([17, 1, 0, 0]) + bytes(12) + udp
        packet = stack(IPv6(src="fd00::1", dst="fd00::2", nh=135), Raw(body))
        size = 16
    else:
        extension = EXTENSIONS[name]
        packet = stack(V6, extension, UDP(sport=5, dport=6), DATA)
        size = len(packet) - len(stack(V6, UDP(), DATA))
    check(packet, ip_proto=17, l4=54 + size, payload=62 + size, payload_len=10, l4_sport=5,
          l4_dport=6, flags={"IPV6", "IP_OPTIONS", "UDP"}, malformed=0)  # fmt: skip


def test_sixteen_extension_headers_are_read_and_seventeen_are_malformed() -> None:
    udp = UDP(sport=5, dport=6)
    check(stack(V6, *[IPv6ExtHdrDestOpt()] * 16, udp), l4=54 + 128, malformed=0)
    check(stack(V6, *[IPv6ExtHdrDestOpt()] * 17, udp), l4=ABSENT, malformed=MALFORMED["IP6_EXT"])


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_are_flagged_and_only_the_first_has_ports(version: int) -> None:
    udp = struct.pack(">HHHH", 5, 6, 3008, 0)
    if version == 4:
        first = stack(IP(src="10.0.0.1", dst="10.0.0.2", proto=17, flags="MF"), Raw(udp + bytes(8)))
        later = stack(IP(src="10.0.0.1", dst="10.0.0.2", proto=17, frag=2), Raw(udp))
        at, options = 34, set()
    else:
        first = stack(V6, IPv6ExtHdrFragment(nh=17, m=1), Raw(udp + bytes(8)))
        later = stack(V6, IPv6ExtHdrFragment(nh=17, offset=2), Raw(udp))
        at, options = 62, {"IP_OPTIONS"}
    family = {f"IPV{version}", "FRAGMENT"} | options
    check(first, flags=family | {"UDP"}, l4_sport=5, l4_dport=6, l4=at, payload=at + 8,
          payload_len=8, ip_proto=17, malformed=0)  # fmt: skip
    check(later, flags=family | {"LATER_FRAGMENT"}, l4_sport=0, l4_dport=0, l4=ABSENT, payload=at,
          payload_len=8, ip_proto=17, malformed=0)  # fmt: skip
    assert columns(first)["flow_hash"] == columns(later)["flow_hash"]


def test_fragments_with_options_behind_the_fragment_header_share_a_flow_hash() -> None:
    options = b"\x11\x00" + bytes(6)  # to UDP; the later fragments do not have them
    udp = struct.pack(">HHHH", 5, 6, 3008, 0) + bytes(8)
    first = stack(V6, IPv6ExtHdrFragment(nh=60, m=1), Raw(options + udp))
    later = stack(V6, IPv6ExtHdrFragment(nh=60, offset=3), Raw(bytes(8)))
    assert columns(first)["l4_sport"] == 5
    assert columns(first)["flow_hash"] == columns(later)["flow_hash"]


def test_an_atomic_fragment_is_a_whole_datagram() -> None:
    packet = stack(V6, IPv6ExtHdrFragment(), UDP(sport=5, dport=6), DATA)
    check(packet, flags={"IPV6", "IP_OPTIONS", "UDP"}, l4_sport=5, payload_len=10)


def test_both_directions_share_a_flow_hash_and_others_do_not() -> None:
    def of(src: str, dst: str, sport: int, dport: int, proto: type = UDP) -> object:
        network = IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst)
        return columns(stack(network, proto(sport=sport, dport=dport)))["flow_hash"]

    for a, b in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
        there = of(a, b, 1000, 53)
        assert there == of(b, a, 53, 1000)
        others = [of(a, b, 1001, 53), of(a, b, 53, 1000), of(b, a, 1000, 53), of(a, a, 1000, 53),
                  of(a, b, 1000, 53, TCP)]  # fmt: skip
        assert there not in others
        assert len(set(others)) >= 4  # (a:53, b:1000) and (b:1000, a:53) are one flow


def test_flow_hashes_spread_over_queues() -> None:
    batch = Batch(bytearray(1 << 20), 4096)
    template = bytearray(stack(V4, UDP(sport=1, dport=53)))
    packets = []
    for i, j in itertools.product(range(64), range(64)):
        template[28:30], template[34:36] = struct.pack(">H", i), struct.pack(">H", 1024 + j)
        packets.append(bytes(template))
    batch.load(packets)
    Headers().process(batch)
    assert len(set(batch.flow_hash.tolist())) == 4096
    for n in (2, 3, 8):
        shares = [(batch.flow_hash % n == k).mean() for k in range(n)]
        assert max(shares) < 1.2 / n


def altered(packet: bytes, at: int, value: bytes) -> bytes:
    return packet[:at] + value + packet[at + len(value) :]


UDP4 = stack(V4, UDP(sport=5, dport=6), DATA)
UDP6 = stack(V6, UDP(sport=5, dport=6), DATA)
TCP4 = stack(V4, TCP(sport=5, dport=6), DATA)


def ip4(proto: int, size: int) -> bytes:
    return stack(IP(src="10.0.0.1", dst="10.0.0.2", proto=proto), Raw(bytes(size)))


def ip6(proto: int, data: bytes) -> bytes:
    return stack(IPv6(src="fd00::1", dst="fd00::2", nh=proto), Raw(data))


def eth(kind: int, body: bytes) -> bytes:
    return bytes(ETHER)[:12] + struct.pack(">H", kind) + body


def pppoe(protocol: int, body: bytes) -> bytes:
    return struct.pack(">BBHHH", 0x11, 0, 7, len(body) + 2, protocol) + body


SNAP = b"\xaa\xaa\x03\0\0\0"
ARP_BYTES = bytes.fromhex("0001080006040002") + bytes(20)

BAD = [
    ("ETH_SHORT", b""),
    ("ETH_SHORT", UDP4[:13]),
    ("VLAN_SHORT", stack(Dot1Q(vlan=1), V4)[:17]),
    ("VLAN_SHORT", stack(Dot1AD(vlan=1), Dot1Q(vlan=2), V4)[:21]),
    ("IP4_SHORT", UDP4[:14]),
    ("IP4_SHORT", UDP4[:33]),
    ("IP4_VERSION", altered(UDP4, 14, b"\x65")),
    ("IP4_IHL", altered(UDP4, 14, b"\x44")),
    ("IP4_IHL", altered(UDP4[:34], 14, b"\x46")),
    ("IP4_LEN", altered(UDP4, 16, b"\x00\x13")),
    ("IP4_LEN", UDP4[:-1]),
    ("IP4_LEN", altered(UDP4, 16, b"\x00\x00")),
    ("IP6_SHORT", UDP6[:53]),
    ("IP6_VERSION", altered(UDP6, 14, b"\x45")),
    ("IP6_LEN", UDP6[:-1]),
    ("IP6_EXT", ip6(0, b"\x11\x01" + bytes(6))),
    ("IP6_EXT", ip6(60, b"\x11\x00")),
    ("IP6_EXT", ip6(51, b"\x11\x05" + bytes(10))),
    ("TCP_SHORT", ip4(6, 19)),
    ("TCP_OFFSET", altered(TCP4, 46, b"\x40")),
    ("TCP_OFFSET", altered(TCP4, 46, b"\xf0")),
    ("UDP_SHORT", ip4(17, 7)),
    ("UDP_LEN", altered(UDP4, 38, b"\x00\x07")),
    ("UDP_LEN", altered(UDP4, 38, b"\x00\x13")),
    ("ICMP_SHORT", ip4(1, 7)),
    ("ICMP6_SHORT", ip6(58, bytes(7))),
    ("ARP_SHORT", eth(0x0806, ARP_BYTES[:7])),
    ("ARP_SHORT", eth(0x0806, ARP_BYTES[:27])),
    ("ARP_SHORT", eth(0x0806, altered(ARP_BYTES, 5, b"\x10"))),
    ("LLC_LEN", eth(46, bytes(45))),
    ("LLC_LEN", stack(Dot1Q(vlan=1, type=1500), Raw(bytes(1499)))),
    ("LLC_SHORT", eth(0, bytes(46))),
    ("LLC_SHORT", eth(2, b"\x42\x42\x03".ljust(46, b"\0"))),
    ("LLC_SHORT", eth(3, b"\x42\x42\x02".ljust(46, b"\0"))),
    ("LLC_SHORT", eth(7, SNAP + b"\x08\x00" + bytes(40))),
    ("VLAN_SHORT", eth(11, SNAP + b"\x81\x00" + bytes(40))),
    ("IP4_LEN", eth(8 + 37, SNAP + b"\x08\x00" + UDP4[14:])),
    ("MPLS_SHORT", eth(0x8847, b"\0\0\x11")),
    ("MPLS_SHORT", eth(0x8848, b"\0\0\x10\x40")),
    ("MPLS_SHORT", eth(0x8847, b"\0\0\x11\x40")),
    ("MPLS_SHORT", eth(0x8847, b"\0\0\x10\x40" * 8)),
    ("IP4_SHORT", eth(0x8847, b"\0\0\x11\x40" + UDP4[14:33])),
    ("IP6_SHORT", eth(0x8847, b"\0\0\x11\x40" + UDP6[14:53])),
    ("PPPOE_SHORT", eth(0x8864, pppoe(0x21, UDP4[14:])[:5])),
    ("PPPOE_VERSION", eth(0x8864, altered(pppoe(0x21, UDP4[14:]), 0, b"\x21"))),
    ("PPPOE_VERSION", eth(0x8864, altered(pppoe(0x21, UDP4[14:]), 0, b"\x12"))),
    ("PPPOE_CODE", eth(0x8864, altered(pppoe(0x21, UDP4[14:]), 1, b"\x09"))),
    ("PPPOE_LEN", eth(0x8864, pppoe(0x21, UDP4[14:])[:-1])),
    ("PPPOE_LEN", eth(0x8864, altered(pppoe(0x21, UDP4[14:]), 4, b"\0\1"))),
    ("IP4_LEN", eth(0x8864, altered(pppoe(0x21, UDP4[14:]), 4, b"\0\x27"))),
    ("IP6_LEN", eth(0x8864, altered(pppoe(0x57, UDP6[14:]), 4, b"\0\x3b"))),
    ("IGMP_SHORT", ip4(2, 7)),
]


@pytest.mark.parametrize(("reason", "packet"), BAD)
def test_each_contradiction_has_its_reason(reason: str, packet: bytes) -> None:
    row = columns(packet)
    assert row["malformed"] == MALFORMED[reason]
    assert "MALFORMED" in row["flags"]
    assert (row["l4"], row["payload"], row["payload_len"]) == (ABSENT, ABSENT, 0)
    assert (row["l4_sport"], row["l4_dport"]) == (0, 0)


def test_every_reason_is_tried() -> None:
    assert {reason for reason, _ in BAD} == set(MALFORMED)


def test_counters_count_packets_and_reasons() -> None:
    stage = Headers()
    counts = memoryview(bytearray(8 * (OWN + len(stage.counters)))).cast("Q")
    stage.bind(counts)
    batch = Batch(bytearray(1 << 16), 64)
    batch.load([UDP4, UDP6, TCP4, *(packet for _, packet in BAD)])
    stage.process(batch)
    told = dict(zip(stage.counters, counts[OWN:], strict=True))
    assert counts[PACKETS] == 3 + len(BAD)
    assert (told["udp"], told["tcp"], told["malformed"]) == (2, 1, len(BAD))
    for reason in MALFORMED:
        expected = sum(reason == name for name, _ in BAD)
        assert told[f"malformed_{reason.lower()}"] == expected


def test_a_stage_run_by_hand_counts_where_its_chain_does() -> None:
    stage = Headers()
    batch = Batch(bytearray(1 << 16), 4)
    chain = Chain([stage], batch)
    batch.load([UDP4, UDP6])
    for _ in range(3):
        stage.process(batch)
        chain.run()
    [told] = chain.read_counts()
    assert told["packets"] == told["counters"]["udp"] == 2 * 2 * 3


def test_a_stage_of_two_chains_counts_for_each_of_them() -> None:
    stage = Headers()
    batch = Batch(bytearray(1 << 16), 4)
    first, second = Chain([stage], batch), Chain([stage], batch)
    batch.load([UDP4])
    first.run()
    second.run()
    second.run()
    assert [chain.read_counts()[0]["counters"]["udp"] for chain in (first, second)] == [1, 2]


def test_an_icmp_of_the_other_family_is_just_a_protocol() -> None:
    check(ip4(58, 3), ip_proto=58, flags={"IPV4"}, malformed=0, icmp_type=0)
    check(ip6(1, bytes(3)), ip_proto=1, flags={"IPV6"}, malformed=0, icmp_type=0)
