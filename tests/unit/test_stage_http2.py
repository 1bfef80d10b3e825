"""Http2: frames, header fields, streams and floods, wherever segments are cut."""

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from cffi import FFI
from test_stage_tcp_streams import ACK, RST, SYN, A, Followed, segment

from xdpipe.batch import ENUMS, Batch
from xdpipe.chain import Chain, ChainError
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, Http2, TcpStreams
from xdpipe.stages import http2 as module
from xdpipe.stages.http2 import FRAME_TYPES
from xdpipe.verdict import DROP, Verdict

KIND, FLOOD, MALFORMED = (
    {name: value for name, (value, _) in ENUMS[column].items()}
    for column in ("http2_kind", "http2_flood", "http2_malformed")
)
TYPE = {name: number for number, name in enumerate(FRAME_TYPES)}
UNDECIDED = Verdict.UNDECIDED
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
S = 10**9


def frame(kind: str | int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    number = TYPE[kind] if isinstance(kind, str) else kind
    head = len(payload).to_bytes(3, "big") + bytes([number, flags]) + stream.to_bytes(4, "big")
    return head + payload


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + number(value)


def literal(name: bytes, value: bytes) -> bytes:
    """Encode a field without the tables (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def get(path: bytes = b"/", authority: bytes = b"WWW.Example.com:80") -> bytes:
    return (
        b"\x82\x86"  # :method GET, :scheme http, of the static table
        + literal(b":path", path) + literal(b":authority", authority) + literal(b"a", b"b")
    )  # fmt: skip


def headers(stream: int, section: bytes, flags: int = 0x05) -> bytes:
    return frame("HEADERS", flags, stream, section)


BEGIN = PREFACE + frame("SETTINGS")
RESET = {"stream": 1, "payload": number(8)}


class Deflater:
    """HPACK's other side, by libnghttp2, which is used to its full."""

    def __init__(self, table: int = 4096) -> None:
        self.ffi = FFI()
        self.ffi.cdef(
            "typedef struct { uint8_t *name, *value; size_t n_name, n_value; uint8_t flags; } nv;"
            "int nghttp2_hd_deflate_new(void **, size_t);"
            "int nghttp2_hd_deflate_change_table_size(void *, size_t);"
            "ssize_t nghttp2_hd_deflate_hd(void *, uint8_t *, size_t, const nv *, size_t);"
            "void nghttp2_hd_deflate_del(void *);"
        )
        self.lib = self.ffi.dlopen("libnghttp2.so.14")
        own = self.ffi.new("void **")
        assert self.lib.nghttp2_hd_deflate_new(own, table) == 0
        self.own = self.ffi.gc(own[0], self.lib.nghttp2_hd_deflate_del)
        if table != 4096:
            assert self.lib.nghttp2_hd_deflate_change_table_size(self.own, table) == 0

    def __call__(self, *fields: tuple[bytes, bytes]) -> bytes:
        texts = [[self.ffi.new("uint8_t[]", text) for text in field] for field in fields]
        rows = [
            (*text, len(field[0]), len(field[1]), 0)
            for text, field in zip(texts, fields, strict=True)
        ]
        out = self.ffi.new("uint8_t[]", 1 << 16)
        n = self.lib.nghttp2_hd_deflate_hd(
            self.own, out, len(out), self.ffi.new("nv[]", rows), len(rows)
        )
        assert n >= 0
        return bytes(self.ffi.buffer(out, n))


class Spoken(Followed):
    """Headers, TcpStreams and Http2, and a connection to speak over."""

    def __init__(self, stage: Http2 | None = None, streams: TcpStreams | None = None) -> None:
        self.http = stage or Http2()
        super().__init__(streams or TcpStreams(n_connections=64))
        self.time_ns = S
        self.next = [1, 1001]
        self.load(segment(0, flags=SYN), segment(1000, flags=SYN | ACK, back=True))

    def __post_init__(self) -> None:
        self.batch = Batch(bytearray(1 << 20), self.capacity)
        self.chain = Chain([Headers(), self.stage, self.http], self.batch)

    def load(self, *packets: bytes) -> None:
        self.batch.load(packets, self.time_ns)
        self.chain.run()

    def say(self, *parts: bytes, back: bool = False) -> Batch:
        """Send each part in a segment of its own, all in one batch."""
        packets = []
        for part in parts:
            packets.append(segment(self.next[back], part, back=back))
            self.next[back] += len(part)
        self.load(*packets)
        return self.batch

    def lost(self, n: int, back: bool = False) -> None:
        """Let n bytes be missing, which the other end has."""
        self.next[back] += n
        self.load(segment(self.next[not back], ack=self.next[back], back=not back))

    def frames(self) -> list[tuple[object, ...]]:
        return [
            (FRAME_TYPES[row["type"]] if row["type"] < 10 else int(row["type"]),
             int(row["stream"]), int(row["length"]), int(row["value"]))
            for row in self.http.frames
        ]  # fmt: skip

    def messages(self) -> list[tuple[object, ...]]:
        rows = self.http.messages
        texts = (self.batch.text(rows[name]) for name in ("method", "path", "authority"))
        return [
            (int(row["stream"]), *(text for text in (method, path, authority) if text))
            + ((int(row["status"]),) if row["status"] else ())
            for row, method, path, authority in zip(rows, *texts, strict=True)
        ]

    @property
    def counts(self) -> dict[str, int]:
        counters: dict[str, int] = self.chain.read_counts()[2]["counters"]
        return {name: n for name, n in counters.items() if n}


def test_a_request_and_its_response() -> None:
    s = Spoken()
    batch = s.say(BEGIN, headers(1, get(b"/a?b=1")))
    assert batch.http2_n_frames.tolist() == [1, 1]
    assert batch.http2_frame_type.tolist() == [TYPE["SETTINGS"], TYPE["HEADERS"]]
    assert batch.http2_frame_flags.tolist() == [0, 5]
    assert batch.http2_frame_len.tolist() == [0, len(get(b"/a?b=1"))]
    assert batch.http2_stream_id.tolist() == [0, 1]
    assert batch.http2_n_opened.tolist() == [0, 1]
    assert batch.http2_kind.tolist() == [0, KIND["REQUEST"]]
    assert batch.text("http2_method") == ["", "GET"]
    assert batch.text("http2_path") == ["", "/a?b=1"]
    assert batch.text("http2_authority") == ["", "www.example.com:80"]
    batch = s.say(
        frame("SETTINGS", payload=setting(3, 100)) + frame("SETTINGS", 1),
        headers(1, b"\x88", 0x04) + frame("DATA", 0, 1, b"hello"),
        headers(1, literal(b"grpc-status", b"0")), back=True,
    )  # fmt: skip
    assert batch.http2_n_frames.tolist() == [2, 2, 1]
    assert batch.http2_kind.tolist() == [0, KIND["RESPONSE"], KIND["TRAILERS"]]
    assert batch.http2_status.tolist() == [0, 200, 0]
    assert batch.http2_n_opened.tolist() == [1, 1, 1]
    assert [tuple(row) for row in s.http.settings.tolist()] == [(0, 100, 3, 1, 0)]
    assert s.counts == {
        "connections": 1, "frames": 7, "frames_settings": 3, "frames_headers": 3,
        "frames_data": 1, "opened": 1, "requests": 1, "responses": 1, "trailers": 1,
    }  # fmt: skip


def conversation() -> bytes:
    deflate = Deflater()
    fields = [(b":method", b"POST"), (b":path", b"/" + b"x" * 40), (b":authority", b"a"),
              (b":scheme", b"http"), (b"cookie", b"y" * 30)]  # fmt: skip
    first, second, third = deflate(*fields), deflate(*fields), deflate(*fields[:2])
    return b"".join([
        PREFACE, frame("SETTINGS", payload=setting(4, 1) + setting(0x99, 7)),
        frame("HEADERS", 0x2C, 1, b"\3" + bytes(5) + first + bytes(3)),
        frame("DATA", 0x08, 1, b"\2hello\0\0"), frame("PING", payload=bytes(8)),
        frame("HEADERS", 0x20, 3, bytes(5) + second[:2]), frame("CONTINUATION", 0, 3, b""),
        frame("CONTINUATION", 4, 3, second[2:]),
        frame("PRIORITY", 0, 9, bytes(5)), frame("RST_STREAM", 0, 1, number(8)),
        frame("WINDOW_UPDATE", 0, 0, number(2**31 | 77)), frame(0xEE, 0xFF, 5, b"what"),
        headers(5, third), frame("GOAWAY", 0, 0, number(0) + number(11) + b"bye"),
    ])  # fmt: skip


LONG = "/" + "x" * 40
HEARD = [
    ("SETTINGS", 0, 12, 0), ("HEADERS", 1, 0, 0), ("DATA", 1, 8, 0), ("PING", 0, 8, 0),
    ("HEADERS", 3, 0, 0), ("CONTINUATION", 3, 0, 0), ("CONTINUATION", 3, 0, 0),
    ("PRIORITY", 9, 5, 0), ("RST_STREAM", 1, 4, 8), ("WINDOW_UPDATE", 0, 4, 77), (0xEE, 5, 4, 0),
    ("HEADERS", 5, 0, 0), ("GOAWAY", 0, 11, 11),
]  # fmt: skip
ASKED = [(1, "POST", LONG, "a"), (3, "POST", LONG, "a"), (5, "POST", LONG)]


def without_lengths(frames: list[tuple[Any, ...]]) -> list[tuple[object, ...]]:
    return [(f[0], f[1], 0 if f[0] in ("HEADERS", "CONTINUATION") else f[2], f[3]) for f in frames]


def test_cut_anywhere_it_is_the_same() -> None:
    data = conversation()
    for place in range(len(data)):
        s = Spoken()
        s.say(data[:place] or b"")
        frames, messages = s.frames(), s.messages()
        s.say(data[place:])
        assert without_lengths(frames + s.frames()) == HEARD, place
        assert messages + s.messages() == ASKED, place
        assert "malformed" not in s.counts
        assert s.counts["frames"] == len(HEARD)


def test_byte_by_byte_it_is_the_same() -> None:
    data = conversation()
    s = Spoken()
    frames, messages = [], []
    for at in range(0, len(data), 60):
        s.say(*(data[k : k + 1] for k in range(at, min(at + 60, len(data)))))
        frames += s.frames()
        messages += s.messages()
    assert without_lengths(frames) == HEARD
    assert messages == ASKED


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSN",
        b"\x16\x03\x01\x02\x00", frame("DATA", 0, 1, b"x"), frame("SETTINGS", 1), b"\0" * 20,
    ],
)  # fmt: skip
def test_what_begins_otherwise_is_not_http2(data: bytes) -> None:
    s = Spoken()
    s.say(*(data[k : k + 1] for k in range(len(data))), BEGIN)
    s.say(BEGIN, back=True)
    assert s.counts == {"not_http2": 1}
    assert s.frames() == []


def test_a_server_may_speak_first() -> None:
    s = Spoken()
    hello = frame("SETTINGS", payload=setting(5, 20000))
    s.say(hello[:4], hello[4:] + frame("PING", payload=bytes(8)), back=True)
    assert s.http.frames["dir"].tolist() == [1, 1]
    s.say(BEGIN, headers(1, get()))
    assert s.http.frames["dir"].tolist() == [0, 0]
    assert s.counts["connections"] == s.counts["requests"] == 1
    s = Spoken()
    s.say(hello, back=True)
    s.say(b"GET / HTTP/1.1\r\n\r\n")
    s.say(hello, back=True)
    assert s.counts == {"connections": 1, "not_http2": 1, "frames": 1, "frames_settings": 1}


def test_the_client_is_who_sends_the_preface() -> None:
    """Its SYN was not seen, and its port is the lower one."""
    s = Spoken()
    ends = ((b"\x0a\0\0\3", 50000), (b"\x0a\0\0\4", 80))
    s.load(segment(5, BEGIN + headers(1, get()), ends=ends, back=True))
    s.load(segment(5, frame("SETTINGS") + headers(1, b"\x88"), ends=ends))
    assert s.http.frames["dir"].tolist() == [1, 1]
    assert s.messages() == [(1, 200)]
    assert s.counts["opened"] == 1


LARGE = frame("DATA", 0, 1, bytes(16385))
OPEN = BEGIN + headers(1, get(), 0x04)
BAD = [
    ("FIRST_FRAME", PREFACE + frame("PING", payload=bytes(8))),
    ("FIRST_FRAME", PREFACE + frame("SETTINGS", 1)),
    ("FRAME_LONG", OPEN + LARGE),
    ("FRAME_SIZE", BEGIN + frame("SETTINGS", 0, 0, bytes(5))),
    ("FRAME_SIZE", BEGIN + frame("SETTINGS", 1, 0, bytes(6))),
    ("FRAME_SIZE", BEGIN + frame("PING", 0, 0, bytes(7))),
    ("FRAME_SIZE", BEGIN + frame("GOAWAY", 0, 0, bytes(7))),
    ("FRAME_SIZE", BEGIN + frame("WINDOW_UPDATE", 0, 0, bytes(5))),
    ("FRAME_SIZE", OPEN + frame("RST_STREAM", 0, 1, bytes(3))),
    ("FRAME_SIZE", OPEN + frame("PRIORITY", 0, 1, bytes(4))),
    ("FRAME_SIZE", OPEN + frame("DATA", 0x08, 1)),
    ("FRAME_SIZE", BEGIN + frame("HEADERS", 0x2C, 1, bytes(5))),
    ("STREAM_ZERO", BEGIN + frame("DATA", 0, 0, b"x")),
    ("STREAM_ZERO", BEGIN + headers(0, get())),
    ("STREAM_ZERO", BEGIN + frame("PRIORITY", 0, 0, bytes(5))),
    ("STREAM_ZERO", BEGIN + frame("RST_STREAM", 0, 0, bytes(4))),
    ("STREAM_NOT_ZERO", BEGIN + frame("SETTINGS", 0, 1)),
    ("STREAM_NOT_ZERO", BEGIN + frame("PING", 0, 3, bytes(8))),
    ("STREAM_NOT_ZERO", BEGIN + frame("GOAWAY", 0, 3, bytes(8))),
    ("STREAM_PARITY", BEGIN + headers(2, get())),
    ("STREAM_IDLE", BEGIN + frame("DATA", 0, 1, b"x")),
    ("STREAM_IDLE", OPEN + frame("RST_STREAM", 0, 3, bytes(4))),
    ("STREAM_IDLE", OPEN + frame("WINDOW_UPDATE", 0, 2, number(1))),
    ("CONTINUATION", OPEN + frame("CONTINUATION", 4, 1, b"\x82")),
    ("CONTINUATION", BEGIN + headers(1, get(), 0) + frame("PING", payload=bytes(8))),
    ("CONTINUATION", BEGIN + headers(1, get(), 0) + frame("CONTINUATION", 4, 3, b"")),
    ("CONTINUATION", BEGIN + headers(1, get(), 0) + headers(3, get())),
    ("PADDING", OPEN + frame("DATA", 0x08, 1, b"\6hello")),
    ("PADDING", BEGIN + frame("HEADERS", 0x0C, 1, b"\3\x82\x86")),
    ("SETTING", BEGIN + frame("SETTINGS", payload=setting(2, 2))),
    ("SETTING", BEGIN + frame("SETTINGS", payload=setting(4, 2**31))),
    ("SETTING", BEGIN + frame("SETTINGS", payload=setting(5, 16383))),
    ("SETTING", BEGIN + frame("SETTINGS", payload=setting(5, 2**24))),
    ("WINDOW_ZERO", BEGIN + frame("WINDOW_UPDATE", 0, 0, number(2**31))),
    ("PUSH", OPEN + frame("PUSH_PROMISE", 4, 1, number(2) + get())),
    ("HPACK", BEGIN + headers(1, b"\x80")),
    ("HPACK", BEGIN + headers(1, b"\x82\x40")),
    ("HPACK", BEGIN + headers(1, b"\xff" * 20)),
]


@pytest.mark.parametrize(("reason", "data"), BAD)
def test_what_contradicts_itself_is_flagged_and_the_next_frame_found(
    reason: str, data: bytes
) -> None:
    s = Spoken()
    parts = [data[at : at + 1400] for at in range(0, len(data), 1400)]
    batch = s.say(*parts, frame(0xEE, 0, 5, b"next"))
    assert batch.http2_malformed[batch.http2_malformed != 0].tolist() == [MALFORMED[reason]]
    assert s.counts["malformed"] == s.counts[f"malformed_{reason.lower()}"] == 1
    assert "given_up" not in s.counts
    # a direction that does not begin with SETTINGS is read no further
    assert s.counts.get("frames_other", 0) == int(reason != "FIRST_FRAME")
    if s.counts.get("hpack_lost"):
        s.say(headers(7, get()))
        assert s.messages() == []


def test_every_reason_is_met() -> None:
    assert {reason for reason, _ in BAD} == set(MALFORMED)


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("FIRST_FRAME", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("SETTING", frame("SETTINGS", payload=setting(2, 1))),
        ("STREAM_IDLE", frame("SETTINGS") + headers(3, b"\x88")),
        ("STREAM_IDLE", frame("SETTINGS") + frame("RST_STREAM", 0, 2, number(1))),
        ("STREAM_PARITY", frame("SETTINGS") + frame("PUSH_PROMISE", 4, 1, number(3) + get())),
    ],
)
def test_a_server_may_do_wrong_as_well(reason: str, data: bytes) -> None:
    s = Spoken()
    s.say(OPEN)
    batch = s.say(data, back=True)
    assert batch.http2_malformed.tolist() == [MALFORMED[reason]]


def test_what_is_promised_may_come() -> None:
    s = Spoken()
    s.say(OPEN)
    push = frame("PUSH_PROMISE", 0, 1, number(2) + get(b"/style.css"))
    s.say(
        frame("SETTINGS") + push + frame("CONTINUATION", 4, 1, b""), headers(2, b"\x88"), back=True
    )
    assert s.messages() == [(2, "GET", "/style.css", "www.example.com:80"), (2, 200)]
    assert s.http.messages["kind"].tolist() == [KIND["PUSH"], KIND["RESPONSE"]]
    assert s.frames()[1][3] == 2
    s.say(frame("RST_STREAM", 0, 2, number(8)))
    assert "malformed" not in s.counts


def test_longer_frames_are_right_if_the_other_end_takes_them() -> None:
    s = Spoken()
    s.say(OPEN)
    s.say(frame("SETTINGS", payload=setting(5, 16385)), back=True)
    s.say(*(LARGE[at : at + 1400] for at in range(0, len(LARGE), 1400)))
    assert "malformed" not in s.counts


def test_where_the_other_end_is_not_seen_its_limits_are_not_known() -> None:
    s = Spoken()
    ends = ((b"\x0a\0\0\3", 50000), (b"\x0a\0\0\4", 80))
    data = OPEN + LARGE + frame("RST_STREAM", 0, 2, number(1)) + frame("PING", payload=bytes(8))
    s.load(*(segment(at, data[at : at + 1400], ends=ends) for at in range(0, len(data), 1400)))
    assert "malformed" not in s.counts
    assert s.counts["frames_ping"] == 1


def test_bytes_of_data_that_never_came_are_skipped() -> None:
    s = Spoken()
    s.say(OPEN + frame("DATA", 0, 1, bytes(100))[:50])
    s.lost(20)
    s.say(bytes(39) + headers(3, get(b"/3")))
    assert s.messages() == [(3, "GET", "/3", "www.example.com:80")]
    s.say(frame("DATA", 0, 1, bytes(100))[:50])
    s.lost(59)  # to the end of the frame, exactly
    s.say(headers(5, get(b"/5")))
    assert s.messages() == [(5, "GET", "/5", "www.example.com:80")]
    assert "given_up" not in s.counts
    assert "hpack_lost" not in s.counts


def test_where_a_header_section_is_lost_fields_are_no_longer_told_but_frames_are() -> None:
    s = Spoken()
    request = headers(1, get())
    s.say(BEGIN + request[:20])
    s.lost(10)
    s.say(request[30:] + headers(3, get()))
    assert s.messages() == []
    assert [name for name, *_ in s.frames()] == ["HEADERS"]
    assert s.counts["hpack_lost"] == 1
    assert s.counts["opened"] == 2
    assert "given_up" not in s.counts


@pytest.mark.parametrize("n", [1, 30])
def test_where_a_frame_header_is_lost_the_direction_is_given_up(n: int) -> None:
    s = Spoken()
    s.say(OPEN)
    s.lost(n)
    s.say(headers(3, get()))
    assert s.frames() == []
    assert s.counts["given_up"] == 1
    s.say(frame("SETTINGS") + headers(1, b"\x88"), back=True)
    assert s.messages() == [(1, 200)]


def test_a_reset_whose_error_is_lost_is_a_reset() -> None:
    s = Spoken()
    s.say(OPEN + frame("RST_STREAM", **RESET)[:11])
    s.lost(2)
    batch = s.say(frame("PING", payload=bytes(8)))
    assert s.frames() == [("RST_STREAM", 1, 4, 0), ("PING", 0, 8, 0)]
    assert batch.http2_n_reset.tolist() == [1]


def test_a_preface_that_is_not_whole_is_none() -> None:
    s = Spoken()
    s.say(PREFACE[:5])
    s.lost(5)
    s.say(PREFACE[10:] + frame("SETTINGS"))
    assert s.counts == {"not_http2": 1}


def rapid(first: int, n: int) -> bytes:
    return b"".join(
        headers(k, get()) + frame("RST_STREAM", 0, k, number(8))
        for k in range(first, first + 2 * n, 2)
    )


def test_a_client_that_resets_too_fast_is_dropped_from_then_on() -> None:
    s = Spoken(Http2(max_resets_per_s=10, reset_burst=5, verdict=DROP))
    batch = s.say(BEGIN, *(rapid(k, 1) for k in range(1, 17, 2)), frame("PING", payload=bytes(8)))
    assert batch.http2_n_opened.tolist() == [0, *range(1, 9), 8]
    assert batch.http2_n_reset.tolist() == [0, *range(1, 9), 8]
    assert batch.http2_flood.tolist() == [0] * 6 + [FLOOD["RESETS"]] * 4
    assert batch.verdict.tolist() == [UNDECIDED] * 6 + [DROP] * 4
    # the server's packets are not the client's; and what is no data of the client is
    s.say(frame("SETTINGS"), back=True)
    assert s.batch.verdict.tolist() == [UNDECIDED]
    assert s.batch.http2_n_reset.tolist() == [8]
    s.load(segment(s.next[0]))
    assert s.batch.verdict.tolist() == [DROP]
    # another connection
    ends = ((b"\x0a\0\0\3", 50000), (b"\x0a\0\0\4", 80))
    s.load(segment(0, BEGIN + rapid(1, 5), ends=ends))
    assert s.batch.verdict.tolist() == [UNDECIDED]
    # that the client is gone is told to the server; and the same ports may be used anew
    s.load(segment(s.next[0], flags=RST))
    assert s.batch.verdict.tolist() == [UNDECIDED]
    s.load(segment(5000, flags=SYN), segment(5001, BEGIN + rapid(1, 5)))
    assert s.batch.verdict.tolist() == [UNDECIDED] * 2
    assert s.counts["rapid_resets"] == 1
    assert s.counts["flood_packets"] == 6


def test_resets_are_paid_for_as_time_goes_by() -> None:
    s = Spoken(Http2(max_resets_per_s=10, reset_burst=5, verdict=DROP))
    s.say(BEGIN + rapid(1, 5))
    stream = 11
    for _ in range(20):
        s.time_ns += S // 10
        s.say(rapid(stream, 1))
        stream += 2
    assert s.batch.http2_flood.tolist() == [0]
    s.time_ns += S // 10 - 1
    s.say(rapid(stream, 1))
    assert s.batch.http2_flood.tolist() == [FLOOD["RESETS"]]


def test_a_clock_that_is_put_back_gives_nothing_and_goes_on_from_there() -> None:
    s = Spoken(Http2(max_resets_per_s=10, reset_burst=5))
    s.time_ns = 100 * S
    s.say(BEGIN + rapid(1, 4))
    s.time_ns = 10 * S
    s.say(rapid(11, 1))
    assert s.batch.http2_flood.tolist() == [FLOOD["RESETS"]]
    s = Spoken(Http2(max_resets_per_s=10, reset_burst=5))
    s.time_ns = 100 * S
    s.say(BEGIN + rapid(1, 4))
    s.time_ns = 10 * S
    s.say(headers(11, get()))
    assert s.batch.http2_flood.tolist() == [0]


def test_without_a_verdict_a_flood_is_told_and_goes_on() -> None:
    s = Spoken(Http2(max_resets_per_s=1, reset_burst=1, mark=7))
    batch = s.say(BEGIN, rapid(1, 2), frame("PING", payload=bytes(8)))
    assert batch.http2_flood.tolist() == [0, FLOOD["RESETS"], FLOOD["RESETS"]]
    assert batch.verdict.tolist() == [UNDECIDED] * 3
    assert batch.mark.tolist() == [0, 7, 7]
    s = Spoken(Http2(max_resets_per_s=None, verdict=DROP))
    s.say(BEGIN)
    for k in range(1, 2000, 40):
        s.say(rapid(k, 20))
    assert s.counts["client_resets"] == 1000
    assert "rapid_resets" not in s.counts


def test_a_server_that_resets_is_counted_by_itself() -> None:
    s = Spoken(Http2(max_resets_per_s=1, reset_burst=1, verdict=DROP))
    s.say(OPEN)
    s.say(frame("SETTINGS") + frame("RST_STREAM", **RESET) * 3, back=True)
    batch = s.say(frame("PING", payload=bytes(8)))
    assert batch.http2_n_server_reset.tolist() == [3]
    assert batch.http2_n_reset.tolist() == [0]
    assert batch.verdict.tolist() == [UNDECIDED]
    assert s.counts["server_resets"] == 3


@pytest.mark.parametrize(
    "parts",
    [
        [headers(1, get(), 1), *(frame("CONTINUATION", 0, 1, b"") for _ in range(5))],
        [headers(1, get(), 1), *(frame("CONTINUATION", 0, 1, b"\x82" * 400) for _ in range(3))],
    ],
)
def test_a_header_section_without_end_is_a_flood(parts: list[bytes]) -> None:
    s = Spoken(Http2(max_continuations=4, max_section=1000, verdict=DROP))
    batch = s.say(BEGIN, *parts)
    n = len(parts)
    assert batch.http2_flood.tolist() == [0] * n + [FLOOD["CONTINUATION"]]
    assert batch.verdict.tolist() == [UNDECIDED] * n + [DROP]
    assert s.counts["continuation_floods"] == s.counts["hpack_lost"] == 1
    s = Spoken(Http2(max_continuations=5, max_section=1500, verdict=DROP))
    s.say(BEGIN, *parts[:-1], frame("CONTINUATION", 4, 1, b""))
    assert len(s.messages()) == 1


@pytest.mark.parametrize(
    ("one", "n"),
    [
        (frame("PING", payload=bytes(8)), 1), (frame("SETTINGS", payload=setting(1, 0)), 1),
        (frame("PRIORITY", 0, 1, bytes(5)), 1), (frame("PING", 1, payload=bytes(8)), 0),
        (frame("SETTINGS", 1), 0), (frame("WINDOW_UPDATE", 0, 0, number(1)), 0),
    ],
)  # fmt: skip
def test_control_frames_are_bounded_but_for_acknowledgements(one: bytes, n: int) -> None:
    s = Spoken(Http2(max_control_per_s=20, verdict=DROP))
    batch = s.say(OPEN, one * 19, one)
    assert batch.http2_flood.tolist() == [0, 0, n * FLOOD["CONTROL"]]
    assert s.counts.get("control_floods", 0) == n


def test_all_of_a_field_table_is_followed() -> None:
    """Evicted and referred to, over many sections; the memory of a decoder is enough."""
    rng = random.Random(3)
    deflate = Deflater()
    s = Spoken()
    s.say(BEGIN)
    for k in range(1, 800, 2):
        path = b"/%d/" % k + bytes(rng.choices(b"abcXYZ019-", k=rng.randrange(200)))
        extra = [(b"x-%d" % rng.randrange(60), b"v" * rng.randrange(40)) for _ in range(8)]
        section = deflate((b":method", b"GET"), (b":path", path), *extra)
        s.say(headers(k, section[:90], 1), frame("CONTINUATION", 4, k, section[90:]))
        assert s.messages() == [(k, "GET", path.decode())]
    assert "hpack_lost" not in s.counts


@pytest.mark.parametrize(("announced", "used", "lost"), [(8192, 8192, 0), (65536, 65536, 1)])
def test_a_larger_table_is_followed_up_to_its_bound(announced: int, used: int, lost: int) -> None:
    deflate = Deflater(used)
    s = Spoken()
    s.say(BEGIN)
    s.say(frame("SETTINGS", payload=setting(1, announced)), back=True)
    fields = [(b":method", b"GET")] + [(b"x-%d" % k, b"v" * 100) for k in range(50)]
    for k in (1, 3):
        section = deflate(*fields)
        s.say(*(
            frame("HEADERS" if at == 0 else "CONTINUATION", 0, k, section[at : at + 1000])
            for at in range(0, len(section), 1000)
        ), frame("CONTINUATION", 4, k))  # fmt: skip
        assert s.messages() == [(k, "GET")] * (not lost)
    assert s.counts.get("hpack_lost", 0) == lost


def test_the_smallest_fields_fill_a_decoder_and_do_not_overflow_it() -> None:
    s = Spoken()
    s.say(BEGIN)
    section = b"".join(b"\x40\1" + bytes([97 + k % 26]) + b"\0" for k in range(300))
    for k in (1, 3, 5):
        s.say(headers(k, b"\x82" + section))
        assert s.messages() == [(k, "GET")]


def test_a_field_too_long_to_keep_ends_the_fields() -> None:
    s = Spoken()
    data = b"\x82\0\1a\x7f\xc1\xb7\x02" + b"z" * 40000  # RFC 7541, 5.1: 127 and 39873
    s.say(BEGIN, frame("HEADERS", 0, 1, data[:1000]))
    for at in range(1000, 33000, 1000):
        s.say(frame("CONTINUATION", 0, 1, data[at : at + 1000]))
    assert s.messages() == []
    assert s.counts["hpack_lost"] == 1
    assert "malformed" not in s.counts


def other(k: int) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    return ((b"\x0a\0\0\3", k), (b"\x0a\0\0\4", 80))


def test_the_decoder_used_longest_ago_makes_room() -> None:
    s = Spoken(Http2(n_decoders=2))
    s.load(segment(0, OPEN, ends=other(1)))
    s.say(OPEN)
    s.load(segment(len(OPEN), headers(3, get()), ends=other(1)))
    s.load(segment(0, OPEN, ends=other(2)))  # takes s's
    assert len(s.messages()) == 1
    s.say(headers(3, get()))
    assert s.messages() == []
    assert s.counts["decoder_taken_away"] == s.counts["hpack_lost"] == 1
    s.load(segment(len(OPEN) + len(headers(3, get())), headers(5, get()), ends=other(1)))
    assert len(s.messages()) == 1


def test_a_decoder_taken_away_within_a_section_is_noticed() -> None:
    s = Spoken(Http2(n_decoders=1))
    request = headers(1, get())
    s.say(BEGIN + request[:30])
    s.load(segment(0, OPEN, ends=other(1)))
    s.say(request[30:])
    assert s.messages() == []
    assert s.counts["hpack_lost"] == 1


@pytest.mark.parametrize("flags", [RST, 0x11])
def test_the_end_of_a_connection_gives_the_decoder_back(flags: int) -> None:
    s = Spoken(Http2(n_decoders=1))
    s.say(OPEN)
    s.load(segment(s.next[0], flags=flags))
    s.load(segment(0, OPEN, ends=other(1)))
    assert len(s.messages()) == 1
    assert "decoder_taken_away" not in s.counts


def test_another_connection_in_the_same_place_begins_anew() -> None:
    s = Spoken(Http2(n_decoders=1), TcpStreams(n_connections=1))
    s.say(BEGIN + headers(1, get())[:30])
    s.load(segment(0, OPEN, ends=other(1)))
    assert len(s.messages()) == 1
    assert s.batch.http2_n_opened.tolist() == [1]
    assert "decoder_taken_away" not in s.counts
    s.load(segment(s.next[0], headers(3, get()), ends=(A, (b"\x0a\0\0\2", 443))))
    assert s.frames() == []


def test_more_than_there_are_places_for_is_counted() -> None:
    s = Spoken(Http2(n_frames=2, n_messages=1))
    batch = s.say(OPEN + headers(3, get()), headers(5, get(b"/5")))
    s.say(frame("SETTINGS", payload=setting(3, 1) * 3))
    assert len(s.http.settings) == 2
    assert batch.http2_n_frames.tolist() == [1]
    assert s.counts["frames_lost"] == 2
    assert s.counts["settings_lost"] == 1
    assert s.counts["messages_lost"] == 2


def test_without_headers_there_are_none() -> None:
    s = Spoken(Http2(headers=False, max_resets_per_s=1, reset_burst=1))
    batch = s.say(OPEN, rapid(3, 2))
    assert batch.http2_n_messages.tolist() == [0, 0]
    assert batch.http2_n_frames.tolist() == [2, 4]
    assert s.counts["rapid_resets"] == 1
    assert "hpack_lost" not in s.counts


def test_long_texts_are_cut_or_left_out() -> None:
    s = Spoken()
    deflate = Deflater()
    section = deflate(
        (b":method", b"M" * 40), (b":path", b"/" + b"p" * 3000), (b":authority", b"h" * 256)
    )
    s.say(BEGIN, *(
        frame("HEADERS" if at == 0 else "CONTINUATION", 0, 1, section[at : at + 1000])
        for at in range(0, len(section), 1000)
    ), frame("CONTINUATION", 4, 1))  # fmt: skip
    assert s.messages() == [(1, "M" * 32, "/" + "p" * 2047)]


def test_texts_that_the_batch_has_no_room_for_are_counted() -> None:
    """A path that the table has takes a byte to ask for again."""
    s = Spoken()
    path = b"/" + b"p" * 1000
    deflate = Deflater()
    fields = [(b":method", b"GET"), (b":path", path), (b"x", b"y")]
    s.say(BEGIN, headers(1, deflate(*fields)))
    assert s.messages() == [(1, "GET", path.decode())]
    # libnghttp2 does not index paths: this is RFC 7541, 6.2.1, with the name of entry 4
    section = b"\x82\x44\x7f" + bytes([0x80 | (1001 - 127) & 127, (1001 - 127) >> 7]) + path
    s.say(headers(3, section))
    again = b"".join(headers(k, b"\x82\xbe") for k in range(5, 805, 2))
    s.say(*(again[at : at + 1100] for at in range(0, len(again), 1100)))
    n = sum(message[2:] == (path.decode(),) for message in s.messages())
    assert len(s.http.messages) == 400
    assert 0 < n < 400
    assert s.counts["texts_lost"] == 400 - n


def pieces(data: bytes, rng: random.Random) -> Iterator[bytes]:
    places = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(4))})
    return (data[a:b] for a, b in pairwise(places))


def test_random_bytes_read_nothing_beyond_them() -> None:
    """For the sanitizers: pieces of conversations, bent and put together anew."""
    rng = random.Random(4)
    parts = [data[len(BEGIN) :][:700] for _, data in BAD if data.startswith(BEGIN)]
    parts += [conversation()[len(PREFACE) :], rapid(1, 3), frame("DATA", 8, 1, b"\1x\0")]
    for _ in range(60):
        s = Spoken(Http2(n_decoders=rng.choice((1, 8)), n_frames=20))
        s.say(BEGIN)
        s.say(frame("SETTINGS"), back=True)
        for _ in range(10):
            data = bytearray(b"".join(rng.choices(parts, k=2))[:1400])
            for _ in range(rng.randrange(3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            s.say(*pieces(bytes(data), rng), back=rng.random() < 0.5)
            if rng.random() < 0.1:
                s.lost(rng.randrange(1, 40))


def test_it_takes_the_streams() -> None:
    with pytest.raises(ChainError, match=r"add TcpStreams\(\) before Http2"):
        Chain([Headers(), Http2()], Batch(bytearray(64), 1))


def test_without_the_library_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIBNGHTTP2", ("libnosuch.so.1",))
    with pytest.raises(XdpipeError, match="apt install libnghttp2-14, or write headers=False"):
        Http2()
    Http2(headers=False)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"n_decoders": 0}, "n_decoders=0: 1 to"), ({"n_frames": 1.5}, "n_frames=1.5: 1 to"),
        ({"n_messages": 0}, "n_messages=0: 1 to"), ({"reset_burst": 0}, "reset_burst=0: 1 to"),
        ({"max_continuations": 0}, "max_continuations=0"), ({"max_section": 0}, "max_section=0"),
        ({"max_resets_per_s": 0}, "max_resets_per_s=0: 0.001 to"),
        ({"max_control_per_s": float("nan")}, "max_control_per_s=nan: 0.001 to"),
        ({"verdict": UNDECIDED}, "is no verdict"), ({"mark": -1}, "mark=-1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(XdpipeError, match=told):
        Http2(**given)
