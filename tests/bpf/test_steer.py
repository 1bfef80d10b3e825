"""What the steering program does with a packet, by BPF_PROG_TEST_RUN: tables of packets."""

import struct
from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from steered import GUARD, PEER4, PEER6, SSH_PORT, Steered

from xdpipe.errors import XdpipeError
from xdpipe.filter import FilterError
from xdpipe.steering import Guard, Steering, SteerProgram

ETH = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4 = IP(src="192.0.2.1", dst="192.0.2.2")
IP6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
FROM_PEER4, TO_PEER4 = IP(src=PEER4, dst="192.0.2.2"), IP(src="192.0.2.2", dst=PEER4)
FROM_PEER6, TO_PEER6 = IPv6(src=PEER6, dst="2001:db8::2"), IPv6(src="2001:db8::2", dst=PEER6)
SSH = TCP(sport=40000, dport=22)
SSH_REPLY = TCP(sport=22, dport=40000)
HTTPS = TCP(sport=40000, dport=443)
TO_SERVER, TO_CLIENT = TCP(sport=40000, dport=SSH_PORT), TCP(sport=SSH_PORT, dport=40000)

STARTS = {
    "untagged": ETH,
    "802.1Q": ETH / Dot1Q(vlan=5),
    "802.1ad": ETH / Dot1AD(vlan=5),
    "802.1ad and 802.1Q": ETH / Dot1AD(vlan=5) / Dot1Q(vlan=6),
    "802.1Q twice": ETH / Dot1Q(vlan=5) / Dot1Q(vlan=6),
}

# What comes after Ethernet and its tags, and the counter that it ends in.
NETWORK = {
    "ARP": (ARP(), "guard_arp"),
    "router solicitation": (IP6 / ICMPv6ND_RS(), "guard_nd"),
    "router advertisement": (IP6 / ICMPv6ND_RA(), "guard_nd"),
    "neighbour solicitation": (IP6 / ICMPv6ND_NS(), "guard_nd"),
    "neighbour advertisement": (IP6 / ICMPv6ND_NA(), "guard_nd"),
    "redirect": (IP6 / ICMPv6ND_Redirect(), "guard_nd"),
    "listener query": (IP6 / ICMPv6EchoRequest(type=130), "guard_nd"),
    "listener report": (IP6 / ICMPv6EchoRequest(type=131), "guard_nd"),
    "listener done": (IP6 / ICMPv6EchoRequest(type=132), "guard_nd"),
    "listener report, version 2": (IP6 / ICMPv6EchoRequest(type=143), "guard_nd"),
    "ICMPv6 type 129": (IP6 / ICMPv6EchoRequest(type=129), "redirected"),
    "ICMPv6 type 138": (IP6 / ICMPv6EchoRequest(type=138), "redirected"),
    "ICMPv6 type 142": (IP6 / ICMPv6EchoRequest(type=142), "redirected"),
    "ICMPv6 type 144": (IP6 / ICMPv6EchoRequest(type=144), "redirected"),
    "packet too big": (IP6 / ICMPv6PacketTooBig(), "guard_mtu"),
    "ICMPv6 unreachable": (IP6 / ICMPv6DestUnreach(), "redirected"),
    "fragmentation needed": (IP4 / ICMP(type=3, code=4, nexthopmtu=1400), "guard_mtu"),
    "port unreachable": (IP4 / ICMP(type=3, code=3), "redirected"),
    "ICMP type 4, code 4": (IP4 / ICMP(type=4, code=4), "redirected"),
    "ICMP in IPv6": (IPv6(src=IP6.src, dst=IP6.dst, nh=1) / ICMP(type=3, code=4), "redirected"),
    "to a DHCP client": (IP4 / UDP(sport=67, dport=68), "guard_dhcp"),
    "to a DHCP server": (IP4 / UDP(sport=68, dport=67), "redirected"),
    "TCP to port 68": (IP4 / TCP(sport=67, dport=68), "redirected"),
    "to a DHCPv6 client": (IP6 / UDP(sport=547, dport=546), "guard_dhcp"),
    "to a DHCPv6 server": (IP6 / UDP(sport=546, dport=547), "redirected"),
    "to port 68, IPv6": (IP6 / UDP(sport=67, dport=68), "redirected"),
    "to port 546, IPv4": (IP4 / UDP(sport=547, dport=546), "redirected"),
    "ICMPv6 echo": (IP6 / ICMPv6EchoRequest(), "redirected"),
    "ICMPv6 in IPv4": (IP(src=IP4.src, dst=IP4.dst, proto=58) / ICMPv6ND_NS(), "redirected"),
    "ICMP echo": (IP4 / ICMP(), "redirected"),
    "TCP to 22": (IP4 / SSH, "guard_ssh"),
    "TCP from 22": (IP4 / SSH_REPLY, "guard_ssh"),
    "TCP to 22, IPv6": (IP6 / SSH, "guard_ssh"),
    "TCP from 22, IPv6": (IP6 / SSH_REPLY, "guard_ssh"),
    "TCP to 443": (IP4 / HTTPS, "redirected"),
    "TCP to 443, IPv6": (IP6 / HTTPS, "redirected"),
    "UDP 22 to 22": (IP4 / UDP(sport=22, dport=22), "redirected"),
    "UDP 22 to 22, IPv6": (IP6 / UDP(sport=22, dport=22), "redirected"),
    "from the peer": (FROM_PEER4 / TO_SERVER, "guard_ssh"),
    "to the peer": (TO_PEER4 / TO_CLIENT, "guard_ssh"),
    "from the peer, IPv6": (FROM_PEER6 / TO_SERVER, "guard_ssh"),
    "to the peer, IPv6": (TO_PEER6 / TO_CLIENT, "guard_ssh"),
    "from the peer, other port": (FROM_PEER4 / HTTPS, "redirected"),
    "from the peer, other way": (FROM_PEER4 / TO_CLIENT, "redirected"),
    "to the peer, other way": (TO_PEER4 / TO_SERVER, "redirected"),
    "from the peer, other port, IPv6": (FROM_PEER6 / HTTPS, "redirected"),
    "from the peer, UDP": (FROM_PEER4 / UDP(dport=SSH_PORT), "redirected"),
    "from another, that port": (IP4 / TO_SERVER, "redirected"),
    "from another, that port, IPv6": (IP6 / TO_SERVER, "redirected"),
    "nearly the peer, IPv6": (IPv6(src="2001:db8::1:7", dst=IP6.dst) / TO_SERVER, "redirected"),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(("network", "way_out"), NETWORK.values(), ids=NETWORK)
def test_guard_keeps_the_operators_lifelines_in_any_tags(
    guarded: Steered, start: Packet, network: Packet, way_out: str
) -> None:
    assert guarded.way_out(bytes(start / network)) == way_out


@pytest.mark.parametrize("rest", [
    b"\x00\x26\x42\x42\x03" + bytes(35),  # STP: IEEE 802.1D, 7.12.3
    b"\x88\x09\x01" + bytes(109),  # LACP: IEEE 802.1AX, 6.4.2
    b"\x88\xcc" + bytes(40),  # LLDP: IEEE 802.1AB
    b"\x88\x8e\x02\x00" + bytes(40),  # EAPOL: IEEE 802.1X
    bytes(STARTS["802.1Q"] / IP4 / HTTPS)[12:],
], ids=["STP", "LACP", "LLDP", "EAPOL", "anything"])  # fmt: skip
def test_guard_keeps_what_is_for_the_other_end_of_the_link_alone(
    guarded: Steered, rest: bytes
) -> None:
    source = bytes.fromhex("020000000001")
    for to in ("0180c2000000", "0180c2000003", "0180c200000f"):
        assert guarded.way_out(bytes.fromhex(to) + source + rest) == "guard_link"
    for to in ("0180c2000010", "0180c2010000", "0180c2000100", "0080c2000000"):
        assert guarded.way_out(bytes.fromhex(to) + source + rest) == "redirected"


def fragment4(header: IP, offset: int, *, more: bool, proto: int = 6, data: bytes = b"") -> bytes:
    """Return a fragment; offset in units of 8 bytes."""
    copy = header.copy()
    copy.frag, copy.flags, copy.proto = offset, "MF" if more else 0, proto
    return bytes(ETH / copy / Raw(data))


def fragment6(header: IPv6, offset: int, nh: int = 6, data: bytes = b"") -> bytes:
    return bytes(ETH / header / IPv6ExtHdrFragment(offset=offset, m=1, nh=nh) / Raw(data))


NO_PORTS = b"\x16" * 16  # would be port 5654, if it were a port
FRAGMENTS = {
    "first, to 22": (fragment4(IP4, 0, more=True, data=bytes(SSH)), "guard_ssh"),
    "first, to 443": (fragment4(IP4, 0, more=True, data=bytes(HTTPS)), "redirected"),
    "later, what would be port 22": (
        fragment4(IP4, 1, more=True, data=struct.pack("!HH", 22, 22)), "redirected"
    ),
    "later, of the peer": (fragment4(FROM_PEER4, 1, more=True, data=NO_PORTS), "guard_ssh"),
    "last, of the peer": (fragment4(FROM_PEER4, 8191, more=False, data=NO_PORTS), "guard_ssh"),
    "last, of the peer, empty": (fragment4(FROM_PEER4, 100, more=False), "guard_ssh"),
    "later, to the peer": (fragment4(TO_PEER4, 1, more=True, data=NO_PORTS), "guard_ssh"),
    "later, UDP of the peer": (
        fragment4(FROM_PEER4, 1, more=True, proto=17, data=NO_PORTS), "redirected"
    ),
    "later, of another": (fragment4(IP4, 1, more=True, data=NO_PORTS), "redirected"),
    "first, to 22, IPv6": (fragment6(IP6, 0, data=bytes(SSH)), "guard_ssh"),
    "later, of the peer, IPv6": (fragment6(FROM_PEER6, 1, data=NO_PORTS), "guard_ssh"),
    "later, of the peer, options before TCP": (
        fragment6(FROM_PEER6, 1, nh=60, data=NO_PORTS), "guard_ssh"
    ),
    "later, UDP of the peer, IPv6": (fragment6(FROM_PEER6, 1, nh=17, data=NO_PORTS), "redirected"),
    "later, of another, IPv6": (fragment6(IP6, 1, data=NO_PORTS), "redirected"),
    "later, ICMPv6": (fragment6(IP6, 1, nh=58, data=bytes([135] * 8)), "redirected"),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "way_out"), FRAGMENTS.values(), ids=FRAGMENTS)
def test_fragments_without_ports_are_kept_for_the_ssh_peer_only(
    guarded: Steered, packet: bytes, way_out: str
) -> None:
    assert guarded.way_out(packet) == way_out


def ipv6_chain(headers: list[tuple[int, bytes]], proto: int, payload: bytes) -> bytes:
    """Return an IPv6 packet with these extension headers, each (its number, all but next)."""
    numbers = [number for number, _ in headers] + [proto]
    body = b"".join(
        bytes([following]) + rest for (_, rest), following in zip(headers, numbers[1:], strict=True)
    )
    return bytes(ETH / IPv6(src=IP6.src, dst=IP6.dst, nh=numbers[0]) / Raw(body + payload))


def option(number: int, units: int = 0) -> tuple[int, bytes]:
    """Return an extension header of 8 + 8 * units bytes."""
    return number, bytes([units]) + bytes(6 + 8 * units)


AUTHENTICATION = (51, bytes([4]) + bytes(22))  # 24 bytes
FIRST_FRAGMENT = (44, bytes([0, 0, 1]) + bytes(4))
EXTENSIONS = {
    "hop-by-hop": [option(0)],
    "routing": [option(43, 2)],
    "destination options": [option(60)],
    "longest": [option(60, 255)],
    "mobility": [option(135)],
    "HIP": [option(139)],
    "Shim6": [option(140)],
    "authentication": [AUTHENTICATION],
    "first fragment": [FIRST_FRAGMENT],
    "all of RFC 8200, 4.1": [
        option(0), option(60), option(43), FIRST_FRAGMENT, AUTHENTICATION, option(60)
    ],
    "eight": [option(0), *[option(60)] * 7],
}  # fmt: skip


@pytest.mark.parametrize("headers", EXTENSIONS.values(), ids=EXTENSIONS)
def test_guard_looks_behind_extension_headers(
    guarded: Steered, headers: list[tuple[int, bytes]]
) -> None:
    assert guarded.way_out(ipv6_chain(headers, 58, bytes([135] + [0] * 7))) == "guard_nd"
    assert guarded.way_out(ipv6_chain(headers, 6, bytes(SSH))) == "guard_ssh"
    assert guarded.way_out(ipv6_chain(headers, 6, bytes(HTTPS))) == "redirected"
    assert guarded.way_out(ipv6_chain(headers, 50, bytes(16))) == "redirected"  # ESP
    assert guarded.way_out(ipv6_chain(headers, 59, b"")) == "redirected"  # nothing more


@pytest.mark.parametrize("n", [4, 8, 20, 40])
def test_guard_looks_behind_ipv4_options(guarded: Steered, n: int) -> None:
    header = bytearray(bytes(IP(src=IP4.src, dst=IP4.dst, proto=6)))
    header[0] = 0x45 + n // 4
    header[2:4] = struct.pack("!H", 20 + n + 20)
    for tcp, way_out in ((SSH, "guard_ssh"), (HTTPS, "redirected")):
        packet = bytes(ETH / Raw(bytes(header) + b"\x01" * n + bytes(tcp)))
        packet = packet[:12] + b"\x08\x00" + packet[14:]
        assert guarded.way_out(packet) == way_out


def with_type(eth_type: int, rest: bytes) -> bytes:
    return bytes(12) + struct.pack("!H", eth_type) + rest


IPV4 = bytes(IP(src=IP4.src, dst=IP4.dst, proto=17, len=40))
OTHERS = {
    "reverse ARP": (with_type(0x8035, bytes(28)), "redirected"),
    "PPPoE": (with_type(0x8864, bytes(40)), "redirected"),
    "MPLS": (with_type(0x8847, bytes(40)), "redirected"),
    "802.3 with LLC": (with_type(0x0026, bytes(38)), "redirected"),
    "Ethernet and nothing more": (with_type(0x88B5, b""), "redirected"),
    "three tags": (with_type(0x8100, b"\0\5\x81\0\0\6\x81\0\0\7\x08\x06" + bytes(28)), "unparsed"),
    "IPv4, version 5": (with_type(0x0800, b"\x55" + IPV4[1:] + bytes(20)), "unparsed"),
    "IPv4, header of 16 bytes": (with_type(0x0800, b"\x44" + IPV4[1:] + bytes(20)), "unparsed"),
    "IPv4, total length below its header's": (
        with_type(0x0800, IPV4[:2] + b"\0\x13" + IPV4[4:] + bytes(20)), "unparsed"
    ),
    "IPv6, version 4": (with_type(0x86DD, b"\x40" + bytes(IP6)[1:]), "unparsed"),
    "IPv6, nine extension headers": (
        ipv6_chain([option(0), *[option(60)] * 8], 17, bytes(8)), "unparsed"
    ),
    "IPv6, more than 4095 bytes of headers": (
        ipv6_chain([option(60, 255)] * 2, 6, bytes(SSH))[:3520], "unparsed"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "way_out"), OTHERS.values(), ids=OTHERS)
def test_what_the_guard_does_not_understand_goes_to_the_kernel(
    guarded: Steered, packet: bytes, way_out: str
) -> None:
    assert guarded.way_out(packet) == way_out


# A packet, the bytes of it that the guard needs, and the counter that it ends in with those.
CUTS = {
    "ARP": (ETH / ARP(), 14, "guard_arp"),
    "tagged ARP": (ETH / Dot1AD(vlan=1) / Dot1Q(vlan=2) / ARP(), 22, "guard_arp"),
    "UDP": (ETH / IP4 / UDP(dport=53), 38, "redirected"),
    "UDP in tags": (ETH / Dot1Q(vlan=1) / Dot1Q(vlan=2) / IP4 / UDP(dport=53), 46, "redirected"),
    "ICMP": (ETH / IP4 / ICMP(type=3, code=4), 36, "guard_mtu"),
    "ESP": (ETH / IP(src=IP4.src, dst=IP4.dst, proto=50) / Raw(bytes(16)), 34, "redirected"),
    "TCP": (ETH / IP4 / SSH, 38, "guard_ssh"),
    "TCP to other ports": (ETH / IP4 / HTTPS, 38, "redirected"),
    "TCP after options": (
        ETH / IP(src=IP4.src, dst=IP4.dst, options=[IPOption_NOP()] * 4) / SSH, 42, "guard_ssh"
    ),
    "UDP over IPv6": (ETH / IP6 / UDP(dport=53), 58, "redirected"),
    "ICMPv6": (ETH / IP6 / ICMPv6ND_NS(), 55, "guard_nd"),
    "ICMPv6 after extension headers": (
        ETH / IP6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / ICMPv6ND_NS(), 71, "guard_nd"
    ),
    "TCP after extension headers": (
        ETH / Dot1Q(vlan=1) / IP6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(m=1)
        / IPv6ExtHdrDestOpt() / SSH, 86, "guard_ssh",
    ),
    "TCP after authentication": (
        ETH / IPv6(src=IP6.src, dst=IP6.dst, nh=51)
        / Raw(bytes([6, 4]) + bytes(22) + bytes(SSH)), 82, "guard_ssh",
    ),
    "later fragment of the peer": (
        ETH / FROM_PEER6 / IPv6ExtHdrFragment(offset=1, nh=6) / Raw(b"x" * 8), 62, "guard_ssh"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("whole", "needed", "way_out"), CUTS.values(), ids=CUTS)
def test_packet_cut_at_any_length_is_unparsed_up_to_what_the_guard_needs(
    guarded: Steered, whole: Packet, needed: int, way_out: str
) -> None:
    packet = bytes(whole)
    ways = [guarded.way_out(packet[:n]) for n in range(14, len(packet) + 1)]
    assert ways == ["unparsed"] * (needed - 14) + [way_out] * (len(packet) + 1 - needed)


QUERY, ANSWER = IP4 / UDP(sport=9, dport=53), IP4 / UDP(sport=53, dport=9)


def test_without_guard_the_filter_alone_decides(unguarded: Steered) -> None:
    assert unguarded.way_out(bytes(ETH / QUERY)) == "redirected"
    assert unguarded.way_out(bytes(ETH / ANSWER)) == "not_matched"
    assert unguarded.way_out(bytes(ETH / IP4 / SSH)) == "not_matched"
    assert unguarded.way_out(bytes(ETH / ARP())) == "not_matched"
    assert unguarded.way_out(with_type(0x0800, b"")) == "not_matched"


def test_queue_without_a_socket_leaves_packets_to_the_kernel(
    unguarded: Steered, request: pytest.FixtureRequest
) -> None:
    xsk = request.getfixturevalue("xsk")
    program = unguarded.program
    program.release(0)
    assert unguarded.way_out(bytes(ETH / QUERY)) == "no_socket"
    program.release(0)  # a second time is no error
    program.take(0, xsk.fileno())
    assert unguarded.way_out(bytes(ETH / QUERY)) == "redirected"


def test_guard_stands_before_the_filter(xsk: object) -> None:
    with SteerProgram(Steering("tcp port 22"), Guard(), 1) as program:
        steered = Steered(program)
        assert steered.way_out(bytes(ETH / IP4 / SSH)) == "guard_ssh"
        assert steered.way_out(bytes(ETH / IP4 / HTTPS)) == "not_matched"


def test_guard_without_a_session_keeps_port_22_only() -> None:
    with SteerProgram(Steering(""), Guard(), 1) as program:
        steered = Steered(program)
        assert steered.way_out(bytes(ETH / IP4 / SSH)) == "guard_ssh"
        assert steered.way_out(bytes(ETH / FROM_PEER4 / TO_SERVER)) == "no_socket"
        assert steered.way_out(fragment4(FROM_PEER4, 1, more=True)) == "no_socket"


def test_counters_sum_to_what_was_seen() -> None:
    packets = [
        bytes(start / network) for start in STARTS.values() for network, _ in NETWORK.values()
    ]
    with SteerProgram(Steering("udp"), GUARD, 1) as program:
        for packet in packets:
            program.run(packet)
        counters = program.counters()
    assert counters.seen == len(packets)
    kept = Counter(way_out for _, way_out in NETWORK.values())
    # untagged UDP alone: to libpcap `udp` means untagged
    n_udp = sum(way == "redirected" and UDP in network for network, way in NETWORK.values())
    expected = {name: n * len(STARTS) for name, n in kept.items() if name != "redirected"}
    expected |= {"guard_link": 0, "unparsed": 0, "no_socket": n_udp, "set_passed": 0}
    expected["not_matched"] = kept["redirected"] * len(STARTS) - n_udp
    assert counters.to_kernel == expected
    assert n_udp > 5
    assert counters.redirected == 0
    assert counters.seen == sum(counters.to_kernel.values()) + counters.redirected


def test_queue_that_the_program_has_not_is_an_error(unguarded: Steered) -> None:
    for queue in (-1, 1):
        with pytest.raises(XdpipeError, match=f"queue {queue}: the program has 1, from 0"):
            unguarded.program.take(queue, 0)


def test_bad_filter_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(FilterError, match=r'filter "udp and": .*syntax error'):
        SteerProgram(Steering("udp and"), None, 1)
