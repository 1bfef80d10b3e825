"""Where: packets that a filter takes, and the others, get what they are to get."""

import pytest
from test_multi_buffer import in_frames

from crafted import batch_of, counters, udp
from xdpipe import DROP, FORWARD, PASS, TX, Verdict
from xdpipe.batch import Batch
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.stages import Where

PACKETS = [udp(dport=port, size=port % 7) for port in (53, 80, 53, 443)]


@pytest.mark.parametrize("verdict", [None, DROP, TX, PASS, FORWARD])
@pytest.mark.parametrize("otherwise", [None, DROP, TX, PASS, FORWARD])
@pytest.mark.parametrize("mark", [None, 0, 7, (1 << 32) - 1])
def test_each_packet_gets_what_is_said_of_it(
    verdict: Verdict | None, otherwise: Verdict | None, mark: int | None
) -> None:
    if (verdict, otherwise, mark) == (None, None, None):
        return
    batch = batch_of(PACKETS)
    batch.mark[:] = 5
    stage = Where("port 53", verdict=verdict, otherwise=otherwise, mark=mark)
    stage.process(batch)
    yes, no = verdict or 0, otherwise or 0
    assert batch.verdict.tolist() == [yes, no, yes, no]
    new = 5 if mark is None else mark
    assert batch.mark.tolist() == [new, 5, new, 5]
    assert counters(stage) == {"matched": 2, "other": 2}


def test_what_is_decided_stays_so_and_is_marked_all_the_same() -> None:
    batch = batch_of(PACKETS)
    batch.verdict[:] = TX
    stage = Where("port 53", verdict=DROP, otherwise=PASS, mark=9)
    stage.process(batch)
    assert batch.verdict.tolist() == [TX] * 4
    assert batch.mark.tolist() == [9, 0, 9, 0]
    assert counters(stage) == {"matched": 2, "other": 2}


FILTERS = ["", "udp", "not udp", "ip6", "udp[4:2] > 10", "greater 43", "dst port 53 and less 43",
           "ether[40:4] = 0", "ip[0] & 0xf = 5 and ip[8] > 3"]  # fmt: skip


@pytest.mark.parametrize("expression", FILTERS)
def test_it_takes_what_libpcap_takes(expression: str) -> None:
    packets = [udp(size=size) for size in range(8)] + [udp("::1", "::2")]
    packets += [packets[3][:n] for n in range(len(packets[3]))]
    stage = Where(expression, mark=1)
    batch = batch_of(packets)
    stage.process(batch)
    matches = [Filter(expression).matches(packet) for packet in packets]
    assert batch.mark.tolist() == matches
    assert stage.counted("matched") == sum(matches)


def test_of_a_packet_in_several_frames_it_sees_the_first_and_the_length() -> None:
    packet = udp(size=1000)[:-1] + b"\x2a"
    for expression, expected in (
        ("ether[1041] = 42", [False, True]),  # the last byte lies in the second frame
        ("len = 1042", [True, True]),
        ("udp dst port 53", [True, True]),
    ):
        batch = in_frames([[packet[:1000], packet[1000:]], [packet]])
        stage = Where(expression, mark=1)
        stage.process(batch)
        assert batch.mark.tolist() == expected, expression


def test_it_needs_no_stage_before_it() -> None:
    batch = Batch(bytearray(4096), 4)
    batch.load(PACKETS)
    Where("port 53", verdict=DROP).process(batch)
    assert batch.verdict.tolist() == [DROP, 0, DROP, 0]
    assert Where("", mark=1).requires == ()


def test_an_empty_batch_is_none() -> None:
    stage = Where("udp", verdict=DROP)
    batch = Batch(bytearray(64), 1)
    batch.load([])
    stage.process(batch)
    assert counters(stage) == {"matched": 0, "other": 0}


@pytest.mark.parametrize(
    ("filter", "options", "message"),
    [
        ("udp", {}, "Where: nothing would happen: give verdict, otherwise or mark"),
        ("udp dst prot 53", {"mark": 1}, 'filter "udp dst prot 53"'),
        ("udp", {"verdict": 1}, "Where: 1 is no verdict"),
        ("udp", {"otherwise": Verdict.UNDECIDED}, "is no verdict: DROP, TX, PASS, FORWARD or None"),
        ("udp", {"mark": -1}, "Where: mark=-1"),
        ("udp", {"mark": 1 << 32}, "a mark is a number from 0 to 2\\*\\*32 - 1"),
        ("udp", {"mark": "x"}, "Where: mark='x'"),
        ("inbound", {"mark": 1}, "asks for what is not in the packet"),
    ],
)
def test_what_cannot_be_is_refused(filter: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(XdpipeError, match=message):
        Where(filter, **options)
