"""FlowMeter: what a flow is, when it ends and why, and exactly what is told of it."""

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_meters import ETHER, A, B, Meter, S, exchange, quick, tcp, udp
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q
from scapy.packet import Packet, Raw
from test_multi_buffer import Queue, cut

import xdpipe.core
from guard_page import GuardedBatch
from xdpipe.batch import COLUMNS, Batch
from xdpipe.block_ring import BlockRing, ring_size
from xdpipe.chain import Chain, ChainError
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.flow_records import record_dtype, rows, to_ndjson
from xdpipe.flow_table import FlowTable, record_bytes, table_bytes
from xdpipe.process import shared_memory
from xdpipe.stages import FlowMeter, Headers

ENDED = {"idle": 0, "active": 0, "ended": 0, "forced": 0, "resources": 0}
NONE = {
    "metered": 0, "flows": 0, "exported": 0, "lost": 0, "no_room_flows": 0, "no_room_packets": 0,
    "other": 0, "malformed": 0, **ENDED,
}  # fmt: skip
HANDSHAKE = [("S", False), ("SA", True), ("A", False)]


def conversation(start: int, *flags: tuple[str, bool]) -> list[tuple[int, Packet]]:
    """Return TCP segments, a millisecond apart: flags, and whether the responder sends."""
    return [(start + i * S // 1000, tcp(f, back=back)) for i, (f, back) in enumerate(flags)]


# What is told


def test_a_record_has_every_field_of_both_directions() -> None:
    meter = Meter()
    meter.sees((5 * S, udp(size=10)), (6 * S, udp(B, A, 53, 5000, 100)), (7 * S + 5, udp(size=30)))
    assert meter.finish() == [
        {
            "flowStartNanoseconds": "1970-01-01T00:00:05.000000000Z",
            "flowEndNanoseconds": "1970-01-01T00:00:07.000000005Z",
            "reverseFlowStartNanoseconds": "1970-01-01T00:00:06.000000000Z",
            "reverseFlowEndNanoseconds": "1970-01-01T00:00:06.000000000Z",
            "sourceIPv4Address": A,
            "destinationIPv4Address": B,
            "sourceTransportPort": 5000,
            "destinationTransportPort": 53,
            "protocolIdentifier": 17,
            "packetDeltaCount": 2,
            "octetDeltaCount": 38 + 58,
            "reversePacketDeltaCount": 1,
            "reverseOctetDeltaCount": 128,
            "flowEndReason": 4,
        }
    ]
    assert meter.counters == {**NONE, "metered": 3, "flows": 1, "exported": 1, "forced": 1}


def test_tcp_flags_are_those_of_each_direction_and_ipv6_has_fields_of_its_own() -> None:
    meter = Meter()
    ends = {"src": "fd01::2", "dst": "fd01::1"}
    back = {"src": "fd01::1", "dst": "fd01::2"}
    meter.sees(
        (S, ETHER / IPv6(**ends) / TCP(sport=1, dport=2, flags="S")),
        (S, ETHER / IPv6(**back) / TCP(sport=2, dport=1, flags="SA")),
        (S, ETHER / IPv6(**ends) / TCP(sport=1, dport=2, flags="PAU") / b"123"),
    )
    [row] = meter.finish()
    assert (row["sourceIPv6Address"], row["destinationIPv6Address"]) == ("fd01::2", "fd01::1")
    assert "sourceIPv4Address" not in row
    assert (row["tcpControlBits"], row["reverseTcpControlBits"]) == (0x3A, 0x12)
    assert (row["octetDeltaCount"], row["reverseOctetDeltaCount"]) == (60 + 63, 60)


@pytest.mark.parametrize(("first", "second"), [((A, B), (B, A)), ((B, A), (A, B))])
def test_who_sends_first_is_the_initiator(first: tuple[str, str], second: tuple[str, str]) -> None:
    meter = Meter()
    meter.sees((S, udp(*first, 7, 7)), (S, udp(*second, 7, 7)), (S, udp(*second, 7, 7)))
    [row] = meter.finish()
    assert (row["sourceIPv4Address"], row["destinationIPv4Address"]) == first
    assert exchange([row]) == [(1, 2, 4)]


@pytest.mark.parametrize("ports", [(5, 6), (6, 5)])
def test_a_host_that_talks_to_itself_is_told_apart_by_its_ports(ports: tuple[int, int]) -> None:
    meter = Meter()
    meter.sees((S, udp(A, A, *ports)), (S, udp(A, A, *ports[::-1])), (S, udp(A, A, *ports[::-1])))
    [row] = meter.finish()
    assert (row["sourceTransportPort"], row["destinationTransportPort"]) == ports
    assert exchange([row]) == [(1, 2, 4)]


def test_flows_differ_by_address_port_protocol_and_version() -> None:
    meter = Meter()
    mapped = {"src": f"::ffff:{A}", "dst": f"::ffff:{B}"}
    packets = [
        udp(), udp(src="10.1.0.3"), udp(dst="10.1.0.3"), udp(sport=5001), udp(dport=54),
        udp(A, B, 53, 5000), ETHER / IP(src=A, dst=B) / TCP(sport=5000, dport=53),
        ETHER / IPv6(**mapped) / UDP(sport=5000, dport=53), ETHER / IP(src=A, dst=B, proto=47),
    ]  # fmt: skip
    meter.sees(*[(S, packet) for packet in packets * 2])
    assert exchange(meter.finish()) == [(2, 0, 4)] * len(packets)


def test_bytes_are_those_of_ip_without_padding_and_trailers() -> None:
    meter = Meter()
    padded = bytes(ETHER / IP(src=A, dst=B, options=b"\1\1\1\0") / UDP(sport=1, dport=2)) + bytes(
        99
    )
    meter.sees((S, padded))
    assert meter.finish()[0]["octetDeltaCount"] == 32


def tagged(*tags: Packet) -> bytes:
    packet = ETHER.copy()
    for tag in tags:
        packet = packet / tag
    return bytes(packet / IP(src=A, dst=B) / UDP(sport=1, dport=2))


VLANS = [
    tagged(), tagged(Dot1Q(vlan=5)), tagged(Dot1Q(vlan=5, prio=3)), tagged(Dot1Q(vlan=0)),
    tagged(Dot1AD(vlan=9), Dot1Q(vlan=5)), tagged(Dot1AD(vlan=9), Dot1Q(vlan=6)),
]  # fmt: skip


def test_the_outer_vlan_id_tells_flows_apart_unless_it_shall_not() -> None:
    meter = Meter()
    meter.sees(*[(S, packet) for packet in VLANS])
    told = [(row.get("dot1qVlanId"), row["packetDeltaCount"]) for row in meter.finish()]
    assert told == [(None, 2), (5, 2), (9, 2)]
    meter = Meter(vlan=False)
    meter.sees(*[(S, packet) for packet in VLANS])
    assert exchange(meter.finish()) == [(6, 0, 4)]


def icmp(kind: int, code: int = 0, *, back: bool = False) -> Packet:
    src, dst = (A, B) if not back else (B, A)
    return ETHER / IP(src=src, dst=dst) / ICMP(type=kind, code=code)


@pytest.mark.parametrize(("asked", "answered"), [(8, 0), (0, 8), (13, 14), (17, 18)])
def test_an_icmp_question_and_its_answer_are_one_flow(asked: int, answered: int) -> None:
    meter = Meter()
    meter.sees((S, icmp(asked)), (S, icmp(answered, back=True)), (S, icmp(asked)))
    [row] = meter.finish()
    assert exchange([row]) == [(2, 1, 4)]
    assert row["icmpTypeCodeIPv4"] == row["destinationTransportPort"] == asked * 256
    assert row["sourceTransportPort"] == 0
    assert row["sourceIPv4Address"] == A


def test_icmp_errors_are_flows_by_type_and_code() -> None:
    meter = Meter()
    meter.sees(*[(S, icmp(3, code)) for code in (1, 3, 3)], (S, icmp(11)), (S, icmp(8)))
    rows = meter.finish()
    kinds = [(row["icmpTypeCodeIPv4"], row["packetDeltaCount"]) for row in rows]
    assert kinds == [(0x301, 1), (0x303, 2), (0xB00, 1), (0x800, 1)]


def test_icmpv6_is_as_icmp() -> None:
    there, back = {"src": "fd01::2", "dst": "fd01::1"}, {"src": "fd01::1", "dst": "fd01::2"}
    meter = Meter()
    meter.sees(
        (S, ETHER / IPv6(**there) / ICMPv6EchoRequest()),
        (S, ETHER / IPv6(**back) / ICMPv6EchoReply()),
        (S, ETHER / IPv6(**there, hlim=255) / ICMPv6ND_NS(tgt="fd01::1")),
        (S, ETHER / IPv6(**back, hlim=255) / ICMPv6ND_NA(tgt="fd01::1")),
    )
    rows = meter.finish()
    assert exchange(rows) == [(1, 1, 4)] * 2
    assert [row["icmpTypeCodeIPv6"] for row in rows] == [128 << 8, 135 << 8]


def test_later_fragments_are_a_flow_without_ports() -> None:
    meter = Meter()
    whole = bytes(UDP(sport=5000, dport=53) / bytes(64))
    first = ETHER / IP(src=A, dst=B, proto=17, flags="MF") / whole[:48]
    later = ETHER / IP(src=A, dst=B, proto=17, frag=6) / whole[48:]
    six = (
        ETHER / IPv6(src="fd01::2", dst="fd01::1") / IPv6ExtHdrFragment(nh=58, offset=4) / Raw(b"1")
    )
    meter.sees((S, first), (S, later), (S, later), (S, six))
    rows = meter.finish()
    ports = [(row["sourceTransportPort"], row["destinationTransportPort"]) for row in rows]
    assert ports == [(5000, 53), (0, 0), (0, 0)]
    assert exchange(rows) == [(1, 0, 4), (2, 0, 4), (1, 0, 4)]
    assert [row["octetDeltaCount"] for row in rows] == [68, 88, 49]


def test_what_is_no_ip_or_malformed_is_counted_and_not_metered() -> None:
    meter = Meter()
    short = bytes(udp())[:40]
    meter.sees((S, ETHER / ARP()), (S, short), (S, short[:16]), (S, b"x"), (S, udp()))
    counters = meter.counters
    assert (counters["other"], counters["malformed"], counters["metered"]) == (1, 3, 1)
    assert exchange(meter.finish()) == [(1, 0, 4)]


def test_decided_packets_are_metered_too() -> None:
    meter = Meter()
    meter.batch.load([bytes(udp())] * 4)
    meter.batch.drop(np.array([True, False, True, False]))
    meter.chain.run()
    assert exchange(meter.finish()) == [(4, 0, 4)]


# When flows end


def test_a_flow_ends_when_it_was_idle_for_as_long_as_stated_and_not_before() -> None:
    meter = Meter(idle_s=10)
    meter.sees_each([(S, udp()), (11 * S - 1, udp()), (21 * S - 2, udp()), (31 * S - 2, udp())])
    assert exchange(meter.told()) == [(3, 0, 1)]
    assert exchange(meter.finish()) == [(1, 0, 4)]
    assert meter.counters["idle"] == 1


def test_a_flow_that_begins_anew_has_the_direction_of_its_first_packet() -> None:
    meter = Meter(idle_s=10)
    meter.sees_each([(S, udp()), (20 * S, udp(B, A, 53, 5000)), (21 * S, udp())])
    assert [row["sourceIPv4Address"] for row in meter.told() + meter.finish()] == [A, B]


def test_idle_flows_are_told_while_only_others_have_packets() -> None:
    meter = Meter(idle_s=10)
    meter.sees(*[(S, udp(sport=port)) for port in range(1, 101)])
    meter.sees((11 * S - 1, udp(sport=1)))
    assert meter.told() == []
    meter.sees((11 * S + S, udp(sport=1)))
    assert exchange(meter.told()) == [(1, 0, 1)] * 99
    assert meter.stage.report()["flows"] == 1


def test_idle_flows_are_told_while_no_packet_comes() -> None:
    meter = Meter(idle_s=10)
    meter.sees(*[(S, udp(sport=port)) for port in range(1, 101)])
    meter.idles(11 * S - 1)
    assert meter.told() == []
    meter.idles(12 * S)
    assert exchange(meter.told()) == [(1, 0, 1)] * 100
    meter.idles(0)  # of a capture: nobody knows the time
    assert meter.stage.report()["flows"] == 0


def test_the_sweep_passes_the_table_once_a_second_and_bounded_by_batch() -> None:
    meter = Meter(idle_s=10, n_flows=40_000)
    for first in range(0, 30_000, 250):
        meter.sees(*[(S, quick(first + k)) for k in range(250)])
    meter.sees((11 * S, udp(src=B)))  # a second and more has passed, but only so many are looked at
    assert len(meter.stage.take()) == 8192
    meter.sees((11 * S + S // 10, udp(src=B)))
    assert len(meter.stage.take()) == 3000
    meter.idles(13 * S)
    assert len(meter.stage.take()) == 30_000 - 8192 - 3000


def test_a_flow_that_goes_on_is_told_at_the_active_timeout_and_counted_anew() -> None:
    meter = Meter(idle_s=100, active_s=20)
    meter.sees((S, udp()), (S, udp(B, A, 53, 5000, 5)))
    meter.sees_each([(second * S, udp()) for second in (10, 20)])
    assert meter.told() == []
    meter.sees((21 * S, udp(B, A, 53, 5000)))
    meter.sees((22 * S, udp()))
    first, second = meter.told() + meter.finish()
    assert exchange([first, second]) == [(3, 1, 2), (1, 1, 4)]
    assert second["sourceIPv4Address"] == A  # though B sent the first packet of this record
    assert second["flowStartNanoseconds"] == "1970-01-01T00:00:22.000000000Z"
    assert second["reverseFlowStartNanoseconds"] == "1970-01-01T00:00:21.000000000Z"
    assert meter.counters["active"] == 1
    assert meter.counters["flows"] == 1


def test_an_active_flow_is_told_in_time_and_has_no_record_of_nothing() -> None:
    meter = Meter(idle_s=100, active_s=20)
    meter.sees((S, udp()))
    meter.sees((15 * S, udp()))
    meter.idles(30 * S)
    assert exchange(meter.told()) == [(2, 0, 2)]
    meter.idles(60 * S)
    meter.idles(116 * S)
    assert meter.told() == []
    assert meter.stage.report()["flows"] == 0
    assert meter.finish() == []


@pytest.mark.parametrize("swept", [False, True])
def test_records_do_not_depend_on_when_the_sweep_comes_by(swept: bool) -> None:
    meter = Meter(idle_s=10, active_s=25)
    packets = [(t * S, udp(sport=p)) for t in range(1, 120) for p in (1, 2, 3) if t % (4 * p) == 0]
    told = []
    for each in packets:
        meter.sees(each)
        if swept:
            assert meter.stage.table is not None
            meter.stage.table.sweep()
        told += meter.told()
    told += meter.finish()
    told.sort(key=lambda row: (row["sourceTransportPort"], row["flowStartNanoseconds"]))
    found = {
        port: [
            each for row in told if row["sourceTransportPort"] == port for each in exchange([row])
        ]
        for port in (1, 2, 3)
    }
    assert found[1] == [(7, 0, 2), (7, 0, 2), (7, 0, 2), (7, 0, 2), (1, 0, 4)]
    assert found[2] == [(4, 0, 2), (4, 0, 2), (4, 0, 2), (2, 0, 4)]
    assert found[3] == [(1, 0, 1)] * 8 + [(1, 0, 4)]


CLOSED = [*HANDSHAKE, ("FA", False), ("A", True), ("FA", True), ("A", False)]
ENDINGS: dict[str, list[tuple[str, bool]]] = {
    "FIN of both and an ACK": CLOSED,
    "the responder closes first": [*HANDSHAKE, ("FA", True), ("FA", False), ("A", True)],
    "both FIN cross": [*HANDSHAKE, ("FA", False), ("FA", True), ("A", False), ("A", True)],
    "RST": [*HANDSHAKE, ("PA", False), ("R", True)],
    "refused": [("S", False), ("RA", True)],
}


@pytest.mark.parametrize("name", ENDINGS)
def test_tcp_ends_a_flow(name: str) -> None:
    meter = Meter()
    meter.sees(*conversation(S, *ENDINGS[name]))
    there = sum(not back for _, back in ENDINGS[name])
    meter.idles(4 * S)
    assert exchange(meter.told()) == [(there, len(ENDINGS[name]) - there, 3)]
    assert meter.counters["ended"] == 1


GOING_ON: dict[str, list[tuple[str, bool]]] = {
    "one FIN": [*HANDSHAKE, ("FA", False), ("A", True), ("PA", True), ("A", False)],
    "no ACK for the second FIN": [*HANDSHAKE, ("FA", False), ("FA", True)],
    "an ACK of the first FIN only": [*HANDSHAKE, ("FA", False), ("FA", True), ("A", True)],
    "FIN twice from one side": [*HANDSHAKE, ("FA", False), ("FA", False), ("A", True)],
}


@pytest.mark.parametrize("name", GOING_ON)
def test_tcp_does_not_end_a_flow_half(name: str) -> None:
    meter = Meter()
    meter.sees(*conversation(S, *GOING_ON[name]))
    meter.idles(50 * S)
    assert meter.told() == []
    assert exchange(meter.finish())[0][2] == 4


def test_what_is_still_under_way_does_not_begin_a_flow() -> None:
    meter = Meter(linger_s=1)
    meter.sees(*conversation(S, *CLOSED))
    meter.sees((S + S // 2, tcp("A", back=True)), (2 * S, tcp("A")))
    meter.idles(5 * S)
    assert exchange(meter.told()) == [(5, 4, 3)]


def test_what_comes_long_after_the_end_is_a_flow_of_its_own() -> None:
    meter = Meter(linger_s=1)
    meter.sees(*conversation(S, *CLOSED))
    meter.sees((3 * S, tcp("A", back=True)))
    assert exchange(meter.told()) == [(4, 3, 3)]
    assert exchange(meter.finish()) == [(1, 0, 4)]


@pytest.mark.parametrize("last", [7, 6])  # with or without the last ACK
def test_a_syn_begins_the_next_flow_at_once(last: int) -> None:
    meter = Meter(linger_s=10)
    meter.sees(*conversation(S, *CLOSED[:last]), (S + S // 2, tcp("S", back=True)))
    assert len(meter.told()) == 1
    [row] = meter.finish()
    assert (row["sourceIPv4Address"], row["tcpControlBits"]) == (B, 2)


def test_a_repeated_syn_or_syn_ack_begins_nothing() -> None:
    meter = Meter()
    meter.sees(*conversation(S, ("S", False), ("S", False), ("SA", True), ("SA", True)))
    meter.sees(*conversation(2 * S, *CLOSED[2:], ("SA", True)))
    assert len(meter.told() + meter.finish()) == 1


def test_without_linger_tcp_ends_no_flow() -> None:
    meter = Meter(linger_s=None)
    meter.sees(*conversation(S, *CLOSED, *CLOSED, ("R", False)))
    meter.idles(30 * S)
    assert exchange(meter.told() + meter.finish()) == [(9, 6, 4)]


def test_at_the_end_flows_are_forced_unless_they_were_over() -> None:
    meter = Meter(idle_s=10, active_s=15)
    meter.sees(*conversation(S, *CLOSED))
    meter.sees((2 * S, udp(sport=1)), (2 * S, udp(sport=2)))
    meter.sees_each([(9 * S, udp(sport=2)), (9 * S, udp(sport=3)), (16 * S, udp(sport=2))])
    told = meter.told()
    meter.sees((17 * S + S // 2, udp(sport=4)))
    told += meter.told() + meter.finish()
    by_port = {row["sourceTransportPort"]: row["flowEndReason"] for row in told}
    assert by_port == {5000: 3, 1: 1, 2: 2, 3: 4, 4: 4}
    meter.sees(*conversation(18 * S, *CLOSED))
    assert exchange(meter.finish()) == [(4, 3, 3)]
    assert meter.finish() == []


# Time


def test_a_packet_out_of_order_may_be_the_first_or_the_last() -> None:
    meter = Meter(idle_s=10)
    meter.sees((5 * S, udp()), (7 * S, udp()), (6 * S, udp()), (4 * S, udp()))
    [row] = meter.finish()
    assert row["flowStartNanoseconds"] == "1970-01-01T00:00:04.000000000Z"
    assert row["flowEndNanoseconds"] == "1970-01-01T00:00:07.000000000Z"
    assert exchange([row]) == [(4, 0, 4)]


def test_a_packet_out_of_order_does_not_end_a_flow() -> None:
    meter = Meter(idle_s=10)
    meter.sees((20 * S, udp()), (5 * S, udp()), (21 * S, udp()))
    assert exchange(meter.told() + meter.finish()) == [(3, 0, 4)]


@pytest.mark.parametrize("start", [0, (1 << 63) - 2 * S, (1 << 64) - 2 * S])
def test_time_may_wrap(start: int) -> None:
    meter = Meter(idle_s=10, active_s=100)
    times = [(start + k * S) % (1 << 64) for k in (0, 1, 3, 5, 16)]
    meter.sees_each([(time, udp()) for time in times])
    assert exchange(meter.told()) == [(4, 0, 1)]
    assert exchange(meter.finish()) == [(1, 0, 4)]


def test_flows_end_after_the_clock_was_set_back() -> None:
    meter = Meter(idle_s=10)
    hour = 3600 * S
    meter.sees(*[(hour + S, udp(sport=port)) for port in range(50)])
    meter.sees_each([(k * S, udp(sport=99)) for k in range(1, 9)])
    assert exchange(meter.told()) == [(1, 0, 1)] * 50
    meter.sees((19 * S, udp(sport=98)))
    meter.sees((20 * S, udp(sport=98)))
    assert exchange(meter.told()) == [(8, 0, 1)]


# Room


def test_exactly_as_many_flows_as_stated_find_room_and_the_rest_is_counted() -> None:
    meter = Meter(n_flows=4)
    meter.sees(*[(S, udp(sport=port)) for port in (1, 2, 3, 4, 5, 6, 1, 5, 5, 6)])
    counters = meter.counters
    assert (counters["no_room_flows"], counters["no_room_packets"]) == (2, 5)
    assert (counters["flows"], counters["metered"]) == (4, 5)
    assert sorted(exchange(meter.finish())) == [(1, 0, 4), (1, 0, 4), (1, 0, 4), (2, 0, 4)]


def test_a_flow_that_is_over_makes_room_before_the_sweep_comes_by() -> None:
    meter = Meter(n_flows=100, idle_s=10)
    meter.sees(*[(S, udp(sport=port)) for port in range(100)])
    meter.sees(*[(11 * S, udp(sport=1000 + port)) for port in range(100)])
    assert exchange(meter.told()) == [(1, 0, 1)] * 100
    assert meter.counters["no_room_flows"] == 0
    assert len(meter.finish()) == 100


def test_the_quietest_goes_where_one_must() -> None:
    meter = Meter(n_flows=4, evict=True)
    meter.sees_each([(t * S // 10, udp(sport=port)) for t, port in enumerate((1, 2, 3, 4, 1), 10)])
    meter.sees((S + S // 2, udp(sport=5)))
    [row] = meter.told()
    assert (row["sourceTransportPort"], row["flowEndReason"]) == (2, 5)
    assert {row["sourceTransportPort"] for row in meter.finish()} == {1, 3, 4, 5}
    assert meter.counters["resources"] == 1
    assert meter.counters["no_room_flows"] == 0


def test_entries_are_used_again_for_as_long_as_flows_come() -> None:
    meter = Meter(n_flows=64, idle_s=1)
    for second in range(200):
        meter.sees(*[(second * 2 * S, quick(second * 64 + k)) for k in range(64)])
        meter.stage.take()
    counters = meter.counters
    assert (counters["flows"], counters["no_room_flows"]) == (200 * 64, 0)
    assert (counters["idle"], counters["exported"]) == (199 * 64, 199 * 64)


def test_a_full_ring_loses_records_which_are_counted_and_the_sweep_waits() -> None:
    meter = Meter(n_flows=150_000, idle_s=10, buffer_mib=1)  # but no less than for 32,768
    ring = meter.stage._ring
    assert ring is not None
    room = ring.size // record_bytes(meter.stage.options)
    for first in range(0, room + 512, 256):
        meter.sees(*[(S, quick(k % 60_000, k // 60_000)) for k in range(first, first + 256)])
    n_flows = meter.counters["flows"]
    for _ in range(30):  # the sweep stops where it would lose
        meter.idles(60 * S)
    assert meter.counters["exported"] == room
    assert meter.counters["lost"] == 0
    assert meter.stage.report()["flows"] == n_flows - room
    last = (n_flows - 1) % 60_000, (n_flows - 1) // 60_000
    meter.sees((61 * S, quick(*last)))  # it begins anew: that cannot wait
    assert meter.counters["lost"] == 1
    assert len(meter.told()) == room
    rest = meter.finish()
    assert len(rest) == n_flows - room
    assert meter.counters["exported"] == n_flows


# Labels


SOURCE = """
#include "xp_batch.h"

/* Fill a column of eight bytes a packet with the payload, as columns of texts are filled. */
void fill(struct xp_batch *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t n = b->payload_len[i] > 0 ? (uint32_t)b->payload_len[i] : 0;
        xp_text_t text = xp_copy_text(b, xp_packet(b, i) + b->payload[i], n);

        memcpy(&b->tx_tag[i], &text, sizeof(text));
        text.at = 0xfffffff0; /* and one that nobody could believe */
        memcpy(&b->nic_time_ns[i], &text, sizeof(text));
    }
}
"""


class Labelled(Meter):
    """A meter behind a stage that gives each packet its payload as a text."""

    def __init__(self, fill: Any, **options: Any) -> None:
        super().__init__(labels=("tx_tag", "nic_time_ns"), **options)
        self.headers = Headers()
        self.fill = fill

    def sees(self, *timed: tuple[int, Packet | bytes]) -> None:
        run, self.chain.run = self.chain.run, lambda: None  # type: ignore[method-assign]
        super().sees(*timed)
        self.chain.run = run  # type: ignore[method-assign]
        self.headers.process(self.batch)
        self.fill(ctypes.c_void_p(int(ffi.cast("uintptr_t", self.batch.c))))
        self.chain.run()


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a C function that fills columns with texts."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    directory = tmp_path_factory.mktemp("fill")
    (directory / "fill.c").write_text(SOURCE)
    include = Path(xdpipe.core.__file__).parent
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", f"-I{include}", "-o", "fill.so", "fill.c"],
        cwd=directory, check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(directory / "fill.so")).fill


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two columns of eight bytes be texts."""
    for name in ("tx_tag", "nic_time_ns"):
        monkeypatch.setattr(COLUMNS[name], "text", True)


def say(text: bytes, sport: int = 1) -> Packet:
    return ETHER / IP(src=A, dst=B) / UDP(sport=sport, dport=2) / Raw(text)


@pytest.mark.usefixtures("texts")
def test_the_first_text_of_each_flow_is_kept_bounded(fill: Any) -> None:
    meter = Labelled(fill, label_bytes=8)
    meter.sees(
        (S, say(b"")), (S, say(b"one")), (S, say(b"other")), (S, say(b"123456789", 2)),
        (S, say(b"\xff\n\"\\", 3)), (S, say(b"", 4)),
    )  # fmt: skip
    rows = meter.finish()
    assert [row.get("tx_tag") for row in rows] == ["one", "12345678", '\\xff\n"\\', None]
    assert not any("nic_time_ns" in row for row in rows)  # not one that lies beyond all texts


@pytest.mark.usefixtures("texts")
def test_labels_stay_at_the_active_timeout_and_go_with_the_flow(fill: Any) -> None:
    meter = Labelled(fill, active_s=10, idle_s=20)
    meter.sees((S, say(b"one")))
    meter.sees((12 * S, say(b"two")))
    meter.sees((40 * S, say(b"")))
    told = [(row.get("tx_tag"), row["flowEndReason"]) for row in meter.told() + meter.finish()]
    assert told == [("one", 2), ("one", 1), (None, 4)]


# Set-up


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"idle_s": 0}, "idle_s=0: 0.001 to 1,000,000 seconds"),
        ({"active_s": float("nan")}, "active_s=nan: 0.001 to"),
        ({"linger_s": -1}, "linger_s=-1: 0.001 to"),
        ({"n_flows": 0}, "n_flows=0: 1 to 1,073,741,824"),
        ({"n_flows": 1.5}, "n_flows=1.5: 1 to"),
        ({"labels": "src"}, "labels='src': write a tuple of names of columns"),
        ({"labels": ("src",)}, "'src' is no column of texts; there are: "),
        ({"labels": ("absent",)}, "'absent' is no column of texts"),
        ({"label_bytes": 256}, "label_bytes=256: 1 to 255"),
        ({"path": "x", "format": "xml"}, "format='xml': ndjson, csv, parquet"),
        ({"path": "x.csv", "format": "ndjson"}, "x.csv is not ndjson"),
        ({"path": 7}, "path=7: name a file or a directory"),
        ({"file_mib": 0.5}, "file_mib=0.5: at least 1"),
        ({"file_s": 0}, "file_s=0: seconds, more than 0, or None"),
        ({"n_files": 0}, "n_files=0: a whole number from 1 on, or None"),
        ({"buffer_mib": 0}, "buffer_mib=0: 1 to 65536"),
    ],
)
def test_options_that_cannot_be_are_one_clear_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(XdpipeError) as caught:
        FlowMeter(**given)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_chain_says_what_it_needs_before_it() -> None:
    meter = Meter()
    with pytest.raises(ChainError, match=r"add Headers\(\) before FlowMeter"):
        Chain([FlowMeter()], meter.batch)


def test_a_table_that_finds_no_memory_is_one_clear_line() -> None:
    stage = FlowMeter(n_flows=1 << 30, labels=())
    stage.options.__dict__["label_bytes"] = 255  # as many bytes as can be declared, and more
    object.__setattr__(stage.options, "labels", ("a",) * 8)
    assert table_bytes(stage.options) > 1 << 41


def test_memory_is_as_stated() -> None:
    options = FlowMeter(n_flows=1 << 20).options
    assert 136 <= table_bytes(options) / (1 << 20) <= 137
    assert Meter(n_flows=1 << 16).stage.report()["memory_mib"] == 8.5


def test_the_report_names_the_flows_with_the_most_bytes() -> None:
    meter = Meter()
    meter.sees(*[(S, udp(sport=port, size=port)) for port in range(1, 30)])
    six = ETHER / IPv6(src="fd01::2", dst="fd01::1") / UDP(sport=7, dport=9) / bytes(500)
    meter.sees((S, six), (S, tagged(Dot1Q(vlan=5))))
    report = meter.stage.report()
    assert report["flows"] == 31
    top = list(report["top"].items())
    assert top[0] == ("[fd01::2]:7 > [fd01::1]:9 udp", 548)
    assert top[1:] == [(f"{A}:{p} > {B}:53 udp", 28 + p) for p in range(29, 22, -1)]


def test_bound_again_it_begins_with_no_flows() -> None:
    meter = Meter()
    meter.sees((S, udp()))
    meter.stage.bind_alone()
    assert meter.stage.report()["flows"] == 0
    assert meter.finish() == []


# Memory


def test_no_byte_behind_a_packet_is_read() -> None:
    guarded = GuardedBatch(128)
    stages = Headers(), FlowMeter()
    for packet in (bytes(udp()), bytes(tcp("S")), tagged(Dot1AD(vlan=9), Dot1Q(vlan=6))):
        batch = guarded.load_cuts(packet, list(range(min(len(packet), 127) + 1)))
        for stage in stages:
            stage.process(batch)
    assert len(list(stages[1].finish())[-1]) == 3


def test_a_packet_in_several_frames_counts_with_all_its_bytes() -> None:
    queue = Queue()
    packet = bytes(udp(size=3000))
    queue.arrives(cut(packet, 1000, 2000))
    assert lib.xp_receive(queue.worker) == 1
    stages = Headers(), FlowMeter()
    for stage in stages:
        stage.process(queue.batch)
    records = list(stages[1].finish())[-1]
    assert records["bytes"].tolist() == [[3028, 0]]


def test_numpy_sees_records_as_the_core_writes_them() -> None:
    options = FlowMeter().options
    assert record_dtype(options).itemsize == record_bytes(options) == 112
    assert rows(np.zeros(0, record_dtype(options)), options) == []


def test_a_table_of_nonsense_harms_nobody_who_goes_on_with_it() -> None:
    """A worker that was taken over can write anything there: the next one and the recorder live."""
    rng = np.random.default_rng(1)
    options = FlowMeter(n_flows=500, idle_s=10, labels=()).options
    size = table_bytes(options)
    for round_ in range(30):
        fd = shared_memory("flows", size)
        ring = BlockRing(ring_size(200 * record_bytes(options)))
        known = FlowTable(options, ring, fd)
        memory = mmap.mmap(fd, size)
        raw = np.frombuffer(memory, np.uint8)
        whole = 8 + ffi.sizeof("struct xp_flow_options")  # who goes on looks for these
        raw[whole:] = rng.integers(0, 256, size - whole, np.uint8)
        if round_ % 2:
            raw[whole : whole + 80] = 0xFF
        stage = FlowMeter(n_flows=500, idle_s=10)
        stage.serve(BlockRing(ring.size, os.dup(ring.fd)), fd)
        batch = Batch(mmap.mmap(-1, 1 << 20), 256)
        chain = Chain([Headers(), stage], batch)
        for second in range(40):
            batch.load([quick(port) for port in range(round_, round_ + 256)], second * S)
            chain.run()
        left = FlowTable(options, BlockRing(ring.size, os.dup(ring.fd)), fd)
        for _ in range(10):
            position = ring.position
            data, n = ring.peek_records(position.consumer, record_bytes(options), 1 << 40)
            records = np.frombuffer(bytes(data), record_dtype(options), n)
            assert len(to_ndjson(records, options).splitlines()) == n
            ring.release(position._replace(consumer=position.consumer + len(data)))
            if not left.finish(1000):
                break
        assert left.n_now == 0
        assert known.n_bytes == size
        ring.close()
        os.close(fd)
