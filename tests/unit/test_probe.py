"""Stamps: where they go, that checksums stay right, and what is read of them."""

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from crafted import batch_of
from xdpipe.core._core import ffi, lib
from xdpipe.traffic import probe

ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
IP4, IP6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
STAMPABLE: dict[str, Packet] = {
    "IPv4 UDP": ETHER / IP4 / UDP(sport=7, dport=53),
    "IPv4 TCP": ETHER / IP4 / TCP(sport=7, dport=53, options=[("NOP", None)] * 4),
    "IPv4 ICMP": ETHER / IP4 / ICMP(type=8, id=3),
    "IPv6 UDP": ETHER / IP6 / UDP(sport=7, dport=53),
    "IPv6 TCP": ETHER / IP6 / TCP(sport=7, dport=53),
    "IPv6 ICMP": ETHER / IP6 / ICMPv6EchoRequest(id=3),
    "VLAN": ETHER / Dot1Q(vlan=5) / IP4 / UDP(sport=7, dport=53),
    "IPv6 options": ETHER / IP6 / IPv6ExtHdrDestOpt() / UDP(sport=7, dport=53),
}


def carried(packet: Packet, payload: bytes) -> bytes:
    if ICMPv6EchoRequest in packet:
        packet = packet.copy()
        packet[ICMPv6EchoRequest].data = payload
        return raw(packet)
    return raw(packet / Raw(payload))


def read(packet: bytes, at: int) -> dict[str, int] | None:
    found = ffi.new("struct xp_probe *")
    if not lib.xp_probe_read(ffi.from_buffer(packet)[at : at + probe.SIZE], found):
        return None
    return {name: int(getattr(found, name)) for name in ("run", "stream", "number", "time")}


def with_right_checksums(packet: bytes) -> bytes:
    """Return the packet as scapy builds it of its fields, with the checksums that it computes."""
    parsed = Ether(packet)
    for layer in (IP, UDP, TCP, ICMP, ICMPv6EchoRequest):
        if layer in parsed:
            del parsed[layer].fields["cksum" if layer is ICMPv6EchoRequest else "chksum"]
    return raw(parsed)


@pytest.mark.parametrize("name", STAMPABLE)
def test_checksums_are_right_whatever_the_stamp_says(name: str) -> None:
    rng = random.Random(name)
    payloads = [rng.randbytes(n) for n in [*range(16, 45), 1399, 1400]]
    packets = [carried(STAMPABLE[name], payload) for payload in payloads]
    batch = batch_of(packets)
    at = probe.place(batch, 0xBEEF)
    for i, (packet, payload) in enumerate(zip(packets, payloads, strict=True)):
        if len(payload) < probe.SIZE:
            assert at[i] == 0
            assert bytes(batch.packet(i)) == packet
            continue
        assert at[i] == len(packet) - probe.SIZE
        for stream, number, time in [(0, 0, 0), (255, (1 << 40) - 1, (1 << 63) - 1), (7, 2**33, i)]:
            probe.write(batch.packet(i), int(at[i]), stream, number, time)
            sent = bytes(batch.packet(i))
            assert with_right_checksums(sent) == sent
            assert sent[: at[i]].endswith(payload[: -probe.SIZE])
            assert read(sent, int(at[i])) == {
                "run": 0xBEEF, "stream": stream, "number": number, "time": time % (1 << 48),
            }  # fmt: skip


def test_the_stamp_is_the_bytes_that_probe_h_draws() -> None:
    batch = batch_of([carried(STAMPABLE["IPv4 UDP"], bytes(20))])
    at = int(probe.place(batch, 0x1234)[0])
    probe.write(batch.packet(0), at, 0x56, 0x789ABCDEF0, 0x112233445566)
    words = struct.pack(">HHBBIHI", 0x7850, 0x1234, 0x56, 0x78, 0x9ABCDEF0, 0x1122, 0x33445566)
    total = sum(struct.unpack(">8H", words))
    fix = 0xFFFF - (total % 0xFFFF)
    assert bytes(batch.packet(0))[at:] == words + struct.pack(">H", fix)


@pytest.mark.parametrize("wrong", [0xABCD, 0])
def test_a_wrong_checksum_stays_as_wrong_and_none_stays_none(wrong: int) -> None:
    packet = STAMPABLE["IPv4 UDP"] / Raw(random.Random(3).randbytes(33))
    right = raw(packet)
    packet[UDP].chksum = wrong
    batch = batch_of([raw(packet), right])
    probe.place(batch, 5)
    (given_sum,), (right_after,) = (
        struct.unpack(">H", bytes(batch.packet(i))[40:42]) for i in (0, 1)
    )
    (right_before,) = struct.unpack(">H", right[40:42])
    if wrong == 0:
        assert given_sum == 0
    else:
        assert (given_sum - wrong) % 0xFFFF == (right_after - right_before) % 0xFFFF


@pytest.mark.parametrize(
    "packet",
    [
        raw(ETHER / ARP()) + bytes(40),
        raw(ETHER / IP(src="192.0.2.1", dst="192.0.2.2", proto=132) / Raw(bytes(40))),
        raw(ETHER / IP(src="192.0.2.1", dst="192.0.2.2", flags="MF") / UDP() / Raw(bytes(40))),
        raw(ETHER / IP(src="192.0.2.1", dst="192.0.2.2", frag=3, proto=17) / Raw(bytes(40))),
        raw(ETHER / IP4 / ICMP(type=3, code=4) / Raw(bytes(40))),
        raw(ETHER / IP4 / UDP() / Raw(bytes(40)))[:-1],
        raw(ETHER / IP4 / UDP() / Raw(bytes(17))) + bytes(6),
        b"",
        bytes(13),
    ],
    ids=["arp", "sctp", "first fragment", "later fragment", "icmp error", "cut", "padded", "empty",
         "short"],
)  # fmt: skip
def test_what_cannot_have_a_stamp_stays_as_it_is(packet: bytes) -> None:
    batch = batch_of([packet])
    assert probe.place(batch, 1).tolist() == [0]
    assert bytes(batch.packet(0)) == packet


def test_a_stamp_is_before_ethernet_padding() -> None:
    packet = raw(ETHER / IP4 / UDP(sport=1, dport=2) / Raw(bytes(range(18))))
    batch = batch_of([packet + bytes(9)])
    assert probe.place(batch, 1).tolist() == [len(packet) - probe.SIZE] == [60 - 18]
    assert bytes(batch.packet(0))[60:] == bytes(9)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=18, max_size=18), st.integers(0, 17), st.integers(0, 7))
def test_a_stamp_with_a_bit_turned_is_none(rest: bytes, byte: int, bit: int) -> None:
    batch = batch_of([carried(STAMPABLE["IPv4 UDP"], bytes(18))])
    at = int(probe.place(batch, int.from_bytes(rest[:2]))[0])
    number, time = int.from_bytes(rest[2:7]), int.from_bytes(rest[7:15])
    probe.write(batch.packet(0), at, rest[15], number, time)
    packet = bytearray(batch.packet(0))
    assert read(bytes(packet), at) is not None
    packet[at + byte] ^= 1 << bit
    assert read(bytes(packet), at) is None


def test_a_stamp_beyond_the_packet_is_refused() -> None:
    for at in (0, 43, 60):
        with pytest.raises(ValueError, match="60 bytes"):
            probe.write(bytearray(60), at, 0, 0, 0)


def test_runs_are_numbered_at_random() -> None:
    runs = np.array([probe.new_run() for _ in range(200)])
    assert (runs > 0).all()
    assert (runs <= 0xFFFF).all()
    assert len(np.unique(runs)) > 150
