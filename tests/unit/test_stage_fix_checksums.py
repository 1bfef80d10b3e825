"""FixChecksums: what is computed anew, and what has no checksum that could be."""

import numpy as np
import pytest
from made_packets import KINDS, MALFORMED, WAS
from scapy.compat import raw
from test_multi_buffer import cut, in_frames

from guard_page import GuardedBatch
from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.batch import Batch
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import FixChecksums, Headers

L4_AT = {"TCP": 16, "UDP": 6, "ICMP": 2, "ICMP6": 2}
HEADER_ALONE = {
    "IPv4 UDP without checksum", "IPv4 with a way to go", "IPv4, another protocol",
    "IPv4 first fragment", "IPv4 later fragment",
}  # fmt: skip
NOTHING = {
    "ARP", "IPv6 UDP without checksum", "IPv6 with a way to go", "IPv6 away from home",
    "IPv6 first fragment", "IPv6 later fragment",
}  # fmt: skip


def spoil(batch: Batch, by: int) -> None:
    """Add a number to each checksum that is not 0."""
    for column, at, where in [
        (batch.l3, 10, batch.has("IPV4")), *((batch.l4, at, batch.has(flag))
                                              for flag, at in L4_AT.items()),
    ]:  # fmt: skip
        now = batch.u16(column + at)
        batch.put_u16(column + at, (now + np.uint16(by)) & 0xFFFF, where & (now != 0))


@pytest.mark.parametrize("by", [1, 0x100, 0x7FFF])
def test_checksums_are_as_the_packet_was_made_with(by: int) -> None:
    right = [raw(make(WAS)) for make in KINDS.values()]
    batch = parsed(right)
    spoil(batch, by)
    spoiled = bytes_of(batch)
    stage = FixChecksums()
    stage.process(batch)
    for kind, was, packet, before in zip(KINDS, right, bytes_of(batch), spoiled, strict=True):
        l4 = int(batch.l4[list(KINDS).index(kind)])
        if kind in NOTHING:
            assert packet == before, kind
        elif kind in HEADER_ALONE:
            assert packet[:34] == was[:34], kind
            assert packet[l4:] == before[l4:], kind
        else:
            assert packet == was, kind
    check_columns(batch)
    assert counts(stage) == {
        "fixed": len(KINDS) - len(NOTHING), "right": 0, "left_alone": len(NOTHING),
    }  # fmt: skip


def test_what_is_right_stays_and_is_counted_so() -> None:
    right = [raw(make(WAS)) for make in KINDS.values()]
    batch = parsed(right)
    stage = FixChecksums()
    stage.process(batch)
    assert bytes_of(batch) == right
    assert counts(stage) == {
        "fixed": 0, "right": len(KINDS) - len(NOTHING), "left_alone": len(NOTHING),
    }  # fmt: skip


@pytest.mark.parametrize("at", [15, 33, 60, 61, 100])
def test_a_packet_in_several_frames_is_summed_over_all(at: int) -> None:
    whole = raw(KINDS["IPv4 UDP, odd"](WAS))
    wrong = whole[:40] + b"\x12\x34" + whole[42:]
    batch = in_frames([cut(wrong, at)])
    Headers().process(batch)
    stage = FixChecksums()
    stage.process(batch)
    in_first = at >= 42
    assert bytes(batch.packet(0)) == (whole if in_first else wrong)
    assert counts(stage) == {
        "fixed": int(in_first), "right": 0, "left_alone": int(not in_first),
    }  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_packets_are_left_alone(kind: str) -> None:
    batch = GuardedBatch(1).load([MALFORMED[kind]])
    Headers().process(batch)
    stage = FixChecksums()
    stage.process(batch)
    assert bytes(batch.packet(0)) == MALFORMED[kind]
    assert counts(stage) == {"fixed": 0, "right": 0, "left_alone": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_or_written_beyond_a_packet(kind: str) -> None:
    whole = raw(KINDS[kind](WAS))
    guarded = GuardedBatch(1)
    for n in range(len(whole) + 1):
        batch = guarded.load([whole[:n]])
        Headers().process(batch)
        FixChecksums().process(batch)


def test_only_undecided_packets_with_the_mark() -> None:
    packet = raw(KINDS["IPv4 UDP"](WAS))
    wrong = packet[:24] + b"\0\0" + packet[26:]
    batch = parsed([wrong] * 3)
    batch.drop(np.array([True, False, False]))
    batch.mark[:] = [1, 1, 2]
    FixChecksums(only=1).process(batch)
    assert bytes_of(batch) == [wrong, packet, wrong]
    with pytest.raises(XdpipeError, match="only=-1: a mark"):
        FixChecksums(only=-1)


def test_a_checksum_that_is_due_anyway_comes_out_the_same() -> None:
    packet = raw(KINDS["IPv6 TCP"](WAS))
    batch = parsed([packet])
    batch.put_u16(batch.l4 + 16, 7)
    batch.fill_checksum(np.array([True]))
    FixChecksums().process(batch)
    lib.xp_fill_checksums(batch.c)
    assert bytes_of(batch) == [packet]
