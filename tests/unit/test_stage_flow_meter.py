"""FlowMeter: what a flow is, and exactly what is told of it."""

from typing import Any

import numpy as np
import pytest
from flow_meters import ETHER, A, B, Meter, S, exchange, tagged, udp
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

from xdpipe.chain import Chain, ChainError
from xdpipe.errors import XdpipeError
from xdpipe.flow_table import table_bytes
from xdpipe.stages import FlowMeter

ENDED = {"idle": 0, "active": 0, "ended": 0, "forced": 0, "resources": 0}
NONE = {
    "metered": 0, "flows": 0, "exported": 0, "lost": 0, "no_room_flows": 0, "no_room_packets": 0,
    "other": 0, "malformed": 0, **ENDED,
}  # fmt: skip


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
