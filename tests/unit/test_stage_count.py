"""Count: exact numbers by key, the first n keys, and what found no room."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted import Sources, batch_of, counters, udp
from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.stages import Count, Headers, Prefix


def test_packets_and_bytes_are_those_of_a_dict() -> None:
    rng = np.random.default_rng(1)
    stage = Count("src", "l4_dport", n=10_000, shown=10_000)
    packets: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    for _ in range(20):
        batch = []
        for host, port, n in rng.zipf(1.5, (500, 3)).clip(0, 250).tolist():
            batch.append(udp(f"10.0.0.{host}", dport=port, size=n))
            packets[f"10.0.0.{host}", port] += 1
            size[f"10.0.0.{host}", port] += 42 + n
        stage.process(batch_of(batch))
    rows = stage.report()["keys"]
    assert {(row["src"], row["l4_dport"]): row["packets"] for row in rows} == dict(packets)
    assert {(row["src"], row["l4_dport"]): row["bytes"] for row in rows} == dict(size)
    order = [(row["packets"], row["bytes"]) for row in rows]
    assert order == sorted(order, reverse=True)
    assert counters(stage) == {
        "counted": 10_000, "bytes": sum(size.values()), "no_room": 0, "no_room_bytes": 0,
        "skipped": 0, "keys": len(packets),
    }  # fmt: skip


def test_the_first_n_keys_have_room_and_no_others() -> None:
    stage = Count("l4_dport", n=10)
    batch = batch_of([udp(dport=port, size=port) for port in [*range(15), *range(15)]])
    stage.process(batch)
    assert {row["l4_dport"] for row in stage.report()["keys"]} == set(range(10))
    assert counters(stage) == {
        "counted": 20, "bytes": 2 * sum(42 + port for port in range(10)), "no_room": 10,
        "no_room_bytes": 2 * sum(42 + port for port in range(10, 15)), "skipped": 0, "keys": 10,
    }  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 40), max_size=150), max_size=5), st.integers(1, 50)
)  # ports, batch by batch; room
def test_it_agrees_with_a_dict_that_is_as_small(batches: list[list[int]], n: int) -> None:
    stage = Count("l4_dport", n=n, shown=50)
    stage.bind_alone()
    model: dict[int, int] = {}
    n_no_room = 0
    for ports in batches:
        stage.process(batch_of([udp(dport=port) for port in ports]))
        for port in ports:
            if port in model or len(model) < n:
                model[port] = model.get(port, 0) + 1
            else:
                n_no_room += 1
    rows = stage.report()["keys"]
    assert {row["l4_dport"]: row["packets"] for row in rows} == model
    assert stage.counted("no_room") == n_no_room
    assert stage.counted("counted") == sum(model.values())
    assert stage.counted("keys") == len(model)


def test_without_columns_it_is_a_sum() -> None:
    stage = Count()
    for size in (0, 100):
        stage.process(batch_of([udp(size=size)] * 100))
    assert stage.report() == {"packets": 200, "bytes": 100 * 42 + 100 * 142}
    assert stage.counted("counted") == 200
    assert stage.counted("keys") == 0


def test_a_million_keys_change_neither_memory_nor_sums() -> None:
    stage = Count("src", n=1000, shown=3)
    stage.bind_alone()
    table = stage._table
    assert table is not None
    places = (table.c.entries, table.c.chains, table.n_bytes)
    made = Sources(4000)
    for turn in range(250):
        stage.process(made.fill(np.arange(4000) + 4000 * turn))
    assert counters(stage) == {
        "counted": 1000, "bytes": 42_000, "no_room": 999_000, "no_room_bytes": 999_000 * 42,
        "skipped": 0, "keys": 1000,
    }  # fmt: skip
    assert stage._table is table
    assert (table.c.entries, table.c.chains, table.n_bytes) == places
    assert table.n_bytes == 64 * 1001 + 4 * 4096
    assert len(stage.report()["keys"]) == 3


def test_a_large_table_holds_every_key_that_it_has_room_for() -> None:
    stage = Count("src", n=300_000)
    made = Sources(4000)
    rng = np.random.default_rng(2)
    seen = Counter[int]()
    for _ in range(100):
        sources = rng.integers(0, 1 << 18, 4000)
        stage.process(made.fill(sources))
        seen.update(sources.tolist())
    rows = stage.table
    assert stage.counted("no_room") == 0
    keys = [int.from_bytes(row["key"].tobytes()[12:], "big") for row in rows]
    assert dict(zip(keys, rows["packets"].tolist(), strict=True)) == dict(seen)


def test_of_two_chains_each_has_a_table_of_its_own() -> None:
    batch = Batch(bytearray(4096), 8)
    stage, headers = Count("src"), Headers()
    first, second = Chain([headers, stage], batch), Chain([headers, stage], batch)
    batch.load([udp()])
    first.run()
    second.run()
    second.run()
    assert [chain.read_counts()[1]["counters"]["counted"] for chain in (first, second)] == [1, 2]
    assert second.reports()["Count"] == {"keys": [{"src": "10.0.0.1", "packets": 2, "bytes": 84}]}


@pytest.mark.parametrize("shown", [0, 1, 3, 100])
def test_the_report_has_as_many_as_asked_for(shown: int) -> None:
    stage = Count(Prefix("src", bits4=32), shown=shown)
    assert stage.report() == {"keys": []}
    stage.process(batch_of([udp(f"10.0.0.{i}") for i in range(5) for _ in range(i + 1)]))
    rows = stage.report()["keys"]
    assert [row["packets"] for row in rows] == [5, 4, 3, 2, 1][:shown]
