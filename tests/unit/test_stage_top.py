"""Top: what space-saving promises, on any stream, by packets and by bytes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted import Sources, batch_of, counters, udp
from xdpipe.errors import XdpipeError
from xdpipe.stages import Prefix, Top

Stream = list[tuple[int, int]]
"""Key (a port) and bytes of payload, packet by packet."""


def check_promises(stage: Top, true: Counter[int], n: int) -> None:
    """Look whether a table is what Metwally et al. prove it to be, for keys in l4_dport."""
    total = sum(true.values())
    rows = stage.table
    keys = [int.from_bytes(row["key"].tobytes(), "little") for row in rows]
    table = dict(
        zip(keys, zip(stage.counts.tolist(), rows["error"].tolist(), strict=True), strict=True)
    )
    assert len(table) == len(keys) == min(n, len(true))
    # Lemma 3: the counts sum up to the total
    assert sum(count for count, _ in table.values()) == total
    # Lemmas 4 and 5: no count is too low, nor too high by more than its error, at most total / n
    for key, (count, error) in table.items():
        assert count - error <= true[key] <= count
        assert error * n <= total
    # Theorem 2: who has more than total / n is there
    for key, number in true.items():
        if number * n > total:
            assert key in table
    least = min((count for count, _ in table.values()), default=0)
    for key, number in true.items():
        assert key in table or number <= least
    if len(true) <= n:
        assert {key: count for key, (count, _) in table.items()} == true
    unit = "bytes" if stage._by_bytes else "packets"
    for key, number in zip(keys, rows[unit].tolist(), strict=True):
        assert number == table[key][0] - table[key][1]


def check_heap(stage: Top) -> None:
    """Look whether no entry has a count above one of those below it, and each is in its place."""
    n = len(stage.table)
    heap = stage._heap.bytes.view(np.uint64).reshape(-1, 2)
    places = stage._places.bytes.view(np.uint32)
    for place in range(3, 3 + n):
        assert places[heap[place, 1]] == place
        if place > 3:
            assert heap[place // 4 + 2, 0] <= heap[place, 0]
    assert (heap[3 + n :, 0] == np.iinfo(np.uint64).max).all()


def run(stage: Top, stream: Stream, size: int) -> tuple[Counter[int], Counter[int]]:
    """Count a stream in batches of this size; return its packets and its bytes by key."""
    packets: Counter[int] = Counter()
    n_bytes: Counter[int] = Counter()
    for at in range(0, len(stream), size):
        stage.process(batch_of([udp(dport=key, size=n) for key, n in stream[at : at + size]]))
    for key, n in stream:
        packets[key] += 1
        n_bytes[key] += 42 + n
    return packets, n_bytes


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1400)), max_size=400),
    st.integers(1, 40), st.integers(1, 200), st.sampled_from(["packets", "bytes"]),
)  # fmt: skip
def test_the_promises_hold_for_any_stream(stream: Stream, n: int, size: int, by: str) -> None:
    stage = Top("l4_dport", n=n, by=by)  # type: ignore[arg-type]
    stage.bind_alone()
    packets, n_bytes = run(stage, stream, size)
    true = n_bytes if by == "bytes" else packets
    check_promises(stage, true, n)
    check_heap(stage)
    told = counters(stage)
    assert told["counted"] == len(stream)
    assert told["bytes"] == sum(n_bytes.values())
    assert told["no_room"] == told["skipped"] == 0
    assert told["keys"] == min(n, len(packets))


@pytest.mark.parametrize("by", ["packets", "bytes"])
@pytest.mark.parametrize("n", [1, 2, 100, 1000])
@pytest.mark.parametrize("skew", [1.1, 1.5, 3.0])
def test_the_promises_hold_for_traffic_of_few_and_of_many(by: str, n: int, skew: float) -> None:
    rng = np.random.default_rng(7)
    keys = rng.zipf(skew, 20_000) % 65536
    sizes = rng.integers(0, 100, 20_000)
    stream = list(zip(keys.tolist(), sizes.tolist(), strict=True))
    stage = Top("l4_dport", n=n, by=by)  # type: ignore[arg-type]
    packets, n_bytes = run(stage, stream, 512)
    true = n_bytes if by == "bytes" else packets
    check_promises(stage, true, n)
    check_heap(stage)


def test_who_sends_most_is_on_top_of_a_flood() -> None:
    """Ten steady sources in a million made-up ones: they are the report's first ten, exactly."""
    stage = Top("src", n=1000, shown=10)
    stage.bind_alone()
    table = stage._table
    assert table is not None
    places = (table.c.entries, table.c.chains, table.n_bytes, stage._heap.c, stage._places.c)
    made = Sources(4000)
    rng = np.random.default_rng(3)
    for turn in range(250):
        sources = np.arange(4000) + (1 << 24) + 4000 * turn
        sources[rng.permutation(4000)[:550]] = np.repeat(np.arange(1, 11), np.arange(10, 101, 10))
        stage.process(made.fill(sources))
    report = stage.report()
    assert report["total"] == 1_000_000
    assert report["none_missing_above"] == 1000
    assert [row["src"] for row in report["keys"]] == [f"0.0.0.{i}" for i in range(10, 0, -1)]
    for row, true in zip(report["keys"], range(25_000, 0, -2500), strict=True):
        assert row["count"] - row["error"] <= true <= row["count"]
        assert row["error"] <= 1000
    told = counters(stage)
    assert told["counted"] == 1_000_000
    assert told["replaced"] > 800_000
    assert told["keys"] == 1000
    assert stage._table is table
    assert (
        table.c.entries, table.c.chains, table.n_bytes, stage._heap.c, stage._places.c
    ) == places  # fmt: skip
    check_heap(stage)


def test_the_report_tells_key_count_and_what_is_sure() -> None:
    stage = Top(Prefix("src", bits4=24), "l4_dport", n=2, by="bytes")
    stage.process(batch_of([udp("10.0.0.1", size=58), udp("10.0.1.1"), udp("10.0.0.2", size=58)]))
    one = {"src": "10.0.0.0/24", "l4_dport": 53, "count": 200, "error": 0}
    other = {"src": "10.0.1.0/24", "l4_dport": 53, "count": 42, "error": 0}
    assert stage.report() == {
        "total": 242,
        "none_missing_above": 121,
        "keys": [{**one, "packets": 2, "bytes": 200}, {**other, "packets": 1, "bytes": 42}],
    }
    stage.process(batch_of([udp("10.0.2.1", size=8)]))
    assert stage.report()["keys"][1] == {
        "src": "10.0.2.0/24", "l4_dport": 53, "count": 92, "error": 42, "packets": 1, "bytes": 50,
    }  # fmt: skip


@pytest.mark.parametrize("shown", [0, 1, 3, 100])
def test_the_report_has_as_many_as_asked_for(shown: int) -> None:
    stage = Top("src", shown=shown)
    assert stage.report() == {"total": 0, "none_missing_above": 0, "keys": []}
    stage.process(batch_of([udp(f"10.0.0.{i}") for i in range(5) for _ in range(i + 1)]))
    assert [row["count"] for row in stage.report()["keys"]] == [5, 4, 3, 2, 1][:shown]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(XdpipeError, match="Top: name at least one column"):
        Top()
    with pytest.raises(XdpipeError, match="Top: by='size': 'packets' or 'bytes'"):
        Top("src", by="size")  # type: ignore[arg-type]
