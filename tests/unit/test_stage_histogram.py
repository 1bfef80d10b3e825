"""Histogram: which bin a value is in, what the percentiles say, and where the rest is counted."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted import batch_of, counters, set_column, udp
from xdpipe.batch import ABSENT, COLUMNS, Batch
from xdpipe.errors import XdpipeError
from xdpipe.stages import Histogram

U64 = (1 << 64) - 1
EDGES = st.lists(st.integers(0, U64), min_size=2, max_size=40, unique=True).map(sorted)
VALUES = st.lists(st.integers(0, U64) | st.integers(0, 300), min_size=1, max_size=200)


def of_values(stage: Histogram, column: str, values: list[int]) -> Histogram:
    batch = Batch(bytearray(64), len(values))
    batch.place([0] * len(values), [0] * len(values))
    set_column(batch, column, np.array(values, COLUMNS[column].dtype))
    stage.process(batch)
    return stage


def test_lengths_are_in_their_bins() -> None:
    stage = Histogram("len", bins=[60, 64, 128, 1024])
    stage.process(
        batch_of([udp(size=size) for size in (0, 17, 18, 21, 22, 85, 86, 981, 982, 5000)])
    )
    assert stage.bins == [(60, 64, 2), (64, 128, 2), (128, 1024, 2)]
    assert counters(stage) == {"counted": 6, "under": 2, "over": 2, "absent": 0, "skipped": 0}
    assert stage.report() == {
        "least": 42, "greatest": 5042, "mean": 763.2,
        "bins": [{"from": 60, "below": 64, "packets": 2}, {"from": 64, "below": 128, "packets": 2},
                 {"from": 128, "below": 1024, "packets": 2}],
    }  # fmt: skip
    assert stage.percentile(50) is None


@settings(max_examples=200, deadline=None)
@given(EDGES, VALUES)
def test_bins_of_ones_own_are_those_of_a_loop(edges: list[int], values: list[int]) -> None:
    stage = of_values(Histogram("tx_tag", bins=edges), "tx_tag", values)
    expected = [
        (a, b, sum(a <= value < b for value in values)) for a, b in itertools.pairwise(edges)
    ]
    assert stage.bins == expected
    assert counters(stage) == {
        "counted": sum(n for *_, n in expected), "under": sum(v < edges[0] for v in values),
        "over": sum(v >= edges[-1] for v in values), "absent": 0, "skipped": 0,
    }  # fmt: skip


@pytest.mark.parametrize("n", [2, 3, 4, 5, 63, 64, 65, 1023, 1024])
def test_any_number_of_edges_is_searched(n: int) -> None:
    edges = [3 * i + 1 for i in range(n)]
    values = list(range(3 * n + 3))
    stage = of_values(Histogram("l4_sport", bins=edges), "l4_sport", values)
    assert [count for *_, count in stage.bins] == [3] * (n - 1)
    assert counters(stage)["under"] == 1
    assert counters(stage)["over"] == len(values) - 1 - 3 * (n - 1)


def test_bins_of_all_values_follow_each_other_and_are_narrow() -> None:
    bins = Histogram("tx_tag").bins
    assert len(bins) == 1920
    assert bins[0][0] == 0
    assert bins[-1][1] == U64 + 1
    for (first, behind, _), (next_first, _, _) in itertools.pairwise(bins):
        assert first < behind == next_first
    for first, behind, _ in bins:
        assert behind - first == 1 if behind <= 64 else (behind - first) * 32 <= first


def test_each_bin_takes_its_first_and_its_last_value() -> None:
    stage = Histogram("tx_tag")
    stage.bind_alone()
    values = [v for first, behind, _ in stage.bins for v in (first, behind - 1)]
    of_values(stage, "tx_tag", values)
    assert [n for *_, n in stage.bins] == [2] * 1920


@settings(max_examples=200, deadline=None)
@given(VALUES, st.floats(0, 100))
def test_a_percentile_is_off_by_a_64th_at_the_most(values: list[int], percent: float) -> None:
    stage = of_values(Histogram("tx_tag"), "tx_tag", values)
    true = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    told = stage.percentile(percent)
    assert told is not None
    if true < 64:
        assert told == true
    else:
        # the figure is a float, which has 53 bits
        assert abs(told - true) <= true / 64 + true / 2**50
    assert min(values) <= told * (1 + 2**-50)
    assert told * (1 - 2**-50) <= max(values)


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_least_greatest_and_mean_are_exact(batches: list[list[int]]) -> None:
    stage = Histogram("tx_tag")
    for values in batches:
        of_values(stage, "tx_tag", values)
    values = [value for batch in batches for value in batch]
    report = stage.report()
    assert (report["least"], report["greatest"]) == (min(values), max(values))
    assert report["mean"] == round(sum(values) / len(values), 3)
    assert sum(row["packets"] for row in report["bins"]) == len(values)
    for row in report["bins"]:
        assert row["from"] == 0 or row["below"] == 2 * row["from"]


@pytest.mark.parametrize(
    "column", ["ip_proto", "l4_dport", "flow_hash", "nic_time_ns", "len", "payload_len"]
)
def test_every_type_of_number_is_counted(column: str) -> None:
    most = min(np.iinfo(COLUMNS[column].dtype).max, U64)
    values = [0, 1, 63, 64, most - 1, most]
    stage = of_values(Histogram(column), column, values)
    assert stage.counted("counted") == 6
    assert (stage.report()["least"], stage.report()["greatest"]) == (0, most)
    assert stage.report()["mean"] == round(sum(values) / 6, 3)
    assert stage.requires == (column,)


def test_what_is_not_there_is_absent_and_in_no_bin() -> None:
    values = [ABSENT, -1, -(1 << 31), 0, 34, 34]
    for bins in (None, [0, 100]):
        stage = of_values(Histogram("l4", bins=bins), "l4", values)
        assert counters(stage) == {"counted": 3, "under": 0, "over": 0, "absent": 3, "skipped": 0}
        assert stage.report()["mean"] == round(68 / 3, 3)


def test_marks_choose_the_packets_that_are_counted() -> None:
    batch = batch_of([udp(size=i) for i in range(200)])
    batch.mark[:] = np.arange(200) % 2
    stage = Histogram("len", bins=[42, 142, 242], only=1)
    stage.process(batch)
    assert stage.bins == [(42, 142, 50), (142, 242, 50)]
    assert counters(stage) == {"counted": 100, "under": 0, "over": 0, "absent": 0, "skipped": 100}


def test_nothing_counted_is_nothing_told() -> None:
    stage = Histogram("len")
    assert stage.report() == {}
    stage.bind_alone()
    assert stage.report() == {}
    assert stage.percentile(50) is None
    assert len(stage.bins) == 1920


def test_the_memory_does_not_grow() -> None:
    stage = Histogram("tx_tag")
    stage.bind_alone()
    bins = stage._bins
    for start in range(0, 1 << 20, 1 << 14):
        of_values(stage, "tx_tag", list(range(start, start + (1 << 14))))
    assert stage._bins is bins
    assert bins.nbytes == 8 * 1920
    assert bins.sum() == stage.counted("counted") == 1 << 20


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        ("size", {}, "Histogram: there is no column 'size'"),
        ("src", {}, "Histogram: src is no column with one number per packet"),
        ("vlan_tci", {}, "no column with one number"),
        ("len", {"bins": [1]}, "2 to 1024 edges, rising whole numbers from 0 on"),
        ("len", {"bins": []}, "2 to 1024 edges"),
        ("len", {"bins": [2, 1]}, "2 to 1024 edges"),
        ("len", {"bins": [1, 1]}, "2 to 1024 edges"),
        ("len", {"bins": [-1, 1]}, "2 to 1024 edges"),
        ("len", {"bins": [0, 1.5]}, "2 to 1024 edges"),
        ("len", {"bins": [0, 1 << 64]}, "2 to 1024 edges"),
        ("len", {"bins": 7}, "2 to 1024 edges"),
        ("len", {"bins": list(range(1025))}, "2 to 1024 edges"),
        ("len", {"only": -1}, "Histogram: only=-1"),
    ],
)
def test_what_cannot_be_is_refused(column: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(XdpipeError, match=message):
        Histogram(column, **options)  # type: ignore[arg-type]
