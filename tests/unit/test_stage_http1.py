"""Http1: messages, their heads, and where their bodies end."""

import random

import pytest
from test_stage_tcp_streams import ACK, RST, SYN, Followed, segment

from xdpipe.batch import ENUMS, Batch
from xdpipe.chain import Chain, ChainError
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, Http1, TcpStreams

REQUEST, RESPONSE = (ENUMS["http_kind"][name][0] for name in ("REQUEST", "RESPONSE"))
MALFORMED = {name: value for name, (value, _) in ENUMS["http_malformed"].items()}
GET = b"GET /a?b=1 HTTP/1.1\r\nHost: WWW.example.com:8080\r\nAccept: */*\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Spoken(Followed):
    """Headers, TcpStreams and Http1, and a connection to speak over."""

    def __init__(self, stage: Http1 | None = None, streams: TcpStreams | None = None) -> None:
        self.http = stage or Http1()
        super().__init__(streams or TcpStreams(n_connections=64))
        self.next = [1, 1001]
        self.load(segment(0, flags=SYN), segment(1000, flags=SYN | ACK, back=True))

    def __post_init__(self) -> None:
        self.batch = Batch(bytearray(1 << 20), self.capacity)
        self.chain = Chain([Headers(), self.stage, self.http], self.batch)

    def load(self, *packets: bytes) -> None:
        self.batch.load(packets, 10**9)
        self.chain.run()

    def say(self, *parts: bytes, back: bool = False) -> Batch:
        """Send each part in a segment of its own, all in one batch."""
        packets = []
        for part in parts:
            packets.append(segment(self.next[back], part, back=back))
            self.next[back] += len(part)
        self.load(*packets)
        return self.batch

    def messages(self) -> list[tuple[object, ...]]:
        """Return of the batch's messages: packet, what it is, Content-Length, Host."""
        rows = self.http.messages
        text = self.batch.text
        return [
            (
                int(row["packet"]),
                f"{method} {target}" if row["kind"] == REQUEST else int(row["status"]),
                int(row["content_length"]),
                host,
            )
            for row, method, target, host in zip(
                rows, text(rows["method"]), text(rows["target"]), text(rows["host"]), strict=True
            )
        ]

    def lost(self, n: int, back: bool = False) -> None:
        """Let n bytes be missing, which the other end has."""
        self.next[back] += n
        self.load(segment(self.next[not back], ack=self.next[back], back=not back))

    @property
    def counts(self) -> dict[str, int]:
        counters: dict[str, int] = self.chain.read_counts()[2]["counters"]
        return {name: n for name, n in counters.items() if n}


def test_texts_that_there_is_no_room_for_are_counted() -> None:
    s = Spoken()
    s.capacity = 1
    s.__post_init__()
    request = b"GET /" + b"a" * 1999 + b" HTTP/1.1\r\nHost: a.b\r\n\r\n"
    s.load(segment(0, flags=SYN))
    batch = s.say(3 * request)
    assert batch.http_n_messages.tolist() == [3]
    assert [len(text) for text in batch.text(s.http.messages["target"])] == [2000, 2000, 0]
    assert batch.text(s.http.messages["host"]) == ["a.b"] * 3
    assert s.counts["texts_lost"] == 1
    host = b"GET / HTTP/1.1\r\nHost: " + b"h" * 256 + b"\r\n\r\n"
    assert s.say(host).text("http_host") == [""]
    assert s.counts["texts_lost"] == 2


def test_a_request_and_its_response() -> None:
    s = Spoken()
    batch = s.say(GET)
    assert batch.http_kind.tolist() == [REQUEST]
    assert batch.http_version.tolist() == [11]
    assert batch.text("http_method") == ["GET"]
    assert batch.text("http_target") == ["/a?b=1"]
    assert batch.text("http_host") == ["www.example.com:8080"]
    assert batch.http_content_length.tolist() == [-1]
    batch = s.say(OK, b"more", back=True)
    assert batch.http_kind.tolist() == [RESPONSE, 0]
    assert batch.http_status.tolist() == [200, 0]
    assert batch.http_content_length.tolist() == [5, -1]
    assert s.counts == {"requests": 1, "responses": 1}


def test_pipelined_requests_are_all_there() -> None:
    s = Spoken()
    posts = b"".join(
        b"POST /%d HTTP/1.1\r\nhost: h%d\r\ncontent-length: %d\r\n\r\n%s" % (k, k, k, b"x" * k)
        for k in range(5)
    )
    batch = s.say(posts + GET[:20], GET[20:] + GET)
    assert batch.http_n_messages.tolist() == [5, 2]
    assert batch.text("http_target") == ["/0", "/a?b=1"]
    host = "www.example.com:8080"
    assert s.messages() == [
        *((0, f"POST /{k}", k, f"h{k}") for k in range(5)),
        (1, "GET /a?b=1", -1, host), (1, "GET /a?b=1", -1, host),
    ]  # fmt: skip


CONVERSATIONS = {
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"
        b"5\r\nhello\r\n0a;x=\"y\"\r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n" + OK,
        [200, 200],
    ),
    "no body": (
        b"HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\nHTTP/1.1 304 Same\r\n\r\n"
        b"HTTP/1.0 100 Go on\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + OK,
        [204, 304, 100, 103, 200],
    ),
    "to the end": (b"HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 200 no message\r\n\r\n", [200]),
    "bare line feeds": (b"\r\nHTTP/1.1 404\nContent-Length:  3 \n\nabc\r\n\r\n" + OK, [404, 200]),
    "equal lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab" + OK, [200, 200]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_bodies_end_where_their_heads_say(name: str) -> None:
    data, expected = CONVERSATIONS[name]
    s = Spoken()
    s.say(data, back=True)
    assert [message[1] for message in s.messages()] == expected
    assert "malformed" not in s.counts


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_cut_anywhere_it_is_the_same(name: str) -> None:
    data, expected = CONVERSATIONS[name]
    for place in range(1, len(data)):
        s = Spoken()
        s.say(data[:place], back=True)
        seen = [message[1] for message in s.messages()]
        s.say(data[place:], back=True)
        assert seen + [message[1] for message in s.messages()] == expected, place
    s = Spoken()
    seen = []
    for at in range(0, len(data), 60):
        s.say(*(data[k : k + 1] for k in range(at, min(at + 60, len(data)))), back=True)
        seen += [message[1] for message in s.messages()]
    assert seen == expected


def test_an_answer_to_head_has_no_body() -> None:
    s = Spoken()
    s.say(GET.replace(b"GET", b"HEAD") + GET)
    s.say(OK[:-5] + OK, back=True)
    assert [message[1] for message in s.messages()] == [200, 200]


def test_what_follows_connect_or_an_upgrade_is_not_read() -> None:
    s = Spoken()
    s.say(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    s.say(b"HTTP/1.1 200 Yes\r\n\r\n" + OK, back=True)
    assert s.counts["responses"] == 1
    s = Spoken()
    s.say(GET)
    s.say(b"HTTP/1.1 101 Switching\r\n\r\n" + OK, back=True)
    assert s.counts["responses"] == 1
    s = Spoken()
    s.say(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    s.say(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n" + OK, back=True)
    assert s.counts["responses"] == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00", b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", b"GET /\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n", b"GET / a HTTP/1.1\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 099 OK\r\n\r\n", b"HTTP/1.1 2000\r\n\r\n", b"A" * 24,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3000,
    ],
)  # fmt: skip
def test_a_stream_that_begins_otherwise_is_not_http(data: bytes) -> None:
    s = Spoken()
    s.say(*(data[at : at + 1000] for at in range(0, len(data), 1000)), GET)
    assert {name: n for name, n in s.counts.items() if name != "put_together"} == {"not_http": 1}


def response(fields: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body


def request(fields: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


BAD = [
    ("START_LINE", OK + b"what is this\r\n\r\n"),
    ("START_LINE", OK + b"\x16\x03\x01"),
    ("SECTION_LONG", OK + b"HTTP/1.1 200 OK\r\n" + b"name: value\r\n" * 1300),
    ("FIELD", request(b"Host: a\r\nno colon\r\n")),
    ("FIELD", request(b"Host: a\r\n: empty\r\n")),
    ("FIELD", request(b"Host : a\r\n")),
    ("FOLDED", request(b"Host: a\r\n b\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length: 1x\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length: -1\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length:\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length: 1,\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length: 1, 2\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n")),
    ("CONTENT_LENGTH", request(b"Host: a\r\nContent-Length: 9999999999999999999\r\n")),
    ("TWO_LENGTHS", request(b"Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
    ("TRANSFER_CODING", request(b"Host: a\r\nTransfer-Encoding: chunked, x\r\n")),
    ("TRANSFER_CODING", request(b"Host: a\r\nTransfer-Encoding: xchunked\r\n")),
    ("HOST", request(b"A: a\r\n")),
    ("HOST", request(b"Host: a\r\nHost: a\r\n")),
    ("CHUNK", response(b"Transfer-Encoding: chunked\r\n", b"\r\n")),
    ("CHUNK", response(b"Transfer-Encoding: chunked\r\n", b"5x\r\n")),
    ("CHUNK", response(b"Transfer-Encoding: chunked\r\n", b"0123456789abcdef\r\n")),
    ("CHUNK", response(b"Transfer-Encoding: chunked\r\n", b"1\r\nab\r\n")),
]


@pytest.mark.parametrize(("reason", "data"), BAD)
def test_what_contradicts_itself_ends_the_reading_of_its_direction(
    reason: str, data: bytes
) -> None:
    s = Spoken()
    parts = [data[at : at + 1400] for at in range(0, len(data), 1400)]
    batch = s.say(*parts, GET, back=True)
    assert batch.http_malformed[batch.http_malformed != 0].tolist() == [MALFORMED[reason]]
    assert s.counts["malformed"] == s.counts[f"malformed_{reason.lower()}"] == 1
    assert s.http.messages["packet"].max() <= len(parts) - 1


def test_every_reason_is_met() -> None:
    assert {reason for reason, _ in BAD} == set(MALFORMED)


def test_http_1_0_needs_no_host() -> None:
    s = Spoken()
    s.say(request(b"", b"GET / HTTP/1.0"))
    assert s.counts == {"requests": 1}
    assert s.batch.http_version.tolist() == [10]


def test_bytes_of_a_body_that_never_came_are_skipped() -> None:
    s = Spoken()
    s.say(response(b"Content-Length: 100\r\n", bytes(50)), back=True)
    s.lost(20, back=True)
    s.say(bytes(30) + OK, back=True)
    assert s.messages() == [(0, 200, 5, "")]
    assert "given_up" not in s.counts


@pytest.mark.parametrize("before", [b"", GET, GET[:30]])
def test_where_a_head_may_be_missing_the_direction_is_given_up(before: bytes) -> None:
    s = Spoken()
    if before:
        s.say(before)
    s.lost(20)
    s.say(GET)
    assert s.messages() == []
    assert s.counts["given_up"] == 1


def test_more_messages_than_there_are_places_for_are_counted() -> None:
    s = Spoken(Http1(n_messages=2))
    batch = s.say(GET * 3, GET)
    assert len(s.http.messages) == 2
    assert batch.http_n_messages.tolist() == [3, 1]
    assert batch.text("http_target") == ["/a?b=1", "/a?b=1"]
    assert s.counts == {"requests": 4, "messages_lost": 2}


def test_the_head_begun_longest_ago_makes_room() -> None:
    s = Spoken(Http1(n_buffers=1))
    other = ((b"\x0a\0\0\3", 1), (b"\x0a\0\0\4", 2))
    s.say(GET[:30])
    s.load(segment(0, GET[:30], ends=other), segment(30, GET[30:], ends=other))
    assert len(s.messages()) == 1
    s.say(GET[30:])
    assert s.messages() == []
    assert s.counts["buffer_taken_away"] == s.counts["given_up"] == 1


def test_a_reset_gives_the_buffer_back() -> None:
    s = Spoken(Http1(n_buffers=1))
    s.say(GET[:30])
    s.load(segment(s.next[0], flags=RST))
    s.load(segment(0, GET[:30], ends=((b"\x0a\0\0\3", 1), (b"\x0a\0\0\4", 2))))
    assert "buffer_taken_away" not in s.counts


def test_a_long_target_is_cut_and_a_long_host_left_out() -> None:
    s = Spoken()
    parts = [
        b"GET /" + b"x" * 1200, b"x" * 1200, b" HTTP/1.1\r\nHost: " + b"y" * 256 + b"\r\n\r\n",
    ]  # fmt: skip
    batch = s.say(*parts)
    assert batch.text("http_target")[2] == "/" + "x" * 2047
    assert batch.text("http_host")[2] == ""


def test_random_bytes_read_nothing_beyond_them() -> None:
    """For the sanitizers: pieces of messages, bent and put together anew."""
    rng = random.Random(4)
    parts = [GET, OK, *(data for _, data in BAD), *(data for data, _ in CONVERSATIONS.values())]
    for _ in range(30):
        s = Spoken(Http1(n_buffers=2))
        for _ in range(10):
            data = bytearray(b"".join(rng.choices(parts, k=2))[:1400])
            for _ in range(rng.randrange(3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            places = sorted(rng.randrange(len(data)) for _ in range(4))
            pieces = [bytes(data[a:b]) for a, b in zip([0, *places], places, strict=False) if a < b]
            s.say(*pieces, back=rng.random() < 0.5)


def test_it_takes_the_streams() -> None:
    with pytest.raises(ChainError, match=r"add TcpStreams\(\) before Http1"):
        Chain([Headers(), Http1()], Batch(bytearray(64), 1))


@pytest.mark.parametrize("name", ["n_buffers", "n_messages"])
def test_a_number_that_cannot_be_is_told(name: str) -> None:
    with pytest.raises(XdpipeError, match=f"{name}=0: 1 to"):
        Http1(**{name: 0})
