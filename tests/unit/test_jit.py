"""Stages that numba compiles: the same as uncompiled, and as an array stage, in every respect."""

import importlib.util
import math
import random
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from test_multi_buffer import cut, in_frames

from xdpipe import ABSENT, DROP, Batch, Stage
from xdpipe.batch import FLAGS
from xdpipe.chain import Chain
from xdpipe.jit import jit_stage
from xdpipe.jit_python import PythonState
from xdpipe.own_columns import OwnColumn
from xdpipe.stage import OWN
from xdpipe.stages import Headers, Http1, TcpStreams
from xdpipe.verdict import FORWARD, PASS, TX

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="no numba: pip install 'xdpipe[jit]'"
)

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDPIPE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def some_packets(n: int = 40) -> list[bytes]:
    rng = random.Random(5)
    packets = []
    for i in range(n):
        ip = IP(src=f"10.0.0.{i}", dst="10.0.1.9") if i % 3 else IPv6(src="fd00::1", dst="fd00::2")
        l4 = [UDP(sport=1000 + i, dport=53), TCP(sport=i, dport=80, flags="SA"), ICMP()][i % 4 % 3]
        packets.append(bytes(ETHER / ip / l4 / rng.randbytes(rng.randrange(30))))
    return [*packets, b"", b"\x01" * 13, bytes(60), rng.randbytes(200)]


PACKETS = some_packets()


def batch_of(
    packets: list[bytes] = PACKETS, ports: tuple[str, ...] = ("",), port: int = 0
) -> Batch:
    batch = Batch(bytearray(1 << 16), 64, ports)
    batch.load(packets, time_ns=1 << 60)
    batch.set_port(ports[port])
    return batch


def all_of(batch: Batch) -> dict[str, Any]:
    """Return what a stage could have changed."""
    columns = ("verdict", "mark", "out_port", "checksum_due", *batch.own)
    return {
        "bytes": [bytes(batch.packet(i)) for i in range(len(batch))],
        **{name: getattr(batch, name).tolist() for name in columns},
    }


def both(
    stage: Any, make: Callable[[], Batch] = batch_of, n_batches: int = 2, **values: Any
) -> tuple[dict[str, Any], Any]:
    """Run a stage compiled and uncompiled; return what it did and the stage, the same for both."""
    results = []
    for way in ("process", "python"):
        run = stage(**values)
        for _ in range(n_batches):
            batch = make()
            Headers().process(batch)
            getattr(run, way)(batch)
        state = run.state_now
        kept = {
            value.name: np.array(getattr(state, value.name)).tolist() for value in run._layout.state
        }
        results.append((all_of(batch), run.words[OWN:].tolist(), kept, run))
    assert results[0][:3] == results[1][:3]
    return results[0][0], results[0][3]


@jit_stage(requires=("payload",), counters=("monlist",))
def drop_monlist(batch, counters):  # type: ignore[no-untyped-def]
    """Drop NTP mode 7 (private) with request code 42, MON_GETLIST_1."""
    for i in range(batch.n):
        if batch.u8(i, batch.payload[i]) & 7 == 7 and batch.u8(i, batch.payload[i] + 3) == 42:
            counters.monlist += batch.drop(i)


class DropMonlist(Stage):
    requires = ("payload",)
    counters = ("monlist",)

    def process(self, batch: Batch) -> None:
        mode = batch.u8(batch.payload) & 7
        code = batch.u8(batch.payload + 3)
        self.count("monlist", batch.drop((mode == 7) & (code == 42)))


def ntp_packets() -> list[bytes]:
    rng = random.Random(7)
    return [
        bytes(ETHER / IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=1, dport=123)
              / bytes(rng.choice([7, 42, 0x17]) for _ in range(rng.randrange(8))))
        for _ in range(60)
    ]  # fmt: skip


def test_it_decides_as_the_array_stage_does() -> None:
    results = []
    for stage in (drop_monlist(), DropMonlist()):
        batch = batch_of(ntp_packets())
        chain = Chain([Headers(), stage], batch)
        chain.run()
        chain.run()
        results.append((batch.verdict.tolist(), chain.read_counts()[1]["counters"]))
    assert results[0] == results[1]
    assert results[0][1]["monlist"] > 3


def test_it_runs_within_the_c_call_of_the_native_stages() -> None:
    batch = batch_of(ntp_packets())
    chain = Chain([Headers(), drop_monlist(), Headers()], batch)
    assert chain.native
    assert [info.kind for info in chain.infos] == ["native", "jit", "native"]
    assert [stage["kind"] for stage in chain.read_counts()] == ["native", "jit", "native"]


def test_it_is_named_and_documented_as_its_function() -> None:
    assert drop_monlist().name == "drop_monlist"
    assert drop_monlist.__doc__ == "Drop NTP mode 7 (private) with request code 42, MON_GETLIST_1."


def test_two_of_a_kind_count_apart() -> None:
    batch = batch_of(ntp_packets())
    chain = Chain([Headers(), drop_monlist(), drop_monlist()], batch)
    chain.run()
    _, first, second = chain.read_counts()
    assert (first["name"], second["name"]) == ("drop_monlist", "drop_monlist#2")
    assert first["counters"]["monlist"] > 0
    assert second["counters"]["monlist"] == 0


OFFSETS = [
    -(1 << 62),
    -1,
    0,
    1,
    11,
    12,
    13,
    40,
    57,
    58,
    59,
    60,
    ABSENT,
    ABSENT + 9,
    1 << 31,
    1 << 40,
]


class Place(Stage):
    columns = {"at": "int64"}

    def __init__(self, at: int) -> None:
        self.at = at

    def process(self, batch: Batch) -> None:
        batch.at[:] = self.at


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_loads_are_those_of_the_array_kind(width: int) -> None:
    @jit_stage(requires=("at",), columns={"got": "uint64", "got999": "uint64"})
    def loads(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            at = batch.at[i]
            if width == 8:
                batch.got[i] = batch.u8(i, at)
                batch.got999[i] = batch.u8(i, at, missing=999)
            elif width == 16:
                batch.got[i] = batch.u16(i, at)
                batch.got999[i] = batch.u16(i, at, 999)
            elif width == 32:
                batch.got[i] = batch.u32(i, at)
                batch.got999[i] = batch.u32(missing=999, offset=at, i=i)
            else:
                batch.got[i] = batch.u64(i, at)
                batch.got999[i] = batch.u64(i, at, 999)

    batch = batch_of()
    load = getattr(batch, f"u{width}")
    missing = int(np.array(999).astype(f"u{width // 8}"))
    for at in OFFSETS:
        stage = loads()
        Chain([Place(at), stage], batch).run()
        compiled = (batch.got.tolist(), batch.got999.tolist())
        stage.python(batch)
        assert (batch.got.tolist(), batch.got999.tolist()) == compiled
        assert compiled == (load(at).tolist(), load(at, missing).tolist()), at


def test_loads_reach_every_frame() -> None:
    packet = bytes(ETHER / IP() / TCP(sport=5, dport=80) / bytes(range(200)))

    @jit_stage(columns={"sum": "uint64"}, requires=())
    def digest(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            total = 0
            for at in range(batch.len[i] + 3):
                total += batch.u8(i, at) + 3 * batch.u16(i, at) + 5 * batch.u32(i, at)
                total ^= batch.u64(i, at)
            batch.sum[i] = total

    whole = both(digest, lambda: batch_of([packet]), 1)[0]["sum"]
    pieces = both(digest, lambda: in_frames([cut(packet, 60, 61, 100)]), 1)[0]["sum"]
    assert whole == pieces != [0]


def test_stores_reach_every_frame_and_keep_the_checksum_right() -> None:
    packet = bytes(ETHER / IP() / TCP(sport=5, dport=80) / bytes(range(200)))

    @jit_stage(requires=("payload", "l4"), counters=("stored",))
    def rewrite(batch, counters):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            counters.stored += batch.put_u16(i, batch.l4[i], 443, fix_checksum=True)
            counters.stored += batch.put_u8(i, batch.payload[i], 0x1FE, True)
            counters.stored += batch.put_u32(i, 98, 0x01020304, fix_checksum=True)
            counters.stored += batch.put_u32(i, batch.len[i] - 4, -1)
            counters.stored += batch.put_u32(i, batch.len[i] - 3, 7) + batch.put_u8(i, -1, 1)

    whole, stage = both(rewrite, lambda: batch_of([packet]), 1)
    pieces, _ = both(rewrite, lambda: in_frames([cut(packet, 60, 99)]), 1)
    assert whole["bytes"] == pieces["bytes"]
    assert stage.counted("stored") == 4
    [written] = whole["bytes"]
    assert written[34:36] == b"\x01\xbb"
    assert written[54:56] == b"\xfe\x01"
    assert written[98:102] == b"\1\2\3\4"
    assert written[-4:] == b"\xff" * 4
    parsed = Ether(written[:-4] + packet[-4:])  # the last store was without
    checksum = parsed[TCP].chksum
    del parsed[TCP].chksum
    assert Ether(bytes(parsed))[TCP].chksum == checksum


def test_decisions_touch_undecided_packets_and_say_so() -> None:
    @jit_stage(counters=("n",))
    def decide(batch, counters):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            counters.n += 1000 * batch.undecided[i]
            if i % 4 == 0:
                counters.n += batch.drop(i)
            elif i % 4 == 1:
                counters.n += batch.tx(i)
            elif i % 4 == 2:
                counters.n += batch.pass_(i)
            else:
                counters.n += batch.forward(i, "c")
            counters.n += 100 * (batch.drop(i) + batch.forward(i, "a") + batch.undecided[i])

    done, stage = both(decide, lambda: batch_of(ports=("a", "b", "c")), 1)
    n = len(PACKETS)
    assert done["verdict"] == ([DROP, TX, PASS, FORWARD] * n)[:n]
    assert done["out_port"] == ([1, 1, 1, 2] * n)[:n]
    assert stage.counted("n") == 1001 * n


def test_forward_without_a_name_is_out_of_the_other_port() -> None:
    @jit_stage
    def across(batch):  # type: ignore[no-untyped-def]
        for i in range(len(batch)):
            if batch.port == "in" and (batch.port != "in") is False:
                batch.forward(i)

    for port, wanted in ((0, [1]), (1, [0])):
        done, _ = both(across, lambda port=port: batch_of([PACKETS[0]], ("in", "out"), port), 1)
        assert done["verdict"] == ([FORWARD] if port == 0 else [0])
        assert done["out_port"] == wanted


def test_flags_are_asked_for_by_name() -> None:
    @jit_stage(requires=("flags",), columns={"bits": "uint32"})
    def ask(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            if batch.has(i, "UDP"):
                batch.bits[i] |= 1
            if batch.has(i, "UDP", "IPV4"):
                batch.bits[i] |= 2
            if batch.flags[i] & TCP_FLAG:
                batch.bits[i] |= 4

    done, _ = both(ask)
    batch = batch_of()
    Headers().process(batch)
    wanted = batch.has("UDP") + 2 * batch.has("UDP", "IPV4") + 4 * batch.has("TCP")
    assert done["bits"] == wanted.tolist()
    assert set(done["bits"]) >= {0, 1, 3, 4}


TCP_FLAG = FLAGS["TCP"]


def test_columns_of_every_dtype_hold_what_is_written() -> None:
    kinds = {
        "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u8_": "uint8",
        "u16_": "uint16",
        "u32_": "uint32", "u64_": "uint64", "f32": "float32", "f64": "float64", "b": "bool",
        "pair": ("int16", 2),
    }  # fmt: skip

    @jit_stage(columns=kinds)
    def write(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            value = (i - 20) * 1_000_003
            batch.i8[i] = value
            batch.i16[i] = value
            batch.i32[i] = batch.i8[i] + value
            batch.i64[i] = batch.i32[i] * batch.i16[i]
            batch.u8_[i] = value
            batch.u16_[i] = batch.u8_[i] - value
            batch.u32_[i] = value
            batch.u64_[i] = value
            batch.f32[i] = value / 3
            batch.f64[i] = batch.f32[i] * 2.5 + i
            batch.b[i] = value > 0 and batch.u32_[i] >= 0
            batch.pair[i, 0] = value
            batch.pair[i, 1] = batch.pair[i, 0] // 3
            row = batch.pair[i]
            row[1] += len(row) + len(batch.pair)
            batch.mark[i] = row[1] & 0xFF

    done, _ = both(write)
    assert set(done["b"]) == {True, False}
    assert len(set(done["i8"])) > 10


def test_columns_of_headers_are_read_as_they_are() -> None:
    names = (
        "l3",
        "l4",
        "payload",
        "payload_len",
        "ip_ttl",
        "l4_dport",
        "flow_hash",
        "vlan_tci",
        "src",
    )

    @jit_stage(requires=names, columns={"sum": "int64"})
    def add(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            total = batch.l3[i] + batch.l4[i] + batch.payload[i] + batch.payload_len[i]
            total += batch.ip_ttl[i] + batch.l4_dport[i] + batch.flow_hash[i] + batch.len[i]
            total += batch.vlan_tci[i, 1] + batch.time_ns[i] - (1 << 60)
            for k in range(len(batch.src[i])):
                total += batch.src[i, k] * (k + 1) + batch.src[i][k]
            batch.sum[i] = total

    done, _ = both(add)
    batch = batch_of()
    Headers().process(batch)
    wanted = sum(
        getattr(batch, name).astype(np.int64)
        for name in ("l3", "l4", "payload", "payload_len", "ip_ttl", "l4_dport", "flow_hash", "len")
    )
    wanted = wanted + (batch.src.astype(np.int64) * np.arange(2, 18)).sum(axis=1)
    assert done["sum"] == wanted.tolist()


def test_state_is_kept_from_batch_to_batch() -> None:
    table = np.zeros(8, [("key", "u4"), ("n", "i8")])

    @jit_stage(
        requires=("flow_hash",),
        counters=("new",),
        state={
            "table": table, "square": np.full((2, 3), 1.5), "limit": 3, "last": 0.0,
            "small": np.uint8(250), "on": True,
        },
    )  # fmt: skip
    def remember(batch, counters, state):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            slot = batch.flow_hash[i] % len(state.table)
            if state.table[slot].n == 0:
                counters.new += 1
                state.table[slot].key = batch.flow_hash[i]
            state.table[slot].n += 1
            if state.table[slot].n > state.limit and state.on:
                batch.drop(i)
            state.square[i % 2, i % 3] += state.last
            state.last = state.last / 2 + 1
            state.small = (state.small + 1) & 0xFF

    _, stage = both(remember)
    state = stage.state_now
    assert isinstance(state, PythonState)
    assert state.table["n"].sum() == 2 * len(PACKETS)
    assert stage.counted("new") == np.count_nonzero(state.table["n"])
    assert (state.limit, state.on) == (3, True)
    assert table["n"].sum() == 0  # each stage has its own
    done, _ = both(remember, limit=1000)
    assert done["verdict"] == [0] * len(PACKETS)
    done, _ = both(remember, limit=0)
    assert done["verdict"] == [DROP] * len(PACKETS)


def test_each_chain_has_a_state_of_its_own() -> None:
    @jit_stage(counters=("n",), state={"seen": np.zeros(1, np.int64)}, columns={"nth": "int64"})
    def count(batch, counters, state):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            state.seen[0] += 1
            batch.nth[i] = state.seen[0]
            counters.n += 1

    stage = count()
    batches = [batch_of(PACKETS[:3]), batch_of(PACKETS[:5])]
    chains = [Chain([stage], batch) for batch in batches]
    for _ in range(2):
        for chain in chains:
            chain.run()
    assert batches[0].nth.tolist() == [4, 5, 6]
    assert batches[1].nth.tolist() == [6, 7, 8, 9, 10]
    assert [chain.read_counts()[0]["counters"]["n"] for chain in chains] == [6, 10]


def test_it_shares_columns_with_array_stages() -> None:
    @jit_stage(columns={"score": "float32"})
    def score(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            batch.score[i] += batch.len[i] * 0.5

    class Add(Stage):
        columns = {"score": "float32"}

        def process(self, batch: Batch) -> None:
            batch.score[:] += 1

    @jit_stage(requires=("score",), counters=("high",))
    def judge(batch, counters):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            if batch.score[i] > 30:
                counters.high += batch.drop(i)

    batch = batch_of()
    chain = Chain([score(), Add(), score(), judge()], batch)
    chain.run()
    chain.run()
    lengths = np.array([len(packet) for packet in PACKETS])
    assert batch.score.tolist() == (lengths + 1).tolist()
    assert chain.read_counts()[3]["counters"] == {"high": int((lengths + 1 > 30).sum())}


def helper(batch: Any, i: int) -> int:
    return twice(batch.len[i]) + drop(batch, i)


def drop(batch: Any, i: int) -> int:
    return int(batch.drop(i))


def twice(n: int) -> int:
    return 2 * n


class Level(IntEnum):
    LOW = 10
    HIGH = 100


LIMITS = np.array([3, 60, 200])
PAIR = (5, 7)


def test_helpers_and_constants_need_no_decoration() -> None:
    offset = 4

    def shifted(n: int) -> int:
        return n + offset

    @jit_stage(columns={"n_": "int64"})
    def use(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            n = shifted(helper(batch, i)) + PAIR[i % 2] + Level.LOW
            for k in range(len(LIMITS)):
                if n > LIMITS[k]:
                    n += Level.HIGH
            low, high = min(n, 500), max(n, 100)
            batch.n_[i] = int(math.sqrt(low * high)) + abs(-3) if i % 2 else DROP

    done, _ = both(use)
    assert len(set(done["n_"])) > 5


def test_an_exception_ends_the_batch_is_counted_and_told() -> None:
    @jit_stage(counters=("n",), state={"table": np.zeros(4, np.int64), "zero": 0, "what": 0})
    def fail(batch, counters, state):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            counters.n += 1
            if i == 3:
                if state.what == 0:
                    batch.mark[batch.n] = 1
                elif state.what == 1:
                    batch.drop(-1)
                elif state.what == 2:
                    state.table[i + 1] = 1
                elif state.what == 3:
                    batch.mark[i] = i // state.zero
                elif state.what == 4:
                    raise AssertionError
                else:
                    raise ValueError("seven", 7)

    for what, message in enumerate(
        (
            "IndexError: no packet has this index",
            "IndexError: no packet has this index",
            "IndexError: index is out of bounds",
            "ZeroDivisionError: integer division by zero",
            f"AssertionError ({__file__}:",
            f"ValueError: seven, 7 ({__file__}:",
        )
    ):
        chain = Chain([fail(what=what)], batch_of())
        chain.run()
        chain.run()
        [counts] = chain.read_counts()
        assert counts["errors"] == 2
        assert counts["counters"]["n"] == 2 * 4
        assert chain.reports()["fail"]["raised"].startswith(message)


def test_a_report_is_made_of_the_state() -> None:
    @jit_stage(state={"n": 0}, report=lambda state: {"packets": state.n})
    def count(batch, state):  # type: ignore[no-untyped-def]
        state.n += batch.n

    chain = Chain([count()], batch_of())
    chain.run()
    assert chain.reports() == {"count": {"packets": len(PACKETS)}}


def test_an_empty_batch_is_no_trouble() -> None:
    done, _ = both(drop_monlist, lambda: batch_of([]))
    assert done["verdict"] == []


def test_checksums_are_asked_for() -> None:
    @jit_stage(counters=("n",))
    def fill(batch, counters):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            counters.n += batch.fill_checksum(i)

    done, stage = both(fill, n_batches=1)
    batch = batch_of()
    Headers().process(batch)
    assert stage.counted("n") == batch.fill_checksum(np.ones(len(batch), np.bool_)) > 10
    assert done["checksum_due"] == batch.checksum_due.tolist()


def test_texts_are_bytes() -> None:
    def request(host: bytes, target: bytes) -> bytes:
        head = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        return bytes(
            ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=len(head), dport=80, flags="PA")
            / head
        )  # fmt: skip

    @jit_stage(requires=("http_host", "http_target"), columns={"sum": "int64", "same": "int8"})
    def look(batch):  # type: ignore[no-untyped-def]
        for i in range(batch.n):
            target = batch.http_target[i]
            batch.sum[i] = len(target)
            for k in range(len(target)):
                batch.sum[i] += target[k] * (k + 1)
            if batch.http_host[i] == HOST:
                batch.same[i] += 1
            if batch.http_host[i] != b"example.org":
                batch.same[i] += 2
            if batch.http_host[i] == batch.http_target[i]:
                batch.same[i] += 4

    packets = [
        request(b"example.com", b"/a"), request(b"example.org", b"/b/c"), request(b"/x", b"/x"),
        PACKETS[0],
    ]  # fmt: skip
    results = []
    for way in ("process", "python"):
        batch = batch_of(packets)
        Chain([Headers(), TcpStreams(), Http1()], batch).run()
        getattr(look(), way)(batch)
        results.append(all_of(batch))
    assert results[0] == results[1]
    assert results[0]["same"] == [3, 0, 6, 6]
    assert results[0]["sum"][0] == 2 + 0x2F + 2 * 0x61

    @jit_stage(requires=("http_host",))
    def beyond(batch):  # type: ignore[no-untyped-def]
        batch.mark[0] = batch.http_host[0][len(batch.http_host[0])]

    chain = Chain([Headers(), TcpStreams(), Http1(), beyond()], batch_of(packets))
    chain.run()
    assert "IndexError: the text ends before" in chain.reports()["beyond"]["raised"]


HOST = b"example.com"


def test_its_own_column_has_a_place_in_the_table() -> None:
    column = OwnColumn("score", "float32", 2, "x")
    assert (column.c_type, column.row_bytes, str(column)) == ("float", 8, "(float32, 2)")
