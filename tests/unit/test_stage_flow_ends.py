"""FlowMeter: when a flow ends, and why; and what time it is."""

import pytest
from flow_meters import A, B, Meter, S, exchange, quick, tcp, udp
from scapy.packet import Packet

HANDSHAKE = [("S", False), ("SA", True), ("A", False)]


def conversation(start: int, *flags: tuple[str, bool]) -> list[tuple[int, Packet]]:
    """Return TCP segments, a millisecond apart: flags, and whether the responder sends."""
    return [(start + i * S // 1000, tcp(f, back=back)) for i, (f, back) in enumerate(flags)]


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
