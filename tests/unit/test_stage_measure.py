"""Measure: loss, duplicates, reordering and latency are what a plain model says."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted import batch_of, counters, udp
from stamped import NOW, RUN, Model, Stamp, stamped, stamped_packet
from xdpipe.errors import XdpipeError
from xdpipe.stages import Measure
from xdpipe.traffic.measurement import Measurement, merged, packed, unpacked
from xdpipe.verdict import DROP, PASS, TX

SLOT = 1 << 20  # ns


def measured(stamps: Sequence[Stamp], at_once: int = 1000, **options: object) -> Measure:
    """Return a stage that has seen these packets, in batches of so many."""
    stage = Measure(**{"window": 1024, **options})  # type: ignore[arg-type]
    stage.bind_alone()
    for first in range(0, len(stamps), at_once):
        stage.process(stamped(stamps[first : first + at_once]))
    return stage


def only(stage: Measure) -> Measurement:
    (measurement,) = stage.measurements
    return measurement


def outcomes(stage: Measure) -> dict[str, int]:
    return {name: n for name, n in counters(stage).items() if n and name != "bytes"}


@st.composite
def arrivals(draw: st.DrawFn) -> list[int]:
    """Numbers as a bad link delivers them: some lost, some twice, some late, some very late."""
    first = draw(st.integers(0, 100))
    numbers = list(range(first, first + draw(st.integers(1, 150))))
    keep = draw(st.lists(st.integers(0, 9), min_size=len(numbers), max_size=len(numbers)))
    came = [n for n, k in zip(numbers, keep, strict=True) if k > 1]
    came += [n for n, k in zip(numbers, keep, strict=True) if k == 9]
    for _ in range(draw(st.integers(0, 20))):
        if came:
            number = came.pop(draw(st.integers(0, len(came) - 1)))
            came.insert(draw(st.integers(0, len(came))), number)
    jump = draw(st.sampled_from([0, 0, 1, 63, 64, 65, 1000]))
    place = draw(st.integers(0, len(came)))
    return came[:place] + [n + jump for n in came[place:]]


@settings(max_examples=300, deadline=None)
@given(arrivals(), st.sampled_from([1, 7, 1000]))
def test_any_loss_doubling_and_disorder_is_what_the_model_says(
    numbers: list[int], at_once: int
) -> None:
    model = Model(window=64)
    for number in numbers:
        model.arrive(number)
    stage = measured([Stamp(number) for number in numbers], at_once, window=64)
    assert outcomes(stage) == Counter(model.outcomes)
    if not numbers:
        assert stage.measurements == []
        return
    found = only(stage)
    assert found.packets == len(model.arrived)
    assert found.gaps == found.lost == model.gaps
    assert found.bytes == 60 * len(model.arrived)
    counts = found.streams[0]
    assert (counts.next, counts.lowest) == (max(model.arrived) + 1, min(model.arrived))
    assert counts.extent_sum == sum(model.extents)
    assert counts.extent_max == max(model.extents, default=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), max_size=40), min_size=2, max_size=3))
def test_what_queues_measured_adds_up(queues: list[list[int]]) -> None:
    """A number that came by two queues was sent twice, by nobody who counts right."""
    seen: set[int] = set()
    parts, models = [], []
    for queue, numbers in enumerate(queues):
        mine = [n for n in numbers if n not in seen]
        seen.update(mine)
        came = [Stamp(n, NOW, NOW + 3 * SLOT * k + 1000 * queue) for k, n in enumerate(mine)]
        parts += measured(came, window=64, n_slots=4).measurements
        models.append(Model(64))
        for number in mine:
            models[-1].arrive(number)
    together = merged(parts)
    if not seen:
        assert together == []
        return
    (found,) = together
    told = found.to_dict()
    outcome = Counter(outcome for model in models for outcome in model.outcomes)
    assert found.packets == len(seen) == int(found.slots[:, 0].sum()) == int(found.bins.sum())
    assert found.lost == max(seen) - min(seen) + 1 - len(seen)
    assert told["duplicates"] == outcome["duplicates"]
    assert told["reordered"] == outcome["reordered"]
    assert found.latency_sum == int(found.slots[:, 2].sum()) == sum(p.latency_sum for p in parts)
    assert found.greatest == int(found.slots[:, 3].max())
    assert [part.packets for part in parts] == [len(m.arrived) for m in models if m.arrived]


def test_who_says_how_many_were_sent_knows_what_is_lost_at_either_end() -> None:
    found = only(measured([Stamp(n) for n in (2, 3, 5)]))
    assert (found.lost, found.to_dict()["lost_by"]) == (1, "gaps")
    found.sent = 10
    assert (found.lost, found.to_dict()["lost_by"]) == (7, "sent")
    assert found.lost_share == 0.7


def test_stamped_packets_get_the_verdict_and_others_none() -> None:
    for verdict, given_ in ((DROP, DROP), (PASS, PASS), (None, 0)):
        batch = batch_of([stamped_packet(Stamp(0)), udp(size=18), stamped_packet(Stamp(0))])
        batch.tx(np.array([False, False, True]))
        stage = Measure(verdict=verdict)
        stage.process(batch)
        assert batch.verdict.tolist() == [given_, 0, TX]
        assert outcomes(stage) == {"in_order": 1, "duplicates": 1, "unstamped": 1}


def test_packets_without_a_stamp_are_told_apart() -> None:
    packet = bytearray(stamped_packet(Stamp(7, size=30)))
    turned = bytearray(packet)
    turned[-5] ^= 1
    cut = bytes(packet[:-1])
    padded = bytes(packet) + bytes(4)
    stage = Measure()
    stage.process(
        batch_of([bytes(turned), cut, padded, udp(size=17), udp(size=300), b"", bytes(9)])
    )
    assert outcomes(stage) == {"in_order": 1, "unstamped": 6}
    assert only(stage).streams[0].lowest == 7


def test_another_run_is_left_alone() -> None:
    stamps = [Stamp(0), Stamp(0, run=9), Stamp(1, run=9), Stamp(1)]
    batch = stamped(stamps)
    stage = Measure(run=9)
    stage.process(batch)
    assert outcomes(stage) == {"in_order": 2, "other_run": 2}
    assert batch.verdict.tolist() == [DROP] * 4
    assert only(stage).run == 9


def test_runs_and_streams_are_measured_by_themselves_and_what_has_no_room_is_counted() -> None:
    stamps = [
        Stamp(5, stream=0), Stamp(9, stream=1), Stamp(6, stream=0), Stamp(8, stream=1),
        Stamp(0, run=7, came=NOW + 1), Stamp(0, run=8), Stamp(0, stream=2), Stamp(0, stream=3),
    ]  # fmt: skip
    stage = measured(stamps, n_runs=2, n_streams=4)
    assert outcomes(stage) == {"in_order": 5, "reordered": 1, "no_room": 2}
    latest, first = stage.measurements
    assert (latest.run, first.run) == (7, RUN)
    assert {number: s.packets for number, s in first.streams.items()} == {0: 2, 1: 2, 2: 1}
    assert first.packets == 5
    assert latest.packets == 1


LATENCIES = st.lists(
    st.integers(0, 100) | st.integers(0, 10**9) | st.integers(0, (1 << 47) - 1), min_size=1,
    max_size=100,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(LATENCIES, st.integers(1, 3))
def test_latencies_are_right_to_so_many_digits(latencies: list[int], digits: int) -> None:
    stamps = [Stamp(n, NOW - ns) for n, ns in enumerate(latencies)]
    found = only(measured(stamps, digits=digits))
    ordered = sorted(latencies)
    assert (found.least, found.greatest) == (ordered[0], ordered[-1])
    assert found.latency_sum == sum(latencies)
    for percent in (1, 50, 90, 99, 99.9):
        exact = ordered[max(1, -int(-len(ordered) * percent // 100)) - 1]
        value = found.percentile_ns(percent)
        assert value is not None
        assert abs(value - exact) <= exact * 10**-digits / 1.6
    assert found.percentile_ns(100) == ordered[-1]
    curve = found.percentile_curve()
    assert curve[-1] == (100.0, ordered[-1])
    assert curve == sorted(curve)
    assert sum(n for *_, n in found.latency_bins()) == len(latencies)


def test_a_stamp_from_the_future_is_early_and_has_no_latency() -> None:
    found = only(measured([Stamp(0, NOW + 1), Stamp(1, NOW), Stamp(2, NOW - 5)]))
    assert (found.packets, found.early, found.n_latencies) == (3, 1, 2)
    assert (found.least, found.greatest, found.latency_sum) == (0, 5, 5)


def test_nothing_but_early_packets_is_told_without_latencies() -> None:
    found = only(measured([Stamp(0, NOW + 1)]))
    assert found.to_dict()["latency"] == {
        "packets": 0, "early": 1, "min": None, "mean": None, "p50": None, "p90": None, "p99": None,
        "p99.9": None, "p99.99": None, "max": None, "curve": [],
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 3 * SLOT) | st.integers(0, 1 << 34), min_size=1, max_size=60),
    st.sampled_from([2, 3, 16]),
    st.integers(0, 5 * SLOT),
)
def test_slots_of_time_hold_what_came_in_them(steps: list[int], n_slots: int, begin: int) -> None:
    times = (np.cumsum(steps) + NOW + begin).tolist()
    stamps = [Stamp(n, time - 10 - n, time) for n, time in enumerate(times)]
    found = only(measured(stamps, n_slots=n_slots))
    shift, base = found.slot_shift, found.slot_base
    expected = np.zeros((n_slots, 4), np.uint64)
    for n, time in enumerate(times):
        row = expected[(time >> shift) - base]
        row += np.array([1, 60, 10 + n, 0], np.uint64)
        row[3] = max(int(row[3]), 10 + n)
    assert found.slots.tolist() == expected.tolist()
    # no wider than it must be: one half would have been too many
    assert shift == 20 or (times[-1] >> (shift - 1)) - (times[0] >> (shift - 1)) >= n_slots
    assert (found.first_ns, found.last_ns) == (times[0], times[-1])


def test_a_clock_that_is_put_back_does_no_harm() -> None:
    found = only(measured([Stamp(0), Stamp(1, 10, 20), Stamp(2)]))
    assert int(found.slots[0, 0]) == 3
    assert found.seconds == 0


@settings(max_examples=50, deadline=None)
@given(arrivals())
def test_a_measurement_survives_being_packed(numbers: list[int]) -> None:
    stage = measured([Stamp(n, NOW - 7 * n, NOW + n * SLOT, n % 2) for n in numbers], n_slots=8)
    for found in stage.measurements:
        again = unpacked(packed(found))
        assert again.to_dict() == found.to_dict()
        assert again.bins.tolist() == found.bins.tolist()
        assert again.used_slots().tolist() == found.used_slots().tolist()


def test_the_report_tells_rows_to_people_and_all_to_programs() -> None:
    stage = measured([Stamp(0, NOW - 2000), Stamp(2, NOW - 4000), Stamp(2), Stamp(1, NOW - 8000)])
    report = stage.report()
    assert report["runs"] == [
        {"run": "0x1234", "packets": 3, "lost": 0, "duplicates": 1, "reordered": 1, "too_late": 0,
         "p50_us": 4.0, "p99_us": 8.0, "p99.9_us": 8.0, "max_us": 8.0}
    ]  # fmt: skip
    assert [unpacked(text).to_dict() for text in report["_runs"]] == [only(stage).to_dict()]
    assert measured([]).report() == {}


def test_a_report_fits_in_a_message() -> None:
    """The worst that there is: each packet in a bin of its own, each slot used, 16 runs."""
    stage = Measure(n_runs=16)
    rng = np.random.default_rng(5)
    for run in range(16):
        times = [NOW + k * SLOT for k in range(1000)]
        ages = np.exp(rng.uniform(np.log(1e3), np.log(1e9), 1000)).astype(int).tolist()
        came = enumerate(zip(times, ages, strict=True))
        stage.process(stamped([Stamp(k, t - age, t, run=run + 1) for k, (t, age) in came]))
    report = stage.report()
    assert len(report["runs"]) == 16
    assert 1 <= len(report["_runs"]) <= 16
    assert sum(map(len, report["_runs"])) < 150_000
    assert unpacked(report["_runs"][0]).run == stage.measurements[0].run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": 1 << 16}, "Measure: run=65536: 0 to 65535 are possible"),
        ({"window": 100}, "Measure: window=100: a power of two is wanted"),
        ({"window": 32}, "Measure: window=32: 64 to 16777216"),
        ({"digits": 4}, "Measure: digits=4: 1 to 3"),
        ({"n_slots": 1}, "Measure: n_slots=1: 2 to 65536"),
        ({"n_runs": True}, "Measure: n_runs=True"),
        ({"n_streams": 0}, "Measure: n_streams=0"),
        ({"verdict": 77}, "Measure: 77 is no verdict"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(XdpipeError, match=message.replace("(", r"\(")):
        Measure(**options)  # type: ignore[arg-type]
