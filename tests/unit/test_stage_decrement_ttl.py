"""DecrementTtl: what a router does to a packet that it forwards."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_packets import KINDS, MALFORMED, WAS, ether
from scapy.compat import raw
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from test_multi_buffer import cut, in_frames
from test_stage_set_addresses import WORDS

from guard_page import GuardedBatch
from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.errors import XdpipeError
from xdpipe.stages import DecrementTtl, Headers
from xdpipe.verdict import DROP, FORWARD, PASS, TX, Verdict

WITH_IP = [kind for kind in KINDS if kind not in ("ARP", "IPv4 UDP, padded")]


def of_ttl(kind: str, ttl: int) -> bytes:
    packet: Packet = KINDS[kind](WAS)
    if IP in packet:
        packet[IP].ttl = ttl
    else:
        packet[IPv6].hlim = ttl
    return raw(packet)


@pytest.mark.parametrize("by", [1, 2, 63, 64, 128, 254, 255])
def test_it_is_as_if_the_packet_had_been_made_so(by: int) -> None:
    ttls = [ttl for ttl in (2, 63, 64, 65, 128, 129, 254, 255) if ttl > by]
    for ttl in ttls:
        batch = parsed(of_ttl(kind, ttl) for kind in WITH_IP)
        stage = DecrementTtl(by)
        stage.process(batch)
        assert bytes_of(batch) == [of_ttl(kind, ttl - by) for kind in WITH_IP]
        check_columns(batch)
        assert counts(stage) == {"decremented": len(WITH_IP), "expired": 0, "left_alone": 0}
        assert batch.undecided.all()


@pytest.mark.parametrize("expired", [DROP, TX, PASS, FORWARD, None])
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_would_reach_0_is_decided_and_not_changed(
    version: int, expired: Verdict | None
) -> None:
    kind = f"IPv{version} UDP"
    packets = [of_ttl(kind, ttl) for ttl in (0, 1, 2, 3, 4, 255)]
    batch = parsed(packets)
    stage = DecrementTtl(by=3, expired=expired)
    stage.process(batch)
    wanted = expired or Verdict.UNDECIDED
    assert batch.verdict.tolist() == [wanted] * 4 + [0, 0]
    assert bytes_of(batch) == [*packets[:4], of_ttl(kind, 1), of_ttl(kind, 252)]
    assert batch.ip_ttl.tolist() == [0, 1, 2, 3, 1, 252]
    assert counts(stage) == {"decremented": 2, "expired": 4, "left_alone": 0}


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS, st.integers(2, 255), st.data())
def test_the_checksum_is_what_is_computed_anew(
    identity: int, target: int, ttl: int, data: st.DataObject
) -> None:
    by = data.draw(st.integers(1, ttl - 1))

    def make(ttl: int, identity: int) -> Packet:
        return ether(WAS) / IP(src="10.0.0.1", dst="10.0.0.2", ttl=ttl, id=identity) / UDP()

    if data.draw(st.booleans()):  # such that the checksum after, or before, is as drawn
        known = ttl - by if data.draw(st.booleans()) else ttl
        checksum = int.from_bytes(raw(make(known, 0))[24:26], "big")
        identity = (checksum - target) % 0xFFFF
    batch = parsed([raw(make(ttl, identity))])
    DecrementTtl(by).process(batch)
    assert bytes(batch.packet(0)) == raw(make(ttl - by, identity))


def test_a_wrong_checksum_stays_wrong_by_as_much() -> None:
    batch = parsed([of_ttl("IPv4 UDP", 64)] * 3)
    right = int(batch.u16(batch.l3 + 10)[0])
    batch.put_u16(batch.l3 + 10, np.array([right ^ 1, 0, 0xFFFF], np.uint64))
    was = batch.u16(batch.l3 + 10).astype(np.int64)
    DecrementTtl().process(batch)
    after = int.from_bytes(of_ttl("IPv4 UDP", 63)[24:26], "big")
    got = batch.u16(batch.l3 + 10).astype(np.int64)
    assert ((got - after - (was - right)) % 0xFFFF).tolist() == [0, 0, 0]


def test_what_is_malformed_or_no_ip_is_left_alone() -> None:
    packets = [*MALFORMED.values(), raw(KINDS["ARP"](WAS))]
    batch = parsed(packets)
    stage = DecrementTtl()
    stage.process(batch)
    assert bytes_of(batch) == packets
    assert batch.undecided.all()
    assert counts(stage) == {"decremented": 0, "expired": 0, "left_alone": len(packets)}


def test_only_undecided_packets_with_the_mark() -> None:
    batch = parsed([of_ttl("IPv4 UDP", 1)] * 2 + [of_ttl("IPv4 UDP", 9)] * 3)
    batch.verdict[:] = [TX, 0, TX, 0, 0]
    batch.mark[:] = [6, 6, 6, 6, 0]
    stage = DecrementTtl(only=6)
    stage.process(batch)
    assert batch.verdict.tolist() == [TX, DROP, TX, 0, 0]
    assert batch.ip_ttl.tolist() == [1, 1, 9, 8, 9]
    assert counts(stage) == {"decremented": 1, "expired": 1, "left_alone": 0}


@pytest.mark.parametrize("kind", ["IPv4 TCP", "IPv6 TCP", "IPv4 options", "two tags"])
def test_nothing_is_written_beyond_a_packet(kind: str) -> None:
    whole = of_ttl(kind, 64)
    guarded = GuardedBatch(1)
    for n in range(len(whole) + 1):
        batch = guarded.load([whole[:n]])
        Headers().process(batch)
        DecrementTtl().process(batch)
    for at in range(1, len(whole)):
        several = in_frames([cut(whole, at)])
        Headers().process(several)
        DecrementTtl().process(several)
        fine = not several.malformed[0]
        assert bytes(several.packet(0)) == (of_ttl(kind, 63) if fine else whole)
    assert fine


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"by": 0}, "DecrementTtl: by=0: 1 to 255"),
        ({"by": 256}, "by=256"),
        ({"by": 1.0}, "by=1.0"),
        ({"expired": "DROP"}, "expired='DROP': DROP, TX, PASS, FORWARD, or None"),
        ({"expired": Verdict.UNDECIDED}, "or None"),
        ({"expired": 1}, "expired=1"),
        ({"only": "x"}, "only='x'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(XdpipeError) as raised:
        DecrementTtl(**given)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
