"""Tls: records, hellos and alerts, however segments are cut."""

import hashlib
import random
import struct
from itertools import pairwise

import pytest
from test_stage_tcp_streams import ACK, RST, SYN, Followed, segment

from xdpipe.batch import ENUMS, Batch
from xdpipe.chain import Chain, ChainError
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, TcpStreams, Tls

HELLO = {name: value for name, (value, _) in ENUMS["tls_hello"].items()}
MALFORMED = {name: value for name, (value, _) in ENUMS["tls_malformed"].items()}
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
GREASE = 0x1A1A


def vector(data: bytes, size: int) -> bytes:
    """Return the data behind its length in `size` bytes."""
    return len(data).to_bytes(size, "big") + data


def numbers(values: list[int]) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def sni(name: bytes) -> tuple[int, bytes]:
    return 0, vector(b"\0" + vector(name, 2), 2)


def alpn(*names: bytes) -> tuple[int, bytes]:
    return 16, vector(b"".join(vector(name, 1) for name in names), 2)


def versions(*values: int) -> tuple[int, bytes]:
    return 43, vector(numbers(list(values)), 1)


def signatures(*values: int) -> tuple[int, bytes]:
    return 13, vector(numbers(list(values)), 2)


def extended(extensions: list[tuple[int, bytes]]) -> bytes:
    return vector(b"".join(numbers([kind]) + vector(data, 2) for kind, data in extensions), 2)


CIPHERS = [GREASE, 0x1301, 0x1302, 0xC02B]
EXTENSIONS = [
    (GREASE, b""), sni(b"WWW.Example.com"), alpn(b"h2", b"http/1.1"),
    versions(GREASE, 0x0304, 0x0303), signatures(0x0403, 0x0804), (51, bytes(1200)),
]  # fmt: skip


def client_hello(
    ciphers: list[int] = CIPHERS, extensions: list[tuple[int, bytes]] | None = EXTENSIONS
) -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(bytes(32), 1)
    body += vector(numbers(ciphers), 2) + vector(b"\0", 1)
    return body if extensions is None else body + extended(extensions)


def server_hello(random: bytes = bytes(32), extensions: list[tuple[int, bytes]] = ()) -> bytes:  # type: ignore[assignment]
    body = b"\x03\x03" + random + vector(b"", 1) + numbers([0x1301]) + b"\0"
    return body + extended(list(extensions))


def handshake(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(body, 3)


def record(kind: int, data: bytes, version: int = 0x0301) -> bytes:
    return bytes([kind]) + numbers([version]) + vector(data, 2)


HELLO_RECORD = record(22, handshake(1, client_hello()))


class Spoken(Followed):
    """Headers, TcpStreams and Tls, and streams to speak over."""

    def __init__(self, stage: Tls | None = None, streams: TcpStreams | None = None) -> None:
        self.tls = stage or Tls()
        super().__init__(streams or TcpStreams(n_connections=64))
        self.next = [1, 1001]
        self.load(segment(0, flags=SYN), segment(1000, flags=SYN | ACK, back=True))

    def __post_init__(self) -> None:
        self.batch = Batch(bytearray(1 << 20), self.capacity)
        self.chain = Chain([Headers(), self.stage, self.tls], self.batch)

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

    @property
    def counts(self) -> dict[str, int]:
        counters: dict[str, int] = self.chain.read_counts()[2]["counters"]
        return {name: n for name, n in counters.items() if n}


def test_a_client_hello_says_what_it_offers() -> None:
    s = Spoken()
    batch = s.say(HELLO_RECORD, record(23, b"later"))
    assert batch.tls_hello.tolist() == [HELLO["CLIENT"], 0]
    assert batch.tls_version.tolist() == [0x0304, 0]
    assert batch.tls_legacy_version.tolist() == [0x0303, 0]
    assert batch.text("tls_sni") == ["www.example.com", ""]
    assert batch.text("tls_alpn") == ["h2,http/1.1", ""]
    assert [n.tolist() for n in batch.numbers("tls_ciphers")] == [CIPHERS, []]
    assert batch.numbers("tls_extensions")[0].tolist() == [GREASE, 0, 16, 43, 13, 51]
    assert batch.tls_record_type.tolist() == [22, 23]
    assert batch.tls_record_version.tolist() == [0x0301, 0x0301]
    assert batch.tls_record_len.tolist() == [len(HELLO_RECORD) - 5, 5]
    assert batch.tls_malformed.tolist() == [0, 0]
    assert s.counts == {"streams": 1, "records": 2, "client_hellos": 1}


def test_the_fingerprint_is_ja4() -> None:
    s = Spoken()
    b = hashlib.sha256(b"1301,1302,c02b").hexdigest()[:12]
    c = hashlib.sha256(b"000d,002b,0033_0403,0804").hexdigest()[:12]
    for _ in range(2):  # the second time from what is kept
        s = Spoken(s.tls)
        assert s.say(HELLO_RECORD).text("tls_ja4") == [f"t13d0305h2_{b}_{c}"]


@pytest.mark.parametrize(
    ("ciphers", "extensions", "begins", "ends"),
    [
        ([0x0005], None, "t12i010000_", "_000000000000"),
        ([GREASE], [], "t12i000000_000000000000_", "_000000000000"),
        (list(range(1, 151)), [(k, b"") for k in range(100, 210)], "t12i999900_", ""),
        ([5], [alpn(b"x")], "t12i0101xx_", "_000000000000"),
        ([5], [alpn(b"\xabz\xcd")], "t12i0101ad_", "_000000000000"),
        ([5], [alpn(b"h2-")], "t12i01016d_", "_000000000000"),
        ([5], [versions(0x0302)], "t11i010100_", ""),
        ([5], [versions(0x7F1C)], "t00i010100_", ""),
    ],
)
def test_what_is_missing_shows_in_the_fingerprint(
    ciphers: list[int], extensions: list[tuple[int, bytes]] | None, begins: str, ends: str
) -> None:
    (ja4,) = (
        Spoken().say(record(22, handshake(1, client_hello(ciphers, extensions)))).text("tls_ja4")
    )
    assert ja4.startswith(begins), ja4
    assert ja4.endswith(ends), ja4
    assert len(ja4) == 36


@pytest.mark.parametrize("n", [2, 100, 255, 300, 512])
def test_any_number_of_ciphers_is_sorted(n: int) -> None:
    ciphers = random.Random(n).sample([k for k in range(65536) if k & 0x0F0F != 0x0A0A], n)
    batch = Spoken().say(*cut(record(22, handshake(1, client_hello(ciphers))), [1400]))
    text = ",".join(f"{k:04x}" for k in sorted(ciphers)).encode()
    assert batch.text("tls_ja4")[-1].split("_")[1] == hashlib.sha256(text).hexdigest()[:12]


def test_too_many_ciphers_give_no_fingerprint() -> None:
    s = Spoken()
    batch = s.say(record(22, handshake(1, client_hello([1] * 513))))
    assert batch.text("tls_ja4") == [""]
    assert len(batch.numbers("tls_ciphers")[0]) == 513
    assert s.counts["no_ja4"] == 1


def test_without_ja4_there_is_none() -> None:
    batch = Spoken(Tls(ja4=False)).say(HELLO_RECORD)
    assert batch.text("tls_ja4") == [""]
    assert batch.tls_hello.tolist() == [HELLO["CLIENT"]]


def test_a_server_hello_says_what_was_chosen() -> None:
    s = Spoken()
    s.say(HELLO_RECORD)
    hello = server_hello(extensions=[(43, b"\x03\x04"), alpn(b"h2"), (0, b"")])
    batch = s.say(record(22, handshake(2, hello) + handshake(11, b"x"), 0x0303), back=True)
    assert batch.tls_hello.tolist() == [HELLO["SERVER"]]
    assert batch.tls_version.tolist() == [0x0304]
    assert batch.tls_cipher.tolist() == [0x1301]
    assert batch.text("tls_alpn") == ["h2"]
    assert batch.numbers("tls_extensions")[0].tolist() == [43, 16, 0]
    assert batch.text("tls_ja4") == [""]


def test_after_a_retry_both_say_hello_again() -> None:
    s = Spoken()
    s.say(HELLO_RECORD, record(20, b"\1"))
    batch = s.say(record(22, handshake(2, server_hello(RETRY))), back=True)
    assert batch.tls_hello.tolist() == [HELLO["RETRY"]]
    batch = s.say(HELLO_RECORD)
    assert batch.tls_hello.tolist() == [HELLO["CLIENT"]]
    batch = s.say(record(22, handshake(2, server_hello())), back=True)
    assert batch.tls_hello.tolist() == [HELLO["SERVER"]]
    # what comes then is encrypted, whatever it looks like
    assert s.say(HELLO_RECORD).tls_hello.tolist() == [0]
    assert s.counts["retries"] == 1


def test_another_hello_is_seen_where_the_retry_is_not() -> None:
    s = Spoken()
    s.say(HELLO_RECORD)
    assert s.say(record(20, b"\1"), HELLO_RECORD).tls_hello.tolist() == [0, HELLO["CLIENT"]]
    assert s.say(HELLO_RECORD).tls_hello.tolist() == [0]
    assert s.counts["client_hellos"] == 2


@pytest.mark.parametrize(
    "message",
    [
        handshake(16, bytes(40)),  # ClientKeyExchange
        handshake(1, bytes(40))[:-1],  # what is encrypted may begin like that
        b"\1\0\0",
        handshake(1, bytes(40)) + b"\0",
    ],
    ids=["another", "cut", "short", "more"],
)
def test_what_comes_behind_a_hello_is_mostly_none(message: bytes) -> None:
    s = Spoken()
    s.say(HELLO_RECORD)
    assert s.say(record(22, message), HELLO_RECORD).tls_hello.tolist() == [0, 0]
    assert s.counts["client_hellos"] == 1
    assert s.counts.get("malformed", 0) == 0


def test_texts_that_there_is_no_room_for_are_counted() -> None:
    s = Spoken()
    s.capacity = 1
    s.__post_init__()
    s.load(segment(0, flags=SYN))
    ciphers = list(range(3000))
    batch = s.say(record(22, handshake(1, client_hello(ciphers))))
    assert batch.tls_hello.tolist() == [HELLO["CLIENT"]]
    assert [len(row) for row in batch.numbers("tls_ciphers")] == [0]
    assert batch.text("tls_sni") == ["www.example.com"]
    assert s.counts["texts_lost"] == 1


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def test_a_hello_cut_anywhere_is_put_together() -> None:
    data = HELLO_RECORD
    whole = Spoken().say(data)
    expected = (whole.text("tls_sni"), whole.text("tls_ja4"), whole.tls_version.tolist())
    for place in range(1, len(data)):
        s = Spoken()
        first = s.say(data[:place])
        assert first.tls_hello.tolist() == [0], place
        batch = s.say(data[place:] + record(23, b"data"))
        assert (
            batch.text("tls_sni"),
            batch.text("tls_ja4"),
            batch.tls_version.tolist(),
        ) == expected
        assert s.counts["client_hellos"] == 1
        assert s.counts["records"] == 2
        assert s.counts.get("put_together", 0) == (place > 5)


def test_a_hello_over_several_records_in_single_bytes() -> None:
    message = handshake(1, client_hello(extensions=[sni(b"a.b")]))
    records = b"".join(record(22, message[at : at + 10]) for at in range(0, len(message), 10))
    s = Spoken()
    for at in range(0, len(records), 40):
        batch = s.say(*(records[k : k + 1] for k in range(at, min(at + 40, len(records)))))
    assert batch.text("tls_sni")[-1] == "a.b"
    assert s.counts["records"] == -(-len(message) // 10)


def test_an_alert_in_the_clear_is_told_and_an_encrypted_one_not() -> None:
    s = Spoken()
    batch = s.say(HELLO_RECORD, record(21, b"\2\x28"), record(21, b"\1"[:1] + bytes(30)))
    assert batch.tls_alert.tolist() == [0, 0x0228, 0]
    batch = s.say(record(21, b"\1\0")[:6], record(21, b"\1\0")[6:])
    assert batch.tls_alert.tolist() == [0, 0x0100]
    assert s.counts["alerts"] == 2


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x16\x02\0\0\5", b"\x19\3\1\0\5", b"\x80\x2e\1"]
)
def test_a_stream_that_begins_otherwise_is_not_tls(data: bytes) -> None:
    s = Spoken()
    s.say(data, HELLO_RECORD)
    assert s.counts == {"not_tls": 1}


def bent(at: int, value: bytes, data: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def hello_with(extensions: list[tuple[int, bytes]]) -> bytes:
    return record(22, handshake(1, client_hello(extensions=extensions)))


MINIMAL = record(22, handshake(1, client_hello([5], None)))
BAD = {
    "RECORD_TYPE": HELLO_RECORD + b"\x19\3\1\0\1x",
    "RECORD_VERSION": HELLO_RECORD + b"\x17\2\1\0\1x",
    "RECORD_LEN": HELLO_RECORD + b"\x17\3\1\x48\1x",
    "HELLO_LONG": record(22, b"\1\0\x40\0" + bytes(50)),
    "HELLO_SHORT": record(22, handshake(1, b"\3\3" + bytes(30))),
    "SESSION_ID": bent(5 + 4 + 34, b"\x21", HELLO_RECORD),
    "CIPHERS": record(22, handshake(1, b"\3\3" + bytes(33) + b"\0\3abc\1\0")),
    "COMPRESSION": record(22, handshake(1, b"\3\3" + bytes(33) + b"\0\2ab\2\0")),
    "EXTENSIONS": record(22, handshake(1, client_hello([5], None) + b"\0\1")),
    "EXTENSION": record(22, handshake(1, client_hello([5], None) + b"\0\4\0\0\0\1")),
    "SNI": hello_with([(0, b"\0\5\0\0\3ab")]),
    "ALPN": hello_with([(16, b"\0\3\3h2")]),
    "VERSIONS": hello_with([(43, b"\3\3\4\3")]),
    "SIGNATURES": hello_with([(13, b"\0\3\4\3\0")]),
}


@pytest.mark.parametrize("reason", list(MALFORMED))
def test_what_contradicts_itself_is_malformed_with_the_reason(reason: str) -> None:
    s = Spoken()
    batch = s.say(BAD[reason])
    assert batch.tls_malformed.tolist() == [MALFORMED[reason]]
    assert s.counts["malformed"] == s.counts[f"malformed_{reason.lower()}"] == 1


@pytest.mark.parametrize(
    "extensions",
    [
        [(0, vector(b"\0" + vector(b"", 2), 2))], [sni(b"x" * 256)], [(0, b"")], [(16, b"\0\0")],
        [(16, b"\0\1\0")], [(43, b"\0")], [(43, b"")], [(13, b"")],
        [(k, b"") for k in range(99, 356)],
    ],
)  # fmt: skip
def test_more_that_is_malformed(extensions: list[tuple[int, bytes]]) -> None:
    assert Spoken().say(hello_with(extensions)).tls_malformed.all()


def test_any_hello_with_a_bent_byte_reads_nothing_beyond_it() -> None:
    """For the sanitizers; the hello is the last thing in its packet."""
    rng = random.Random(3)
    data = record(22, handshake(1, client_hello(extensions=EXTENSIONS[:-1])))
    for _ in range(40):
        packets, ends = [], []
        for k in range(50):
            bent_data = bytearray(data[: rng.randrange(6, len(data) + 1)])
            for _ in range(rng.randrange(4)):
                bent_data[rng.randrange(len(bent_data))] = rng.randrange(256)
            ends = [(b"\x0a\0\0\1", 2000 + k), (b"\x0a\0\0\2", 443)]
            packets.append(segment(1, bytes(bent_data), ends=(ends[0], ends[1])))
        s = Spoken()
        s.load(*packets)


def test_bytes_that_never_came_are_skipped_within_a_record() -> None:
    s = Spoken()
    s.say(HELLO_RECORD, record(23, bytes(100))[:50])
    s.next[0] += 20
    s.load(segment(1001, ack=s.next[0], back=True))
    batch = s.say(bytes(35) + record(23, b"next"))
    assert batch.tls_n_records.tolist() == [1]
    assert "given_up" not in s.counts


@pytest.mark.parametrize("begun", [HELLO_RECORD[:50], HELLO_RECORD, b""])
def test_a_direction_that_misses_a_header_or_a_part_of_its_hello_is_given_up(begun: bytes) -> None:
    s = Spoken()
    if begun:
        s.say(begun)
    s.next[0] += 20
    s.load(segment(1001, ack=s.next[0], back=True))
    batch = s.say(HELLO_RECORD)
    assert batch.tls_hello.tolist() == [0]
    assert s.counts["given_up"] == 1


def test_the_hello_begun_longest_ago_makes_room() -> None:
    s = Spoken(Tls(n_buffers=1))
    other = ((b"\x0a\0\0\3", 1), (b"\x0a\0\0\4", 2))
    s.say(HELLO_RECORD[:50])
    s.load(segment(0, HELLO_RECORD[:60], ends=other))
    s.load(segment(60, HELLO_RECORD[60:], ends=other))
    assert s.batch.tls_hello.tolist() == [HELLO["CLIENT"]]
    assert s.say(HELLO_RECORD[50:]).tls_hello.tolist() == [0]
    assert s.counts["buffer_taken_away"] == s.counts["given_up"] == 1
    s.load(segment(500, HELLO_RECORD[:60], ends=(other[0], (b"\x0a\0\0\5", 2))))
    assert s.counts["buffer_taken_away"] == 1  # it was given back


def test_a_reset_gives_the_buffer_back() -> None:
    s = Spoken(Tls(n_buffers=1))
    s.say(HELLO_RECORD[:50])
    s.load(segment(s.next[0], flags=RST))
    s.load(segment(0, HELLO_RECORD[:60], ends=((b"\x0a\0\0\3", 1), (b"\x0a\0\0\4", 2))))
    assert "buffer_taken_away" not in s.counts


def test_another_connection_in_the_same_place_begins_anew() -> None:
    s = Spoken(streams=TcpStreams(n_connections=1))
    s.say(HELLO_RECORD[:50])
    s.load(segment(0, HELLO_RECORD, ends=((b"\x0a\0\0\3", 1), (b"\x0a\0\0\4", 2))))
    assert s.batch.tls_hello.tolist() == [HELLO["CLIENT"]]
    assert s.counts["client_hellos"] == 1


def test_it_takes_the_streams() -> None:
    with pytest.raises(ChainError, match=r"add TcpStreams\(\) before Tls"):
        Chain([Headers(), Tls()], Batch(bytearray(64), 1))


@pytest.mark.parametrize("n", [0, 65537, 1.0])
def test_a_number_of_buffers_that_cannot_be_is_told(n: int) -> None:
    with pytest.raises(XdpipeError, match="n_buffers"):
        Tls(n_buffers=n)
