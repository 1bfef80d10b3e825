"""Keys made of columns, and the table by key: what they say, tell apart and hold."""

import itertools
import struct
from ipaddress import ip_address

import numpy as np
import pytest

from crafted import batch_of, counters, set_column, udp
from xdpipe.batch import COLUMNS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.key_table import KeyTable
from xdpipe.keyed_stage import KeyedStage
from xdpipe.stages import Count, Flow, Prefix, RateLimit, Top
from xdpipe.verdict import DROP

MASK = (1 << 64) - 1


def sip_hash(secret: tuple[int, int], words: list[int], rounds: tuple[int, int] = (1, 3)) -> int:
    """SipHash of whole words, as in the paper; the last block is the caller's."""
    a, b = secret[0] ^ 0x736F6D6570736575, secret[1] ^ 0x646F72616E646F6D
    c, d = secret[0] ^ 0x6C7967656E657261, secret[1] ^ 0x7465646279746573

    def rotated(x: int, n: int) -> int:
        return (x << n | x >> (64 - n)) & MASK

    def mix(n: int) -> None:
        nonlocal a, b, c, d
        for _ in range(n):
            a, c = (a + b) & MASK, (c + d) & MASK
            b, d = rotated(b, 13) ^ a, rotated(d, 16) ^ c
            a = rotated(a, 32)
            c, a = (c + b) & MASK, (a + d) & MASK
            b, d = rotated(b, 17) ^ c, rotated(d, 21) ^ a
            c = rotated(c, 32)

    for word in words:
        d ^= word
        mix(rounds[0])
        a ^= word
    c ^= 0xFF
    mix(rounds[1])
    return a ^ b ^ c ^ d


def keys_of(stage: Count) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k not in ("packets", "bytes")} for row in told(stage)]


def told(stage: Count) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = stage.report()["keys"]
    return rows


def counted(packets: list[bytes], *columns: str | Prefix | Flow) -> Count:
    stage = Count(*columns, shown=1000)
    stage.process(batch_of(packets))
    return stage


def test_the_model_is_sip_hash() -> None:
    """The vector of the paper's appendix A: 15 bytes, with SipHash-2-4."""
    message = bytes(range(15)) + bytes([15])
    words = list(struct.unpack("<QQ", message))
    secret = struct.unpack("<QQ", bytes(range(16)))
    assert sip_hash(secret, words, (2, 4)) == 0xA129CA6149BE45E5


@pytest.mark.parametrize(
    "columns",
    [("ip_proto",), ("src",), ("src", "l4_sport"), (Flow(),), ("src", "dst", "addr", "time_ns")],
)
def test_entries_are_found_by_sip_hash_with_a_secret(columns: tuple[str | Flow, ...]) -> None:
    stage = counted([udp(f"10.0.{i}.1", sport=i) for i in range(50)], *columns)
    secret = tuple(stage._c_key.secret)
    assert len(stage.table) >= 1
    for row in stage.table:
        words = list(struct.unpack(f"<{stage.key.n_words}Q", row["key"].tobytes()))
        assert row["hash"] == sip_hash(secret, words) & 0xFFFFFFFF


def test_each_stage_has_a_secret_of_its_own() -> None:
    secrets = set()
    for _ in range(4):
        stage = Count("src")
        for _ in range(2):
            stage.bind_alone()
            secrets.add(tuple(stage._c_key.secret))
    assert len(secrets) == 8
    assert all(word for secret in secrets for word in secret)


PACKETS = [
    udp("10.0.0.1", sport=1),
    udp("10.0.0.200", sport=2),
    udp("10.0.1.1", sport=3),
    udp("2001:db8::1", "2001:db8::2", sport=4),
    udp("2001:db8:0:1::1", "2001:db8::2", sport=5),
]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("ip_proto",), [{"ip_proto": 17}]),
        (("ip_version", "ip_ttl"),
         [{"ip_version": 4, "ip_ttl": 64}, {"ip_version": 6, "ip_ttl": 64}]),
        (("src",), [{"src": src} for src in ("10.0.0.1", "10.0.0.200", "10.0.1.1", "2001:db8::1",
                                             "2001:db8:0:1::1")]),
        ((Prefix("src", bits4=24, bits6=48),),
         [{"src": "10.0.0.0/24"}, {"src": "10.0.1.0/24"}, {"src": "2001:db8::/48"}]),
        ((Prefix("src", bits4=25),),
         [{"src": src} for src in ("10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/25", "2001:db8::1/128",
                                   "2001:db8:0:1::1/128")]),
        ((Prefix("src", bits4=0, bits6=0),), [{"src": "0.0.0.0/0"}, {"src": "::/0"}]),
        ((Prefix("src", bits4=7, bits6=63), "ip_proto"),
         [{"src": "10.0.0.0/7", "ip_proto": 17}, {"src": "2001:db8::/63", "ip_proto": 17}]),
        (("vlan_tci",), [{"vlan_tci": [0, 0]}]),
        (("verdict", "malformed"), [{"verdict": "UNDECIDED", "malformed": None}]),
        (("flags",), [{"flags": "IPV4|UDP"}, {"flags": "IPV6|UDP"}]),
    ],
)  # fmt: skip
def test_a_key_says_what_its_columns_said(
    columns: tuple[str | Prefix, ...], expected: list[dict[str, object]]
) -> None:
    rows = keys_of(counted(PACKETS, *columns))
    assert sorted(rows, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("bits", range(33))
def test_a_prefix_of_ipv4_keeps_its_bits_and_no_others(bits: int) -> None:
    address = 0xFFFFFFFF
    packets = [udp(str(ip_address(address ^ (1 << i)))) for i in range(32)] + [
        udp("255.255.255.255")
    ]
    rows = keys_of(counted(packets, Prefix("src", bits4=bits)))
    # those that differ from the last in one of the first bits, and the rest together
    assert len(rows) == bits + 1


@pytest.mark.parametrize("bits", [0, 1, 31, 32, 63, 64, 65, 95, 96, 97, 127, 128])
def test_a_prefix_of_ipv6_keeps_its_bits_and_no_others(bits: int) -> None:
    address = (1 << 128) - 1
    packets = [udp(str(ip_address(address ^ (1 << i))), "::1") for i in range(128)]
    rows = keys_of(
        counted([*packets, udp(str(ip_address(address)), "::1")], Prefix("src", bits6=bits))
    )
    assert len(rows) == bits + 1


def test_values_that_have_names_are_told_by_them() -> None:
    batch = batch_of([udp(), udp()[:40], udp()[:13], udp()])
    batch.drop(np.array([True, False, False, False]))
    stage = Count("verdict", "malformed")
    stage.process(batch)
    assert sorted(keys_of(stage), key=str) == [
        {"verdict": "DROP", "malformed": None},
        {"verdict": "UNDECIDED", "malformed": "ETH_SHORT"},
        {"verdict": "UNDECIDED", "malformed": "IP4_LEN"},
        {"verdict": "UNDECIDED", "malformed": None},
    ]
    set_column(batch, "malformed", 255)
    stage.process(batch)
    assert {"verdict": "DROP", "malformed": 255} in keys_of(stage)


def test_both_directions_of_a_flow_are_one_key() -> None:
    ends = [("10.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 1), ("10.1.0.0", 1)]
    ends += [("2001:db8::1", 1), ("2001:db8::1", 2), ("2001:db8::2", 1), ("2001:db8:1::", 1)]
    pairs = [
        (a, b)
        for a, b in itertools.combinations_with_replacement(ends, 2)
        if (":" in a[0]) == (":" in b[0])
    ]
    packets = [udp(a[0], b[0], a[1], b[1]) for a, b in pairs]
    packets += [udp(b[0], a[0], b[1], a[1]) for a, b in pairs]
    stage = counted(packets, Flow())
    assert len(stage.table) == len(pairs)
    assert [row["packets"] for row in told(stage)] == [2] * len(pairs)
    flows = {row["flow"] for row in told(stage)}
    assert len(flows) == len(pairs)
    [alone] = keys_of(counted([udp("10.0.0.1", "10.0.0.1", 7, 9)], Flow()))
    assert alone == {"flow": "10.0.0.1:7 - 10.0.0.1:9", "ip_proto": 17}
    [v6] = keys_of(counted([udp("::1", "::1", 7, 9)], Flow()))
    assert v6 == {"flow": "[::1]:7 - [::1]:9", "ip_proto": 17}


def write_texts(batch: object, texts: list[bytes]) -> None:
    """Put texts where those of a batch lie, and say so in the column that stands for one."""
    arena = ffi.buffer(ffi.cast("uint8_t *", lib.xp_batch_texts(batch.c)), 1 << 12)  # type: ignore[attr-defined]
    at, rows = 0, []
    for text in texts:
        arena[at : at + len(text)] = text
        rows.append(at | len(text) << 32)
        at += len(text)
    set_column(batch, "tx_tag", np.array(rows, np.uint64))


@pytest.fixture
def tx_tag_is_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COLUMNS["tx_tag"], "text", True)


TEXTS = {
    ("tx_tag",): 63,
    ("tx_tag", "src", "dst"): 31,
}
"""Bytes of the longest text that is kept whole."""


@pytest.mark.parametrize("columns", TEXTS)
def test_texts_are_keys_and_long_ones_are_told_apart(
    columns: tuple[str, ...], tx_tag_is_a_text: None
) -> None:
    most = TEXTS[columns]
    long = b"a" * most
    texts = [b"", b"a", long, long + b"a", long + b"ab", long + b"b", b"b" * most, b"x\0", b"x",
             b"\xff\n"]  # fmt: skip
    batch = batch_of([udp()] * 2 * len(texts))
    write_texts(batch, [*texts, *texts])
    stage = Count(*columns, shown=1000)
    stage.process(batch)
    assert [row["packets"] for row in told(stage)] == [2] * len(texts)
    cut = "a" * (most - 8) + "…"
    assert sorted(str(row["tx_tag"]) for row in told(stage)) == sorted(
        ["", "a", "a" * most, cut, cut, cut, "b" * most, "x\0", "x", "\\xff\n"]
    )


def test_a_text_that_lies_outside_is_empty(tx_tag_is_a_text: None) -> None:
    batch = batch_of([udp()] * 3)
    set_column(batch, "tx_tag", np.array([MASK, 100 << 32 | 0xFFFFFFFF, 1 << 63], np.uint64))
    stage = Count("tx_tag")
    stage.process(batch)
    assert told(stage) == [{"tx_tag": "", "packets": 3, "bytes": 126}]


@pytest.mark.parametrize("kind", [Count, Top, RateLimit])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("source",), "there is no column 'source'"),
        ((7,), "there is no column 7"),
        (("src", Prefix("src", bits4=8)), "the same column twice"),
        ((Prefix("len"),), "that column holds no addresses"),
        ((Prefix("host"),), "there is no column"),
        ((Prefix("src", bits4=33),), "prefixes have 0 to 32 and 0 to 128 bits"),
        ((Prefix("src", bits6=-1),), "prefixes have 0 to 32 and 0 to 128 bits"),
        ((Prefix("src", bits6=4.5),), "prefixes have 0 to 32 and 0 to 128 bits"),
        ((Flow(), "src", "dst"), "these are too long for a key: 64 bytes"),
        (tuple(list(COLUMNS)[6:23]), "in up to 16 columns"),
    ],
)
def test_columns_that_make_no_key_are_refused(
    kind: type[KeyedStage], columns: tuple[str, ...], message: str
) -> None:
    options = {"rate": 1, "burst": 1} if kind is RateLimit else {}
    with pytest.raises(XdpipeError, match=message) as raised:
        kind(*columns, **options)
    assert str(raised.value).startswith(kind.__name__)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shown": -1}, "shown=-1"),
        ({"only": -1}, "only=-1"),
        ({"only": 1 << 32}, "only=4294967296: a mark is a number from 0 to"),
    ],
)
@pytest.mark.parametrize("kind", [Count, Top, RateLimit])
def test_numbers_that_cannot_be_are_refused(
    kind: type[KeyedStage], options: dict[str, int], message: str
) -> None:
    more = {"rate": 1, "burst": 1} if kind is RateLimit else {}
    with pytest.raises(XdpipeError, match=message):
        kind("src", **more, **options)
    for n in (0, -1, (1 << 24) + 1, 1.5):
        with pytest.raises(XdpipeError, match="1 to 16777216 are possible"):
            kind("src", **more, **{"n_keys" if kind is RateLimit else "n": n})


def test_a_stage_requires_the_columns_of_its_key() -> None:
    assert Count("l4_dport", Prefix("src")).requires == ("l4_dport", "src")
    assert Top(Flow()).requires == ("src", "dst", "l4_sport", "l4_dport", "ip_proto")
    assert Count("src").requires == ("src",)
    assert Count().requires == ()


@pytest.mark.parametrize("kind", [Count, Top, RateLimit])
def test_a_chain_of_entries_that_is_full_takes_no_more(kind: type[KeyedStage]) -> None:
    """Nobody can make that on purpose who does not know the secret; we do."""
    if kind is RateLimit:
        stage: KeyedStage = RateLimit("l4_sport", rate=1, burst=1000, n_keys=64)
    else:
        stage = kind("l4_sport", n=64)
    stage.bind_alone()
    secret = tuple(stage._c_key.secret)
    together = [port for port in range(65536) if not sip_hash(secret, [port]) & 255][:20]
    others = [port for port in range(65536) if sip_hash(secret, [port]) & 255][:3]
    assert len(together) == 20
    assert lib.XP_CHAIN_MAX == 16
    batch = batch_of([udp(sport=port) for port in [*together, *together]])
    stage.process(batch)
    assert stage.counted("no_room") == 2 * 4
    assert stage.counted("keys") == len(stage.table) == 16
    assert (batch.verdict != DROP).all()
    # others find room
    stage.process(batch_of([udp(sport=port) for port in others]))
    assert stage.counted("no_room") == 2 * 4
    assert stage.counted("keys") == 19


@pytest.mark.parametrize(
    ("n_words", "stride"), [(0, 32), (1, 32), (2, 64), (5, 64), (6, 128), (8, 128)]
)
def test_no_entry_lies_on_more_lines_than_it_needs(n_words: int, stride: int) -> None:
    table = KeyTable("struct xp_count_entry", ("packets", "bytes"), n_words, 100)
    assert table.c.stride == stride
    assert int(ffi.cast("uintptr_t", table.c.entries)) % 64 == 0
    assert table.n_bytes == stride * 101 + 4 * 512
    assert len(table) == 0


def test_marks_choose_the_packets_that_are_counted() -> None:
    batch = batch_of([udp(sport=i % 3, size=i) for i in range(300)])
    batch.mark[:] = np.arange(300) % 4
    for only, chosen in ((None, range(300)), (0, range(0, 300, 4)), (3, range(3, 300, 4)), (9, ())):
        for stage in (Count("l4_sport", only=only), Top("l4_sport", only=only), Count(only=only)):
            stage.process(batch)
            assert stage.counted("counted") == len(chosen)
            assert stage.counted("skipped") == 300 - len(chosen)
            assert stage.counted("bytes") == sum(42 + i for i in chosen)
    assert set(counters(Count("src"))) == set(Count.counters)
