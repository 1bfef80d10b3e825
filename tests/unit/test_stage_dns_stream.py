"""DNS over TCP: messages found in streams, whole, in pieces, with gaps, from the middle on."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_headers_cut import ip4
from test_stage_tcp_streams import ACK, FIN, RST, SYN, A, segment

from dns_messages import RESPONSE, ROOT, Row, message, packet, question, record, rows
from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import Dns, Headers, TcpStreams
from xdpipe.stages.dns import MALFORMED

COUNTERS = ("tcp_no_buffer", "tcp_lost", "tcp_cut", "tcp_out_of_step")
SERVER = (b"\x0a\0\0\2", 53)
ENDS = (A, SERVER)


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(data)) + data for data in messages)


class Streams:
    """The C functions over some directions, without packets."""

    def __init__(self, n_directions: int = 1, n_buffers: int = 2) -> None:
        self._counters = ffi.new("uint64_t[]", len(COUNTERS))
        self._directions = ffi.new("struct xp_dns_direction[]", n_directions)
        self._memory = ffi.new("uint8_t[]", lib.xp_dns_pool_bytes(n_buffers))
        self.c = ffi.new("struct xp_dns_streams *", {
            "counters": self._counters, "directions": self._directions,
            "n_directions": n_directions, "pool": lib.xp_dns_pool_init(self._memory, n_buffers),
        })  # fmt: skip
        for direction in range(n_directions):
            self.begin(direction)

    def begin(self, direction: int = 0, *, middle: bool = False) -> None:
        lib.xp_dns_begin(self.c, direction, 7, middle)

    def feed(self, *pieces: bytes, direction: int = 0) -> list[bytes]:
        """Feed pieces, each in memory of its own; return the messages that ended."""
        found = []
        whole = ffi.new("struct xp_dns_whole *")
        for piece in pieces:
            memory = ffi.new("uint8_t[]", piece)
            at = 0
            while at < len(piece):
                used = lib.xp_dns_feed(self.c, direction, memory + at, len(piece) - at, whole)
                assert 0 < used <= len(piece) - at
                at += used
                if whole.p != ffi.NULL:
                    found.append(bytes(ffi.buffer(whole.p, whole.n)))
        return found

    def lose(self, n: int, direction: int = 0) -> None:
        lib.xp_dns_lose(self.c, direction, n)

    def end(self, direction: int = 0) -> None:
        lib.xp_dns_end(self.c, direction)

    @property
    def held(self) -> int:
        return int(lib.xp_dns_n_held(self.c))

    @property
    def counts(self) -> dict[str, int]:
        return {name: n for name, n in zip(COUNTERS, self._counters, strict=True) if n}


A_MESSAGE, B_MESSAGE, C_MESSAGE = b"a" * 12, b"b" * 13, b"c" * 300


# Where messages end


def test_messages_whole_in_a_piece_are_told_where_they_lie() -> None:
    s = Streams()
    data = framed(A_MESSAGE, B_MESSAGE)
    memory, whole = ffi.new("uint8_t[]", data), ffi.new("struct xp_dns_whole *")
    assert lib.xp_dns_feed(s.c, 0, memory, len(data), whole) == 14
    assert (whole.p, whole.n) == (memory + 2, 12)
    assert lib.xp_dns_feed(s.c, 0, memory + 14, len(data) - 14, whole) == 15
    assert (whole.p, whole.n) == (memory + 16, 13)
    assert s.held == 0


def test_a_length_that_comes_by_itself_takes_no_buffer() -> None:
    s = Streams(n_buffers=0)
    data = framed(A_MESSAGE)
    assert s.feed(data[:2], data[2:], data[:1], data[1:2], data[2:], data[:1], data[1:]) == (
        [A_MESSAGE] * 3
    )
    assert s.counts == {}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 12, 300, 65535])
def test_a_message_cut_anywhere_is_put_together(size: int) -> None:
    data = Random(size).randbytes(size)
    stream = framed(data, B_MESSAGE)
    cuts = range(len(stream)) if size < 1000 else (1, 2, 3, 1000, 65534, 65536, 65537, 65538)
    for at in cuts:
        s = Streams()
        assert s.feed(stream[:at], stream[at:]) == [data, B_MESSAGE], at
        assert (s.held, s.counts) == (0, {})


def test_a_message_byte_by_byte_is_put_together() -> None:
    s = Streams()
    stream = framed(C_MESSAGE, b"", A_MESSAGE)
    assert s.feed(*(stream[i : i + 1] for i in range(len(stream)))) == [C_MESSAGE, b"", A_MESSAGE]
    assert (s.held, s.counts) == (0, {})


@settings(deadline=None, max_examples=200)
@given(
    messages=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_messages_are_the_same_wherever_the_stream_is_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    s = Streams(n_buffers=1)
    stream = framed(*messages)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert s.feed(*pieces) == messages
    assert (s.held, s.counts) == (0, {})


# Buffers


def test_without_a_buffer_a_message_is_passed_over_and_counted() -> None:
    s = Streams(n_buffers=0)
    data = framed(C_MESSAGE)
    assert s.feed(data[:100], data[100:200], data[200:] + framed(A_MESSAGE)) == [A_MESSAGE]
    assert s.counts == {"tcp_no_buffer": 1}


def test_the_message_under_way_for_longest_gives_way() -> None:
    s = Streams(n_directions=3, n_buffers=2)
    data = framed(C_MESSAGE)
    for direction in range(3):
        assert s.feed(data[:100], direction=direction) == []
        assert s.held == min(direction + 1, 2)
    assert s.counts == {"tcp_no_buffer": 1}
    found = [s.feed(data[100:] + framed(A_MESSAGE), direction=k) for k in range(3)]
    assert sorted(map(len, found)) == [1, 2, 2]
    assert all(messages[-1] == A_MESSAGE for messages in found)
    assert (s.held, s.counts) == (0, {"tcp_no_buffer": 1})


def test_connections_that_never_go_on_keep_no_buffer_for_good() -> None:
    s = Streams(n_directions=20, n_buffers=4)
    for direction in range(19):
        s.feed(framed(C_MESSAGE)[:9], direction=direction)
    data = framed(C_MESSAGE)
    assert s.feed(data[:100], data[100:], direction=19) == [C_MESSAGE]
    assert s.counts == {"tcp_no_buffer": 16}


def test_a_stream_that_ends_gives_its_buffer_back() -> None:
    s = Streams()
    s.feed(framed(C_MESSAGE)[:9])
    s.end()
    assert (s.held, s.counts) == (0, {"tcp_cut": 1})
    s.end()
    assert s.feed(b"\0\x10abc") == []
    s.begin()
    assert s.feed(framed(A_MESSAGE)) == [A_MESSAGE]
    s.feed(b"\0")
    s.begin()  # another connection in its place
    assert s.feed(framed(B_MESSAGE)) == [B_MESSAGE]
    s.end()
    assert s.counts == {"tcp_cut": 2}


# Gaps


@pytest.mark.parametrize("at", [2, 3, 50, 301])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_gap_within_a_message_costs_that_message(at: int, in_pieces: bool) -> None:
    stream = framed(C_MESSAGE)
    for end in {at + 1, len(stream) - 1, len(stream)} - set(range(at + 1)):
        s = Streams()
        if in_pieces:
            s.feed(*(stream[k : k + 1] for k in range(at)))
        else:
            s.feed(stream[:at])
        s.lose(end - at)
        assert s.held == 0
        assert s.feed(stream[end:] + framed(A_MESSAGE)) == [A_MESSAGE]
        assert s.counts == {"tcp_lost": 1}


def test_a_second_gap_in_a_message_counts_no_other() -> None:
    s = Streams()
    stream = framed(C_MESSAGE)
    s.feed(stream[:10])
    s.lose(10)
    s.feed(stream[20:30])
    s.lose(10)
    assert s.feed(stream[40:] + framed(A_MESSAGE)) == [A_MESSAGE]
    assert s.counts == {"tcp_lost": 1}


@pytest.mark.parametrize(("before", "lost", "n_lost"), [
    (b"", 1, 0), (framed(A_MESSAGE), 1, 0), (b"\0", 1, 1), (framed(C_MESSAGE)[:2], 301, 1),
    (framed(C_MESSAGE)[:100], 203, 1), (framed(C_MESSAGE)[:100], 2**32 - 1, 1),
])  # fmt: skip
def test_a_gap_beyond_a_message_puts_out_of_step(before: bytes, lost: int, n_lost: int) -> None:
    s = Streams()
    s.feed(before)
    s.lose(lost)
    s.lose(5)
    assert s.feed(framed(A_MESSAGE, B_MESSAGE)[5:]) == []
    assert s.held == 0
    assert s.counts == ({"tcp_lost": n_lost} if n_lost else {}) | {"tcp_out_of_step": 1}
    assert s.feed(framed(A_MESSAGE, B_MESSAGE)) == [A_MESSAGE, B_MESSAGE]


@pytest.mark.parametrize("piece", [
    b"\0", b"\0\x0c", framed(A_MESSAGE)[:-1], framed(A_MESSAGE) + b"\0", framed(b""),
    framed(b"x" * 11), framed(A_MESSAGE, b"x" * 11), framed(A_MESSAGE, B_MESSAGE)[:-1],
    framed(C_MESSAGE)[1:], framed(b"x" * 11, A_MESSAGE),
])  # fmt: skip
def test_from_the_middle_on_nothing_is_read_before_a_piece_of_whole_messages(piece: bytes) -> None:
    s = Streams()
    s.begin(middle=True)
    assert s.counts == {"tcp_out_of_step": 1}
    assert s.feed(piece, piece) == []
    assert s.feed(framed(A_MESSAGE, C_MESSAGE), framed(C_MESSAGE)[:5]) == [A_MESSAGE, C_MESSAGE]
    assert s.feed(framed(C_MESSAGE)[5:]) == [C_MESSAGE]
    assert s.counts == {"tcp_out_of_step": 1}


def is_whole(piece: bytes) -> bool:
    """Say whether these are messages, each with a header, from the first byte to the last."""
    size = int.from_bytes(piece[:2], "big")
    rest = piece[2 + size :]
    return len(piece) >= 2 + size and size >= 12 and (not rest or is_whole(rest))


class Model:
    """The same byte by byte, with as many buffers as it takes; a lost byte is None."""

    def __init__(self) -> None:
        self.out = False
        self.so_far: list[int | None] = []
        self.lost = self.out_of_step = 0

    @property
    def missing(self) -> int:
        """How many bytes the message wants; -1: its length is not there yet."""
        if len(self.so_far) < 2:
            return -1
        high, low = self.so_far[:2]
        return 2 + (high << 8 | low) - len(self.so_far)  # type: ignore[operator]

    def feed(self, piece: bytes) -> list[bytes]:
        found = []
        if self.out:
            self.out = not is_whole(piece)
        for byte in piece if not self.out else b"":
            self.so_far.append(byte)
            if self.missing == 0:
                if None not in self.so_far:
                    found.append(bytes(self.so_far[2:]))  # type: ignore[arg-type]
                self.so_far = []
        return found

    def lose(self, n: int) -> None:
        if self.out or n == 0:
            return
        self.lost += bool(self.so_far) and None not in self.so_far
        if n < self.missing:
            self.so_far += [None] * n
            return
        self.out = n != self.missing
        self.out_of_step += self.out
        self.so_far = []


PIECE = st.one_of(
    st.sampled_from([
        framed(A_MESSAGE), framed(B_MESSAGE, A_MESSAGE), b"\0", b"\0\x0d", b"\0\5abc", b"x" * 13,
    ]),
    st.binary(max_size=30), st.integers(0, 20),
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(events=st.lists(PIECE, max_size=40))
def test_bytes_and_gaps_in_any_order_are_taken_as_the_model_takes_them(
    events: list[bytes | int],
) -> None:
    s, model = Streams(n_buffers=1), Model()
    for event in events:
        if isinstance(event, int):
            s.lose(event)
            model.lose(event)
        else:
            assert s.feed(event) == model.feed(event)
    counts = {"tcp_lost": model.lost, "tcp_out_of_step": model.out_of_step}
    assert s.counts == {name: n for name, n in counts.items() if n}


def test_whatever_comes_every_buffer_is_free_or_has_one_owner() -> None:
    rng = Random(6)
    n_directions, n_buffers = 12, 4
    s = Streams(n_directions, n_buffers)
    n_messages = 0
    for _ in range(20_000):
        direction = rng.randrange(n_directions)
        kind = rng.random()
        if kind < 0.9:
            stream = framed(bytes(rng.choice([12, 30, 70])) * rng.randrange(1, 3))
            n_messages += len(s.feed(stream[: rng.randrange(90)], direction=direction))
        elif kind < 0.95:
            s.lose(rng.randrange(60), direction)
        elif kind < 0.97:
            s.end(direction)
        else:
            s.begin(direction, middle=rng.random() < 0.3)
        claimed = [d for d in s.c.directions[0:n_directions] if d.buffer]
        assert s.held <= min(n_buffers, len(claimed))
        for d in claimed:
            assert 0 < d.have < d.length
    for direction in range(n_directions):
        s.end(direction)
    assert s.held == 0
    assert n_messages > 1000
    assert set(s.counts) == set(COUNTERS)


# Packets


QUERY = message([question()])
ANSWER = message([question()], [record()] * 90, flags=RESPONSE)


class Chained:
    """Headers, TcpStreams, Dns over packets."""

    def __init__(self, dns: Dns | None = None, n_connections: int = 16) -> None:
        self.batch = Batch(bytearray(1 << 20), 64)
        self.stages = [Headers(), TcpStreams(n_connections=n_connections), dns or Dns()]
        self.chain = Chain(self.stages, self.batch)

    def run(self, *packets: bytes) -> list[Row]:
        self.batch.load(packets, 10**9)
        self.chain.run()
        return rows(self.batch)

    @property
    def counts(self) -> dict[str, int]:
        counters: dict[str, int] = self.chain.read_counts()[2]["counters"]
        return {name: n for name, n in counters.items() if n}


def opened(client: int = 1000) -> list[bytes]:
    ends = ((A[0], client), SERVER)
    return [
        segment(99, flags=SYN, ends=ends),
        segment(499, flags=SYN | ACK, ack=100, back=True, ends=ends),
    ]


def sent(data: bytes, *cuts: int, back: bool = False, client: int = 1000) -> list[bytes]:
    """Return the segments of one end's bytes, cut at these places."""
    ends = ((A[0], client), SERVER)
    edges = [0, *cuts, len(data)]
    first = 500 if back else 100
    return [segment(first + a, data[a:b], back=back, ends=ends) for a, b in pairwise(edges)]


def test_a_query_and_its_answer_over_tcp() -> None:
    c = Chained()
    found = c.run(
        *opened(), *sent(framed(QUERY)), *sent(framed(ANSWER), 2, 700, 1400, back=True)
    )  # fmt: skip
    assert [row["dns_n_messages"] for row in found] == [0, 0, 1, 0, 0, 0, 1]
    query, answer = found[2], found[-1]
    assert query["dns_found"] == {"MESSAGE", "QUESTION", "TCP"}
    assert (query["dns_name"], query["dns_len"]) == ("example.com", len(QUERY))
    assert answer["dns_found"] == {"MESSAGE", "QUESTION", "RESPONSE", "TCP"}
    assert (answer["dns_n_answers"], answer["dns_len"]) == (90, len(ANSWER))
    for row in found[3:6]:
        assert (row["dns_found"], row["dns_name"], row["dns_id"]) == (set(), "", 0)
    assert c.counts == {"messages": 2, "queries": 1, "responses": 1, "noerror": 1, "tcp": 2}


def test_the_columns_tell_of_the_first_of_several_messages() -> None:
    c = Chained()
    messages = [message([question(b"\1%c\0" % name)], id=name) for name in b"abcde"]
    stream = framed(*messages)
    [*_, first, second] = c.run(*opened(), *sent(stream, len(framed(*messages[:3])) + 5))
    assert (first["dns_n_messages"], first["dns_name"], first["dns_id"]) == (3, "a", ord("a"))
    assert (second["dns_n_messages"], second["dns_name"], second["dns_id"]) == (2, "d", ord("d"))
    assert c.counts == {"messages": 5, "queries": 5, "tcp": 5}


def test_segments_out_of_order_and_twice_give_the_same_messages() -> None:
    rng = Random(4)
    stream = framed(QUERY, ANSWER, message([question(b"\4last\0")]))
    for _ in range(50):
        c = Chained()
        segments = sent(stream, *sorted(rng.sample(range(1, len(stream)), 6)))
        packets = segments + rng.sample(segments, 3)
        rng.shuffle(packets)
        found = [row for first in range(0, len(packets), 3) for row in c.run(
            *(opened() if first == 0 else ()), *packets[first : first + 3]
        )]  # fmt: skip
        assert sum(int(str(row["dns_n_messages"])) for row in found) == 3
        assert c.counts["tcp"] == c.counts["messages"] == 3
        assert c.stages[2].report() == {"buffers_held": 0}


def test_connections_are_kept_apart() -> None:
    c = Chained()
    stream = framed(ANSWER)
    cut = {client: sent(stream, 500, 1000, client=client) for client in (1000, 2000, 3000)}
    packets = [packet for client in cut for packet in opened(client)]
    packets += [cut[client][k] for k in range(3) for client in cut]
    assert [row["dns_n_messages"] for row in c.run(*packets)[-4:]] == [0, 1, 1, 1]
    assert c.counts["tcp"] == 3


def test_a_connection_in_the_place_of_another_begins_anew() -> None:
    c = Chained(n_connections=1)
    c.run(*opened(1000), *sent(framed(ANSWER), 500, client=1000)[:1])
    assert c.stages[2].report() == {"buffers_held": 1}
    found = c.run(*opened(2000), *sent(framed(QUERY), client=2000))
    assert found[-1]["dns_n_messages"] == 1
    assert c.counts == {"messages": 1, "queries": 1, "tcp": 1, "tcp_cut": 1}
    assert c.stages[2].report() == {"buffers_held": 0}


@pytest.mark.parametrize("flags", [FIN | ACK, RST])
def test_the_end_of_a_connection_cuts_its_message(flags: int) -> None:
    c = Chained()
    c.run(*opened(), *sent(framed(ANSWER), 500)[:1], *sent(framed(ANSWER), 500, back=True)[:1])
    assert c.stages[2].report() == {"buffers_held": 2}
    c.run(segment(600, flags=flags, ends=((A[0], 1000), SERVER)))
    cut = 2 if flags == RST else 1
    assert c.stages[2].report() == {"buffers_held": 2 - cut}
    assert c.counts == {"tcp_cut": cut}


def test_a_stream_joined_in_its_middle() -> None:
    c = Chained()
    ends = ((A[0], 1000), SERVER)
    found = c.run(
        segment(5000, b"ets of a message", ends=ends),
        segment(7000, ack=5016, back=True, ends=ends),
        segment(5016, framed(QUERY, QUERY), ends=ends),
        segment(7000, framed(ANSWER), back=True, ends=ends),
    )  # fmt: skip
    assert [row["dns_n_messages"] for row in found] == [0, 0, 2, 1]
    assert (c.counts["tcp"], c.counts["tcp_out_of_step"]) == (3, 2)


def test_a_gap_that_ends_within_the_message_costs_that_one_only() -> None:
    c = Chained()
    stream = framed(ANSWER, QUERY)
    parts = sent(stream, 500, 1000, len(framed(ANSWER)))
    ends = ((A[0], 1000), SERVER)
    c.run(*opened(), parts[0])
    acked = segment(500, ack=100 + len(stream), back=True, ends=ends)
    found = c.run(acked, parts[2], parts[3])
    assert [row["dns_n_messages"] for row in found] == [0, 0, 1]
    assert found[2]["dns_name"] == "example.com"
    assert c.counts == {"messages": 1, "queries": 1, "tcp": 1, "tcp_lost": 1}


def test_faults_over_tcp_are_those_over_udp() -> None:
    c = Chained()
    [*_, row] = c.run(*opened(), *sent(framed(QUERY[:-1], b"", QUERY + b"\0")))
    assert row["dns_malformed"] == MALFORMED["QUESTION_SHORT"]
    assert row["dns_found"] == {"MESSAGE", "TCP", "MALFORMED"}
    assert c.counts == {
        "messages": 3, "queries": 2, "tcp": 3, "trailing": 1, "malformed": 2,
        "malformed_question_short": 1, "malformed_header_short": 1,
    }  # fmt: skip


def test_a_packet_full_of_messages_without_a_byte() -> None:
    c = Chained()
    [*_, row] = c.run(*opened(), *sent(bytes(1460)))
    assert row["dns_n_messages"] == 730
    assert c.counts["malformed_header_short"] == 730


def test_a_message_of_65535_bytes_and_more_records_than_are_looked_at() -> None:
    c = Chained()
    data = message([question(ROOT)], [record(ROOT, data=b"")] * 5956, flags=RESPONSE)
    data += bytes(65535 - len(data))
    segments = sent(framed(data), *range(1400, 65537, 1400))
    c.run(*opened())
    found = c.run(*segments[:40]) + c.run(*segments[40:])
    assert [row["dns_n_messages"] for row in found] == [0] * (len(segments) - 1) + [1]
    assert found[-1]["dns_found"] == {"MESSAGE", "RESPONSE", "QUESTION", "TCP", "MANY_RECORDS"}
    assert found[-1]["dns_len"] == 65535


def test_other_ports_and_udp_are_as_ever() -> None:
    c = Chained(Dns((53, 5353)))
    other = ((A[0], 1000), (SERVER[0], 443))
    found = c.run(
        segment(99, flags=SYN, ends=other), segment(100, framed(QUERY), ends=other), packet(QUERY),
        ip4(6, b"\0\x35\0\x35" + bytes(16), fragment=0x2000),
    )  # fmt: skip
    assert [row["dns_n_messages"] for row in found] == [0, 0, 1, 0]
    assert c.counts == {"messages": 1, "queries": 1}


def test_tcp_is_unread_where_its_streams_are_made_behind_it() -> None:
    batch = Batch(bytearray(1 << 20), 64)
    chain = Chain([Headers(), Dns(), TcpStreams()], batch)
    batch.load([*opened(), *sent(framed(QUERY))])
    chain.run()
    assert chain.read_counts()[1]["counters"]["tcp_unread"] == 1


def test_each_chain_has_streams_of_its_own() -> None:
    dns = Dns()
    chains = [Chain([Headers(), TcpStreams(), dns], Batch(bytearray(1 << 16), 8)) for _ in range(2)]
    halves = sent(framed(ANSWER), 500)
    for part in ([*opened(), halves[0]], [halves[1]]):
        for chain in chains:
            chain.batch.load(part, 10**9)
            chain.run()
    for chain in chains:
        assert chain.read_counts()[2]["counters"]["tcp"] == 1


@pytest.mark.parametrize("n_buffers", [-1, 65537, 1.0, None])
def test_buffers_that_cannot_be_are_refused(n_buffers: object) -> None:
    with pytest.raises(XdpipeError) as error:
        Dns(n_buffers=n_buffers)  # type: ignore[arg-type]
    assert str(error.value) == f"Dns: n_buffers={n_buffers!r}: 0 to 65536"


def total(found: Sequence[Row]) -> int:
    return sum(int(str(row["dns_n_messages"])) for row in found)


def test_random_streams_are_never_read_too_far() -> None:
    """Lengths at random, gaps, and bytes that are no messages: whatever comes, the books close."""
    rng = Random(5)
    c = Chained(Dns(n_buffers=2), n_connections=4)
    n_messages = 0
    for client in range(1000, 1400):
        stream = b""
        for _ in range(5):
            size = rng.choice([0, 1, 2, 5, 12, 12, 20, 40, 65535])
            stream += struct.pack(">H", size) + rng.randbytes(rng.randrange(60))
        segments = sent(stream, *sorted(rng.sample(range(1, len(stream)), 4)), client=client)
        rng.shuffle(segments)
        packets = opened(client)[rng.randrange(2) :] + segments[: rng.randrange(1, 6)]
        n_messages += total(c.run(*packets))
    assert c.counts["tcp"] == c.counts["messages"] == n_messages > 60
    assert c.stages[2].report()["buffers_held"] <= 2
