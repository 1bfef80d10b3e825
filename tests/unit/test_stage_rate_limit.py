"""RateLimit: a token bucket for each key, to the last token and nanosecond."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted import Sources, batch_of, counters, udp
from xdpipe import DROP, PASS, TX, Verdict
from xdpipe.batch import Batch
from xdpipe.errors import XdpipeError
from xdpipe.stages import Flow, Headers, Prefix, RateLimit

SECOND = 10**9
START = 1_700_000_000 * SECOND
LOOKS = 16
"""Of the entries that the hand looks at for one that is idle; see rate_limit.c."""


@dataclass
class Bucket:
    level: Fraction
    time_ns: int
    conforming: int = 0
    exceeded: int = 0


@dataclass
class Model:
    """Token buckets in exact numbers, in a table of n_keys entries."""

    rate: Fraction
    burst: int
    n_keys: int = 1 << 30
    buckets: dict[int, Bucket] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    hand: int = 0
    now: int = 0
    put_back: int = 0

    def packet(self, key: int, tokens: int, time_ns: int) -> str:
        """Return what becomes of a packet."""
        time_ns += self.put_back
        if self.now - time_ns >= SECOND:
            self.put_back += self.now - time_ns
        self.now = max(self.now, time_ns)
        if key not in self.buckets:
            if not self.make_room(key):
                return "no_room"
            self.buckets[key] = Bucket(Fraction(self.burst), self.now)
        bucket = self.buckets[key]
        bucket.level = self.level(bucket)
        bucket.time_ns = self.now
        if tokens <= bucket.level:
            bucket.level -= tokens
            bucket.conforming += 1
            return "conforming"
        bucket.exceeded += 1
        return "exceeded"

    def level(self, bucket: Bucket) -> Fraction:
        gained = self.rate * (self.now - bucket.time_ns) / SECOND
        return min(Fraction(self.burst), bucket.level + gained)

    def make_room(self, key: int) -> bool:
        if len(self.order) < self.n_keys:
            self.order.append(key)
            return True
        for _ in range(LOOKS):
            place = self.hand
            self.hand = (place + 1) % self.n_keys
            if self.level(self.buckets[self.order[place]]) == self.burst:
                del self.buckets[self.order[place]]
                self.order[place] = key
                return True
        return False


Packet = tuple[int, int, int]
"""Key (a port), bytes of payload, time."""


def run(stage: RateLimit, packets: list[Packet], size: int) -> list[str]:
    """Return what became of each packet, marked 1 where it exceeded, in batches of this size."""
    found = []
    for at in range(0, len(packets), size):
        part = packets[at : at + size]
        batch = batch_of(
            [udp(dport=port, size=n) for port, n, _ in part], [time for *_, time in part]
        )
        before = counters(stage)
        stage.process(batch)
        found += ["exceeded" if mark else "" for mark in batch.mark]
        after = counters(stage)
        assert sum(after[k] - before[k] for k in ("conforming", "exceeded", "no_room")) == len(part)
        assert (after["exceeded"] - before["exceeded"]) == np.count_nonzero(batch.mark)
    return found


STEPS = st.integers(0, 50) | st.integers(0, 10**7) | st.integers(0, 5 * 10**9) | st.just(10**15)
BACK = st.integers(1, 10**6) | st.integers(1, 3 * 10**9)
TIMES = st.lists(st.tuples(STEPS, BACK | st.just(0)), min_size=1, max_size=200)
RATES = (
    st.integers(1, 10**10)
    | st.fractions(Fraction(1, 1000), 1000, max_denominator=1000)
    | st.sampled_from([Fraction(1, 3), Fraction(10**6), Fraction(7, 1000)])
)


@settings(max_examples=200, deadline=None)
@given(
    rate=RATES, burst=st.integers(1, 20) | st.integers(1, 3000), times=TIMES, data=st.data(),
    by_bytes=st.booleans(), n_keys=st.sampled_from([1, 3, 20, 1 << 16]), size=st.integers(1, 130),
)  # fmt: skip
def test_it_agrees_with_exact_numbers(
    rate: Fraction, burst: int, times: list[tuple[int, int]], data: st.DataObject,
    by_bytes: bool, n_keys: int, size: int,
) -> None:  # fmt: skip
    keys = data.draw(st.lists(st.integers(0, 25), min_size=len(times), max_size=len(times)))
    packets = []
    now = START
    for key, (step, back) in zip(keys, times, strict=True):
        now += step
        packets.append((key, key, now - back))
    unit = "bytes" if by_bytes else "packets"
    stage = RateLimit(
        "l4_dport", rate=rate, burst=burst, unit=unit, verdict=None, mark=1, n_keys=n_keys
    )  # type: ignore[arg-type]
    stage.bind_alone()
    model = Model(Fraction(rate), burst, n_keys)
    expected = [model.packet(key, 42 + n if by_bytes else 1, time) for key, n, time in packets]
    found = run(stage, packets, size)
    assert found == [what if what == "exceeded" else "" for what in expected]
    assert counters(stage) == {
        **{what: expected.count(what) for what in ("conforming", "exceeded", "no_room")},
        "skipped": 0, "keys": len(model.buckets),
    }  # fmt: skip
    rows = {int.from_bytes(row["key"].tobytes(), "little"): row for row in stage.table}
    assert {key: (row["conforming"], row["exceeded"]) for key, row in rows.items()} == {
        key: (bucket.conforming, bucket.exceeded) for key, bucket in model.buckets.items()
    }


def limited(stage: RateLimit, *packets: bytes, at: float = 0) -> list[bool]:
    """Return which of these packets are dropped, that come so many seconds after the start."""
    batch = batch_of(packets, START + round(at * SECOND))
    stage.process(batch)
    dropped: list[bool] = (batch.verdict == DROP).tolist()
    return dropped


def test_a_burst_goes_through_and_then_the_rate() -> None:
    stage = RateLimit("src", rate=10, burst=3)
    assert limited(stage, *[udp()] * 5) == [False, False, False, True, True]
    assert limited(stage, *[udp()] * 2, at=0.0999) == [True, True]
    assert limited(stage, *[udp()] * 2, at=0.1) == [False, True]
    assert limited(stage, *[udp()] * 4, at=0.3) == [False, False, True, True]
    assert limited(stage, *[udp()] * 4, at=100) == [False, False, False, True]
    assert counters(stage) == {
        "conforming": 9, "exceeded": 8, "no_room": 0, "skipped": 0, "keys": 1,
    }  # fmt: skip
    assert stage.report() == {"most_limited": [{"src": "10.0.0.1", "exceeded": 8, "conforming": 9}]}


def test_each_key_has_a_bucket_of_its_own_and_without_columns_there_is_one() -> None:
    packets = [udp(f"10.0.{i % 3}.{i}") for i in range(9)]
    nets = RateLimit(Prefix("src", bits4=24), rate=1, burst=2)
    assert limited(nets, *packets) == [False] * 6 + [True] * 3
    everybody = RateLimit(rate=1, burst=4)
    assert limited(everybody, *packets) == [False] * 4 + [True] * 5
    assert everybody.report() == {"most_limited": [{"exceeded": 5, "conforming": 4}]}
    flows = RateLimit(Flow(), rate=1, burst=1)
    there, back = udp("10.0.0.1", "10.0.0.2", 1, 2), udp("10.0.0.2", "10.0.0.1", 2, 1)
    assert limited(flows, there, back, udp()) == [False, True, False]


def test_bytes_are_counted_by_the_packet_and_a_longer_one_than_the_burst_never_conforms() -> None:
    stage = RateLimit("src", rate=1000, burst=100, unit="bytes")
    assert limited(stage, udp(size=8), udp(size=8), udp(), udp(size=59)) == [
        False, False, True, True,
    ]  # fmt: skip
    assert limited(stage, udp(size=59), at=1000) == [True]
    assert limited(stage, udp(size=58), at=2000) == [False]
    assert limited(stage, udp(), at=2000.0419) == [True]
    assert limited(stage, udp(), at=2000.042) == [False]


def test_a_packet_whose_tokens_in_units_are_more_than_64_bits_has_exceeded() -> None:
    stage = RateLimit("src", rate=Fraction(1, 10**6), burst=4000, unit="bytes")
    packet = udp(size=18447 - 42)
    assert len(packet) * 10**15 % 2**64 < 4000 * 10**15 < 2**62
    assert limited(stage, packet) == [True]


def test_time_that_goes_back_gives_no_tokens() -> None:
    stage = RateLimit("src", rate=1, burst=1)
    assert limited(stage, udp(), at=10) == [False]
    for at in (9.5, 10, 9.1, 10, 9.01, 10.9):
        assert limited(stage, udp(), at=at) == [True]
    assert limited(stage, udp(), at=11) == [False]


def test_a_clock_that_is_put_back_does_not_keep_anybody_out() -> None:
    stage = RateLimit("src", rate=1, burst=1)
    assert limited(stage, udp(), at=3600) == [False]
    assert limited(stage, udp(), at=0) == [True]
    assert limited(stage, udp(), at=0.9) == [True]
    assert limited(stage, udp(), at=1) == [False]
    assert limited(stage, udp(), at=3600) == [False]
    assert limited(stage, udp(), at=3600) == [True]
    # the least that there is
    stage = RateLimit("src", rate=1, burst=1)
    assert limited(stage, udp(), at=5) == [False]
    assert limited(stage, udp(), at=4) == [True]
    assert limited(stage, udp(), at=5) == [False]


@pytest.mark.parametrize("times", [[0, 1, 2**64 - 1, 0], [2**63, 0, 2**62, 2**64 - 1]])
def test_times_that_make_no_sense_do_no_harm(times: list[int]) -> None:
    stage = RateLimit("src", rate=10**9, burst=10**9)
    for time in times * 3:
        batch = batch_of([udp()] * 3, time)
        stage.process(batch)
    assert sum(counters(stage).values()) == 3 * 12 + 1  # and a key


@pytest.mark.parametrize("verdict", [None, DROP, TX, PASS])
@pytest.mark.parametrize("mark", [None, 0, 7])
def test_what_exceeds_gets_what_is_said_of_it(verdict: Verdict | None, mark: int | None) -> None:
    if (verdict, mark) == (None, None):
        return
    batch = batch_of([udp()] * 5)
    batch.mark[:] = 3
    RateLimit("src", rate=1, burst=2, verdict=verdict, mark=mark).process(batch)
    assert batch.verdict.tolist() == [0, 0] + 3 * [verdict or 0]
    assert batch.mark.tolist() == [3, 3] + 3 * [3 if mark is None else mark]


def test_decided_packets_and_those_without_the_mark_take_no_tokens() -> None:
    batch = batch_of([udp()] * 8)
    batch.verdict[:] = [PASS, 0, DROP, 0, TX, 0, 0, 0]
    batch.mark[:] = [5, 5, 5, 0, 0, 5, 6, 5]
    stage = RateLimit("src", rate=1, burst=2, only=5)
    stage.process(batch)
    assert batch.verdict.tolist() == [PASS, 0, DROP, 0, TX, 0, 0, DROP]
    assert counters(stage) == {
        "conforming": 2, "exceeded": 1, "no_room": 0, "skipped": 5, "keys": 1,
    }  # fmt: skip


def test_a_full_table_takes_in_who_comes_when_others_are_idle() -> None:
    stage = RateLimit("l4_sport", rate=1, burst=2, n_keys=4)
    first = [udp(sport=port) for port in (1, 2, 3, 4)]
    assert limited(stage, *first, *first, *first) == 8 * [False] + 4 * [True]
    # nobody's bucket is full: a fifth one goes through, is limited by nothing, and is counted
    assert limited(stage, *[udp(sport=5)] * 9, at=1) == 9 * [False]
    assert counters(stage)["no_room"] == 9
    # 1 and 2 go on, 3 and 4 are full again after two seconds: the fifth and the sixth are limited
    assert limited(stage, udp(sport=1), udp(sport=2), at=1.5) == [False, False]
    assert limited(stage, *[udp(sport=5)] * 3, *[udp(sport=6)] * 3, at=2) == 2 * [
        False,
        False,
        True,
    ]
    assert limited(stage, udp(sport=7), at=2) == [False]
    assert counters(stage)["no_room"] == 10
    assert {row["key"].tobytes()[0] for row in stage.table} == {1, 2, 5, 6}
    # 1 has not been forgotten meanwhile: of two tokens at 0.5 s it used one
    assert limited(stage, *[udp(sport=1)] * 2, at=2) == [False, True]
    assert counters(stage)["keys"] == 4
    assert {row["l4_sport"] for row in stage.report()["most_limited"]} == {1, 2, 5, 6}


def test_a_million_keys_change_no_memory_and_each_packet_is_counted_once() -> None:
    stage = RateLimit("src", rate=1, burst=1, n_keys=1000, shown=3)
    stage.bind_alone()
    table = stage._table
    assert table is not None
    places = (table.c.entries, table.c.chains, table.n_bytes)
    made = Sources(4000)
    for turn in range(250):  # in 10 s
        batch = made.fill(np.arange(4000) + 4000 * turn, START + turn * SECOND // 25)
        stage.process(batch)
        assert not (batch.verdict == DROP).any()  # each came once
    told = counters(stage)
    assert told["exceeded"] == 0
    # a table full of keys is free again a second later
    assert told["conforming"] == 10 * 1000
    assert told["no_room"] == 990_000
    assert told["keys"] == 1000
    assert stage._table is table
    assert (table.c.entries, table.c.chains, table.n_bytes) == places
    assert table.n_bytes == 64 * 1001 + 4 * 4096


def test_with_room_for_all_no_key_is_lost() -> None:
    stage = RateLimit("src", rate=1, burst=3, n_keys=200_000)
    made = Sources(4000)
    for _ in range(5):
        for turn in range(50):
            stage.process(made.fill(np.arange(4000) * 7919 + turn, START))
    assert counters(stage) == {
        "conforming": 600_000, "exceeded": 400_000, "no_room": 0, "skipped": 0, "keys": 200_000,
    }  # fmt: skip
    assert [row["exceeded"] for row in stage.report()["most_limited"]] == [2] * 20


def test_it_runs_in_a_chain_behind_what_it_needs() -> None:
    assert RateLimit(rate=1, burst=1).requires == ()
    assert RateLimit("src", rate=1, burst=1).requires == ("src",)
    batch = Batch(bytearray(256), 4)
    batch.load([udp()] * 4, START)
    stage = RateLimit("src", rate=1, burst=1)
    Headers().process(batch)
    stage.process(batch)
    assert batch.verdict.tolist() == [0, DROP, DROP, DROP]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0, "burst": 1}, "RateLimit: rate=0: packets a second, more than 0"),
        ({"rate": -1, "burst": 1}, "RateLimit: rate=-1"),
        ({"rate": float("inf"), "burst": 1}, "RateLimit: rate=inf"),
        ({"rate": float("nan"), "burst": 1}, "RateLimit: rate=nan"),
        ({"rate": "5/s", "burst": 1}, "RateLimit: rate='5/s'"),
        ({"rate": 1, "burst": 0}, "RateLimit: burst=0: a whole number of packets, at least 1"),
        ({"rate": 1, "burst": 1.5}, "RateLimit: burst=1.5"),
        ({"rate": 1, "burst": 1, "unit": "bits"}, "RateLimit: unit='bits': 'packets' or 'bytes'"),
        ({"rate": 1, "burst": 1, "verdict": None}, "nothing would happen: give verdict or mark"),
        ({"rate": 1, "burst": 1, "verdict": 0}, "RateLimit: 0 is no verdict"),
        ({"rate": 1, "burst": 1, "mark": -5}, "RateLimit: mark=-5"),
        ({"rate": 1e-9, "burst": 1}, "too small a rate or too large a burst"),
        ({"rate": 1, "burst": 1 << 33}, "too small a rate or too large a burst"),
        ({"rate": Fraction(1, 10**6), "burst": 10**4}, "too small a rate or too large a burst"),
        ({"rate": 1 << 63, "burst": 1}, "too small a rate or too large a burst"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(XdpipeError, match=message):
        RateLimit("src", **options)  # type: ignore[arg-type]
