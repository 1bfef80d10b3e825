"""TcpStreams: which bytes of a segment come next in their stream."""

import random
import struct
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpipe.batch import ABSENT, ENUMS, Batch
from xdpipe.chain import Chain
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, TcpStreams

FIN, SYN, RST, ACK = 1, 2, 4, 16
A, B = (b"\x0a\0\0\1", 40000), (b"\x0a\0\0\2", 443)
TOLD = {name: bit for name, (bit, _) in ENUMS["tcp_stream_told"].items()}
S = 1_000_000_000


def segment(
    seq: int, data: bytes = b"", flags: int = ACK, ack: int = 0, *, back: bool = False,
    ends: tuple[tuple[bytes, int], tuple[bytes, int]] = (A, B),
) -> bytes:  # fmt: skip
    """Return an Ethernet frame with this TCP segment; `back`: from the second end to the first."""
    (src, sport), (dst, dport) = reversed(ends) if back else ends
    tcp = struct.pack(
        ">HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, 0x50, flags, 65535, 0, 0
    )
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0, src, dst
    )  # fmt: skip
    return bytes(12) + b"\x08\0" + ip + tcp + data


@dataclass
class Followed:
    """The chain Headers, TcpStreams, and what it made of the packets so far."""

    stage: TcpStreams = field(default_factory=TcpStreams)
    capacity: int = 64

    def __post_init__(self) -> None:
        self.batch = Batch(bytearray(1 << 20), self.capacity)
        self.chain = Chain([Headers(), self.stage], self.batch)

    def run(self, *packets: bytes, time_ns: int = S) -> list[dict[str, object]]:
        """Run one batch; return for each packet what was told, and its pieces."""
        batch = self.batch
        batch.load(packets, time_ns)
        self.chain.run()
        return [
            {
                "stream": int(batch.tcp_stream[i]),
                "id": int(batch.tcp_stream_id[i]),
                "dir": int(batch.tcp_stream_dir[i]),
                "told": {name for name, bit in TOLD.items() if batch.tcp_stream_told[i] & bit},
                "pieces": batch.stream(i),
                "own": (int(batch.tcp_data[i]), int(batch.tcp_data_len[i])),
            }
            for i in range(len(packets))
        ]

    @property
    def counts(self) -> dict[str, int]:
        counters: dict[str, int] = self.chain.read_counts()[1]["counters"]
        return {name: n for name, n in counters.items() if n}


def joined(rows: list[dict[str, object]]) -> bytes:
    return b"".join(data for row in rows for _, data in row["pieces"])  # type: ignore[attr-defined]


def test_a_connection_is_followed_from_its_syn_to_both_fins() -> None:
    f = Followed()
    rows = f.run(
        segment(100, flags=SYN),
        segment(900, flags=SYN | ACK, ack=101, back=True),
        segment(101, ack=901),
        segment(101, b"hello", ack=901),
        segment(901, b"world!", ack=106, back=True),
        segment(106, flags=FIN | ACK, ack=907),
        segment(907, flags=FIN | ACK, ack=107, back=True),
        segment(107, ack=908),
    )
    assert [row["stream"] for row in rows] == [1] * 8
    assert [row["id"] for row in rows] == [1] * 8
    assert [row["dir"] for row in rows] == [0, 1, 0, 0, 1, 0, 1, 0]
    assert [row["told"] for row in rows] == [
        {"BEGINS"}, {"BEGINS"}, set(), set(), set(), {"ENDS"}, {"ENDS"}, set(),
    ]  # fmt: skip
    assert [row["pieces"] for row in rows] == [
        [], [], [], [(0, b"hello")], [(0, b"world!")], [], [], [],
    ]  # fmt: skip
    assert rows[3]["own"] == (54, 5)
    assert rows[2]["own"] == (ABSENT, 0)
    assert f.counts == {"connections": 1, "ended": 1, "bytes": 11}


def test_bytes_that_come_too_early_are_handed_on_behind_those_before_them() -> None:
    f = Followed()
    rows = f.run(segment(0, flags=SYN), segment(4, b"def"), segment(7, b"ghi"))
    assert [row["told"] for row in rows] == [{"BEGINS"}, {"EARLY"}, {"EARLY"}]
    assert joined(rows) == b""
    assert f.stage.report() == {"connections_held": 1, "chunks_held": 2}
    rows = f.run(segment(1, b"abc"))
    assert rows[0]["pieces"] == [(0, b"abc"), (0, b"def"), (0, b"ghi")]
    assert rows[0]["own"] == (54, 3)
    assert f.stage.report()["chunks_held"] == 2  # the batch refers to them
    f.run()
    assert f.stage.report()["chunks_held"] == 0
    assert f.counts == {"connections": 1, "bytes": 9, "early": 2}


def test_bytes_that_come_twice_count_once_and_the_first_ones_count() -> None:
    f = Followed()
    rows = f.run(
        segment(0, flags=SYN), segment(1, b"abcd"), segment(1, b"ABCD"), segment(3, b"CDef"),
        segment(0, flags=SYN), segment(9, b"ij"), segment(7, b"ghIJk"),
    )  # fmt: skip
    assert joined(rows) == b"abcdefghIJk"
    assert [row["told"] for row in rows] == [
        {"BEGINS"}, set(), {"AGAIN"}, {"AGAIN"}, {"AGAIN"}, {"EARLY"}, set(),
    ]  # fmt: skip
    assert f.counts["again"] == 2


def test_a_gap_that_the_other_side_acknowledged_is_given_up() -> None:
    f = Followed()
    f.run(segment(0, flags=SYN), segment(500, flags=SYN | ACK, ack=1, back=True))
    rows = f.run(segment(501, ack=11, back=True), segment(11, b"late"))
    assert rows[1]["pieces"] == [(10, b"late")]
    assert rows[1]["told"] == {"LOST"}
    # and where something is kept behind the gap already, with the next packet
    rows = f.run(segment(20, b"uvw"), segment(501, ack=23, back=True), segment(23, b"xyz"))
    assert [row["pieces"] for row in rows] == [[], [], [(5, b"uvw"), (0, b"xyz")]]
    assert f.counts == {
        "connections": 1, "bytes": 10, "early": 1, "gaps": 2, "lost_bytes": 15,
    }  # fmt: skip


def test_a_gap_is_given_up_when_it_has_waited() -> None:
    f = Followed(TcpStreams(wait_s=1))
    f.run(segment(0, flags=SYN), segment(5, b"efg"), time_ns=S)
    assert joined(f.run(segment(8, b"h"), time_ns=2 * S)) == b""
    rows = f.run(segment(9, b"i"), time_ns=2 * S + 1)
    assert rows[0]["pieces"] == [(4, b"efg"), (0, b"h"), (0, b"i")]


def test_a_gap_is_given_up_when_a_direction_has_kept_all_it_may() -> None:
    f = Followed(capacity=128)
    rows = f.run(segment(0, flags=SYN), *(segment(2 + 2 * k, b"x") for k in range(65)))
    assert all(row["told"] == {"EARLY"} for row in rows[1:65])
    assert rows[65]["told"] == {"LOST", "EARLY"}
    assert rows[65]["pieces"] == [(1, b"x")]
    assert f.counts["gaps"] == 1


def test_without_a_chunk_a_gap_is_given_up_at_once() -> None:
    f = Followed(TcpStreams(n_chunks=0))
    rows = f.run(segment(0, flags=SYN), segment(4, b"def"), segment(1, b"abc"))
    assert [row["pieces"] for row in rows] == [[], [(3, b"def")], []]
    assert rows[2]["told"] == {"AGAIN"}


def test_who_has_kept_for_longest_makes_room_for_others() -> None:
    f = Followed(TcpStreams(n_chunks=1))
    other = ((b"\x0a\0\0\3", 1), (b"\x0a\0\0\4", 2))
    f.run(segment(0, flags=SYN), segment(0, flags=SYN, ends=other))
    f.run(segment(3, b"c"), segment(3, b"C", ends=other))
    assert f.stage.report()["chunks_held"] == 1
    rows = f.run(segment(1, b"ab"), segment(1, b"AB", ends=other))
    assert [row["pieces"] for row in rows] == [[(0, b"ab")], [(0, b"AB"), (0, b"C")]]
    assert f.counts["thrown_away_bytes"] == 1


def test_a_long_early_segment_takes_several_chunks() -> None:
    f = Followed()
    data = random.Random(1).randbytes(5000)
    f.run(segment(0, flags=SYN), segment(101, data))
    assert f.stage.report()["chunks_held"] == 3
    assert joined(f.run(segment(1, bytes(100)))) == bytes(100) + data


def test_a_stream_without_a_syn_begins_in_its_middle() -> None:
    f = Followed()
    rows = f.run(segment(77, b"abc"), segment(9, b"answer", back=True), segment(80, b"d"))
    assert [row["told"] for row in rows] == [{"BEGINS", "MIDDLE"}, {"BEGINS", "MIDDLE"}, set()]
    assert [row["dir"] for row in rows] == [0, 1, 0]
    assert joined(rows) == b"abcanswerd"
    assert f.counts == {"connections": 1, "middle": 2, "bytes": 10}


def test_the_end_with_the_lower_port_is_taken_for_the_one_that_was_connected_to() -> None:
    f = Followed()
    rows = f.run(segment(9, b"answer", back=True), segment(77, b"abc"))
    assert [row["dir"] for row in rows] == [1, 0]
    assert Followed().run(segment(9, flags=SYN | ACK, back=True))[0]["dir"] == 1


def test_nothing_is_followed_for_a_segment_without_bytes() -> None:
    f = Followed()
    rows = f.run(segment(5), segment(5, flags=RST), segment(5, flags=FIN | ACK))
    assert [row["stream"] for row in rows] == [0, 0, 0]
    assert f.counts == {}


@pytest.mark.parametrize("back", [False, True])
def test_a_reset_ends_the_connection_and_throws_away_what_was_kept(back: bool) -> None:
    f = Followed()
    f.run(segment(0, flags=SYN), segment(3, b"c"))
    seq = 77 if back else 1
    rows = f.run(segment(seq, flags=RST | ACK, ack=1, back=back))
    assert rows[0]["told"] == {"RESET"}
    assert f.stage.report()["chunks_held"] == 0
    assert f.counts["reset"] == 1
    assert f.counts["thrown_away_bytes"] == 1


def test_a_syn_with_another_number_begins_anew_where_the_former_is_over() -> None:
    f = Followed()
    f.run(segment(0, flags=SYN), segment(0, flags=SYN | ACK, back=True))
    rows = f.run(segment(5000, flags=SYN), segment(1, b"goes on"))
    assert [row["id"] for row in rows] == [1, 1]  # anybody can send a SYN
    assert joined(rows) == b"goes on"
    f.run(segment(8, flags=RST))
    rows = f.run(segment(5000, flags=SYN), segment(5001, b"new"))
    assert [row["id"] for row in rows] == [2, 2]
    assert joined(rows) == b"new"


def test_a_syn_begins_anew_where_the_former_is_quiet() -> None:
    f = Followed()
    f.run(segment(0, flags=SYN), segment(0, flags=SYN | ACK, back=True))
    assert f.run(segment(5000, flags=SYN), time_ns=31 * S + 1)[0]["id"] == 2


def test_what_comes_after_the_idle_time_begins_anew() -> None:
    f = Followed(TcpStreams(idle_s=600))
    f.run(segment(0, flags=SYN), segment(1, b"a"))
    assert f.run(segment(50, b"b"), time_ns=601 * S)[0]["pieces"] == []
    rows = f.run(segment(9000, b"c"), time_ns=1202 * S)
    assert rows[0]["id"] == 2
    assert rows[0]["pieces"] == [(0, b"c")]


def test_a_segment_from_far_away_is_not_of_the_stream_unless_many_come() -> None:
    f = Followed()
    f.run(segment(0, flags=SYN), segment(1, b"a"))
    rows = f.run(*(segment(1 << 30, b"far") for _ in range(7)), segment(2, b"b"))
    assert [row["told"] for row in rows] == [{"OUTSIDE"}] * 7 + [set()]
    assert joined(rows) == b"b"
    rows = f.run(*(segment((1 << 30) + 3 * k, b"far") for k in range(9)))
    assert [row["told"] for row in rows] == [{"OUTSIDE"}] * 7 + [{"LOST"}, set()]
    assert [row["pieces"] for row in rows[7:]] == [[(2**32 - 1, b"far")], [(0, b"far")]]


def test_a_reset_from_far_away_ends_nothing() -> None:
    f = Followed()
    f.run(segment(0, flags=SYN))
    assert f.run(segment(1 << 30, flags=RST), segment(1, b"a"))[1]["pieces"] == [(0, b"a")]


def test_sequence_numbers_wrap() -> None:
    f = Followed()
    f.run(segment(2**32 - 3, flags=SYN))
    rows = f.run(segment(2, b"ef"), segment(2**32 - 2, b"abcd"))
    assert joined(rows) == b"abcdef"


def test_a_full_table_makes_room_by_those_that_are_over_then_the_oldest() -> None:
    f = Followed(TcpStreams(n_connections=2))

    def ends(number: int) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
        return (b"\x0a\0\0\1", number), B

    for number in (1, 2):
        f.run(segment(0, flags=SYN, ends=ends(number)), time_ns=number * S)
        f.run(segment(0, flags=SYN | ACK, back=True, ends=ends(number)), time_ns=number * S)
    f.run(segment(1, flags=RST, ends=ends(2)), time_ns=3 * S)
    assert f.run(segment(0, flags=SYN, ends=ends(3)), time_ns=3 * S)[0]["stream"] == 2
    assert "evicted" not in f.counts
    f.run(segment(1, b"x", ends=ends(1)), time_ns=9 * S)
    # 3 was never answered
    assert f.run(segment(0, flags=SYN, ends=ends(4)), time_ns=9 * S)[0]["stream"] == 2
    assert f.counts["evicted"] == 1
    rows = f.run(segment(2, b"y", ends=ends(1)))
    assert rows[0]["pieces"] == [(0, b"y")]


def test_a_chain_of_connections_in_one_bucket_is_found_and_taken_out_of() -> None:
    f = Followed(TcpStreams(n_connections=1 << 10), capacity=256)
    rng = random.Random(2)
    model: dict[int, int] = {}
    for _ in range(60):
        numbers = [rng.randrange(1500) for _ in range(200)]
        rows = f.run(*(segment(7, b"x", ends=((b"\x0a\0\0\1", 1000 + k), B)) for k in numbers))
        for number, row in zip(numbers, rows, strict=True):
            if model.get(number) == row["id"]:
                assert row["told"] == {"AGAIN"}
            else:
                assert row["told"] == {"BEGINS", "MIDDLE"}
            model[number] = row["id"]  # type: ignore[assignment]
    held = f.stage.report()["connections_held"]
    assert held == 1 << 10
    assert f.counts["connections"] - f.counts["evicted"] == held


def test_a_fragment_and_what_is_not_tcp_are_left_out() -> None:
    f = Followed()
    fragment = bytearray(segment(0, b"abc"))
    fragment[20] |= 0x20
    udp = bytearray(segment(0, b"abc"))
    udp[23] = 17
    rows = f.run(bytes(fragment), bytes(udp), b"short")
    assert [row["stream"] for row in rows] == [0, 0, 0]
    assert f.counts == {"fragments": 1}


@given(st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=150, deadline=None)
def test_however_it_is_cut_and_shuffled_the_stream_comes_out(
    first: int, data: st.DataObject
) -> None:
    """Segments overlap, come twice and out of order, over several batches; none is lost."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    stream = rng.randbytes(rng.randrange(1, 6000))
    cuts = sorted({0, len(stream), *(rng.randrange(len(stream) + 1) for _ in range(20))})
    parts = list(pairwise(cuts))
    parts += [(max(0, a - rng.randrange(50)), b) for a, b in rng.choices(parts, k=5)]
    rng.shuffle(parts)
    f = Followed(capacity=8)
    rows = f.run(segment(first, flags=SYN))
    for at in range(0, len(parts), 5):
        rows += f.run(*(segment(first + 1 + a, stream[a:b]) for a, b in parts[at : at + 5]))
    rows += f.run(segment(first + 1 + len(stream), flags=FIN | ACK))
    assert joined(rows) == stream
    assert not any(lost for row in rows for lost, _ in row["pieces"])  # type: ignore[attr-defined]
    assert "ENDS" in rows[-1]["told"]  # type: ignore[operator]
    f.run()
    assert f.stage.report()["chunks_held"] == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_each_byte_is_handed_on_once_lost_or_thrown_away(seed: int) -> None:
    """Random segments, resets, acknowledgements and jumps: positions never overlap."""
    rng = random.Random(seed)
    f = Followed(TcpStreams(n_chunks=rng.choice((0, 1, 3, 100)), wait_s=rng.choice((0, 1))), 16)
    f.run(segment(0, flags=SYN))
    at = 1
    for turn in range(30):
        packets = []
        for _ in range(rng.randrange(1, 8)):
            size = rng.choice((0, 1, 10, 2500))
            seq = max(1, at + rng.randrange(-3000, 6000))
            packets.append(segment(seq, bytes(size), ack=0))
            if rng.random() < 0.1:
                ack = max(1, at + rng.randrange(-10, 5000))
                packets.append(segment(1, flags=ACK, ack=ack, back=True))
        for row in f.run(*packets, time_ns=(turn + 1) * S // 3):
            for lost, piece in row["pieces"]:  # type: ignore[attr-defined]
                at += lost + len(piece)
    counts = f.counts
    assert at - 1 == counts.get("bytes", 0) + counts.get("lost_bytes", 0)
    assert f.stage.report()["chunks_held"] <= 100


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"n_connections": 0}, "n_connections=0: 1 to"),
        ({"n_connections": 1.5}, "n_connections=1.5"),
        ({"n_chunks": -1}, "n_chunks=-1"),
        ({"wait_s": float("nan")}, "wait_s=nan: seconds"),
        ({"idle_s": -1}, "idle_s=-1: seconds"),
    ],
)
def test_what_cannot_be_is_told(given_: dict[str, float], told: str) -> None:
    with pytest.raises(XdpipeError, match=told):
        TcpStreams(**given_)  # type: ignore[arg-type]
