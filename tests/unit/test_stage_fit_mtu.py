"""FitMtu: what is too long is dropped, or cut to a packet that says itself how long it is."""

from typing import Any

import numpy as np
import pytest
from made_packets import KINDS, MALFORMED, WAS, ether, fragments4, fragments6, ip4, ip6, tcp, udp
from scapy.compat import raw
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrHopByHop
from scapy.layers.l2 import LLC, SNAP, Dot1AD, Dot1Q, Dot3
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Raw
from test_multi_buffer import cut, in_frames

from guard_page import GuardedBatch
from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.errors import XdpipeError
from xdpipe.stages import FitMtu, Headers, SetVlan
from xdpipe.verdict import DROP, Verdict

MADE: dict[str, Any] = {
    "IPv4 UDP": lambda data: ether(WAS) / ip4(WAS) / udp(WAS) / data,
    "IPv4 UDP without checksum": lambda data: ether(WAS) / ip4(WAS) / udp(WAS, chksum=0) / data,
    "IPv4 TCP": lambda data: ether(WAS) / ip4(WAS) / tcp(WAS) / data,
    "IPv4 ICMP": lambda data: ether(WAS) / ip4(WAS) / ICMP(id=7) / data,
    "IPv4, another protocol": lambda data: ether(WAS) / ip4(WAS, proto=253) / data,
    "IPv6 UDP": lambda data: ether(WAS) / ip6(WAS) / udp(WAS) / data,
    "IPv6 TCP": lambda data: ether(WAS) / ip6(WAS) / tcp(WAS) / data,
    "IPv6 ICMPv6": lambda data: ether(WAS) / ip6(WAS) / ICMPv6EchoRequest(id=7, data=data),
    "IPv6 options": lambda data: ether(WAS) / ip6(WAS) / IPv6ExtHdrHopByHop() / udp(WAS) / data,
    "VLAN": lambda data: ether(WAS) / Dot1Q(vlan=5) / ip4(WAS) / udp(WAS) / data,
    "two tags": lambda data: ether(WAS) / Dot1AD() / Dot1Q(vlan=5) / ip6(WAS) / tcp(WAS) / data,
    "PPPoE": lambda data: ether(WAS) / PPPoE(sessionid=3) / PPP() / ip4(WAS) / udp(WAS) / data,
    "SNAP": lambda data: Dot3(src=WAS["eth_src"], dst=WAS["eth_dst"]) / LLC(
        dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800) / ip4(WAS) / tcp(WAS) / data,
}  # fmt: skip
TAGS = {"VLAN": 4, "two tags": 8}
DATA = bytes(range(1, 256)) * 3


def size_of(kind: str, n: int) -> int:
    """Return the MTU that a packet with n bytes of data just fits."""
    return len(raw(MADE[kind](DATA[:n]))) - 14 - TAGS.get(kind, 0)


@pytest.mark.parametrize("n", [0, 1, 50, 255, 700])
@pytest.mark.parametrize("kind", MADE)
def test_what_is_cut_is_as_if_it_had_been_made_shorter(kind: str, n: int) -> None:
    mtu = max(size_of(kind, n), 68)
    n += mtu - size_of(kind, n)
    packets = [raw(MADE[kind](DATA[:size])) for size in (n, n + 1, n + 2, len(DATA))]
    batch = parsed(packets)
    stage = FitMtu(mtu, truncate=True)
    stage.process(batch)
    assert bytes_of(batch) == [packets[0]] * 4
    check_columns(batch)
    assert counts(stage) == {"fits": 1, "truncated": 3, "left_out": 0}
    assert (batch.verdict == Verdict.UNDECIDED).all()


@pytest.mark.parametrize("kind", MADE)
def test_what_is_not_to_be_cut_is_dropped(kind: str) -> None:
    mtu = size_of(kind, 100)
    packets = [raw(MADE[kind](DATA[:size])) for size in (99, 100, 101)]
    batch = parsed(packets)
    stage = FitMtu(mtu)
    stage.process(batch)
    assert bytes_of(batch) == packets
    assert batch.verdict.tolist() == [Verdict.UNDECIDED, Verdict.UNDECIDED, DROP]
    assert counts(stage) == {"fits": 2, "truncated": 0, "left_out": 1}


def test_of_a_padded_frame_only_the_padding_is_cut() -> None:
    packet = raw(MADE["IPv4 UDP"](DATA[:90]))
    batch = parsed([packet + bytes(20)])
    FitMtu(size_of("IPv4 UDP", 90) + 7, truncate=True).process(batch)
    assert bytes_of(batch) == [packet + bytes(7)]
    check_columns(batch)


def test_what_udp_leaves_unused_of_ip_is_cut_first() -> None:
    payload = DATA[:90]
    inner = udp(WAS) / payload
    inner.len = 98
    batch = parsed([raw(ether(WAS) / ip4(WAS) / inner / Raw(bytes(20)))])
    before = bytes(batch.packet(0))
    FitMtu(20 + 98 + 5, truncate=True).process(batch)
    now = bytes(batch.packet(0))
    assert now[34:] == before[34 : 34 + 98 + 5]
    assert batch.u16(batch.l3 + 2).tolist() == [20 + 98 + 5]
    assert batch.payload_len.tolist() == [90]
    check_columns(batch)


@pytest.mark.parametrize(("pieces", "ip"), [(fragments4, ip4), (fragments6, ip6)])
def test_of_fragments_only_ips_length_follows(pieces: Any, ip: Any) -> None:
    whole = [raw(packet) for packet in pieces(WAS)]
    batch = parsed(whole)
    stage = FitMtu(68, truncate=True)
    long = np.array([len(packet) > 82 for packet in whole])
    assert long.any() or ip is ip4
    batch = parsed([packet + bytes(0) for packet in whole])
    stage.process(batch)
    for was, now in zip(whole, bytes_of(batch), strict=True):
        header = 34 if ip is ip4 else 54
        assert now[header:] == was[header:82]
        length = int.from_bytes(now[16:18] if ip is ip4 else now[18:20], "big")
        assert length == len(now) - (14 if ip is ip4 else 54)
    check_columns(batch)
    assert counts(stage)["truncated"] == int(long.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_the_columns_hold_and_nothing_beyond_is_touched(kind: str) -> None:
    whole = raw(KINDS[kind](WAS))
    guarded, headers, stage = GuardedBatch(1), Headers(), FitMtu(68, truncate=True)
    for n in range(len(whole) + 1):
        batch = guarded.load([whole[:n]])
        headers.process(batch)
        stage.process(batch)
        check_columns(batch)
        assert len(batch.packet(0)) == min(n, 82 + 4 * int(batch.n_vlans[0]))


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_packet_is_cut_and_stays_so(kind: str) -> None:
    packet = MALFORMED[kind] + bytes(100)
    batch = parsed([packet])
    malformed = batch.malformed.tolist()
    FitMtu(68, truncate=True).process(batch)
    assert len(batch.packet(0)) == 82 + 4 * int(batch.n_vlans[0])
    check_columns(batch)
    if malformed[0]:
        assert bytes(batch.packet(0))[18:] == packet[18 : len(batch.packet(0))]


def test_a_packet_in_several_frames_is_left_out() -> None:
    whole = raw(MADE["IPv4 UDP"](DATA))
    for truncate in (False, True):
        batch = in_frames([cut(whole, 300)])
        Headers().process(batch)
        stage = FitMtu(200, truncate=truncate)
        stage.process(batch)
        assert batch.verdict.tolist() == [DROP]
        assert bytes(batch.packet(0)) == whole
        assert counts(stage) == {"fits": 0, "truncated": 0, "left_out": 1}


def test_a_tag_that_was_pushed_does_not_count() -> None:
    packet = raw(MADE["IPv4 UDP"](DATA[:90]))
    batch = parsed([packet])
    SetVlan(5, push=True).process(batch)
    stage = FitMtu(len(packet) - 14)
    stage.process(batch)
    assert counts(stage) == {"fits": 1, "truncated": 0, "left_out": 0}


def test_only_undecided_packets_with_the_mark() -> None:
    packet = raw(MADE["IPv4 UDP"](DATA))
    batch = parsed([packet] * 3)
    batch.drop(np.array([True, False, False]))
    batch.mark[:] = [1, 1, 2]
    stage = FitMtu(100, truncate=True, only=1)
    stage.process(batch)
    assert batch.len.tolist() == [len(packet), 114, len(packet)]
    assert counts(stage) == {"fits": 0, "truncated": 1, "left_out": 0}


@pytest.mark.parametrize("mtu", [67, 1_000_001, True, "1500", None])
def test_what_is_no_mtu_is_one_clear_line(mtu: Any) -> None:
    with pytest.raises(XdpipeError, match=r"FitMtu: mtu=.*: bytes, 68 to 1000000"):
        FitMtu(mtu)
