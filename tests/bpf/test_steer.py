"""What the steering program does with a packet, by BPF_PROG_TEST_RUN: tables of packets."""

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
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
    "ICMPv6 type 132": (IP6 / ICMPv6EchoRequest(type=132), "redirected"),
    "ICMPv6 type 138": (IP6 / ICMPv6EchoRequest(type=138), "redirected"),
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
    "UDP": (ETH / IP4 / UDP(dport=53), 34, "redirected"),
    "UDP in tags": (ETH / Dot1Q(vlan=1) / Dot1Q(vlan=2) / IP4 / UDP(dport=53), 42, "redirected"),
    "TCP": (ETH / IP4 / SSH, 38, "guard_ssh"),
    "TCP to other ports": (ETH / IP4 / HTTPS, 38, "redirected"),
    "TCP after options": (
        ETH / IP(src=IP4.src, dst=IP4.dst, options=[IPOption_NOP()] * 4) / SSH, 42, "guard_ssh"
    ),
    "UDP over IPv6": (ETH / IP6 / UDP(dport=53), 54, "redirected"),
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
    assert counters.seen == len(packets) == 155
    assert counters.to_kernel == {
        "guard_arp": 5, "guard_nd": 25, "guard_ssh": 40, "unparsed": 0,
        # untagged UDP alone: to libpcap `udp` means untagged
        "not_matched": 82, "no_socket": 3,
    }  # fmt: skip
    assert counters.redirected == 0
    assert counters.seen == sum(counters.to_kernel.values()) + counters.redirected


def test_queue_that_the_program_has_not_is_an_error(unguarded: Steered) -> None:
    for queue in (-1, 1):
        with pytest.raises(XdpipeError, match=f"queue {queue}: the program has 1, from 0"):
            unguarded.program.take(queue, 0)


def test_bad_filter_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(FilterError, match=r'filter "udp and": .*syntax error'):
        SteerProgram(Steering("udp and"), None, 1)
