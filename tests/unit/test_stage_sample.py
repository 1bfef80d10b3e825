"""Sample: how many are taken, which ones, and that nobody can tell beforehand."""

import itertools

import numpy as np
import pytest

from crafted import Sources, batch_of, counters, udp
from xdpipe import DROP, PASS, TX, Verdict
from xdpipe.batch import Batch
from xdpipe.errors import XdpipeError
from xdpipe.stages import Sample

N_PACKETS = 50_000


def taken(stage: Sample, n_packets: int = N_PACKETS, sizes: tuple[int, ...] = (500,)) -> list[int]:
    """Return the numbers of the packets that it marks, in batches of these sizes in turn."""
    made = Sources(max(sizes))
    found: list[int] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at == n_packets:
            return found
        size = min(size, n_packets - at)
        batch = made.fill(np.arange(at, at + size) % 1000)
        stage.process(batch)
        found += (at + np.flatnonzero(batch.mark == 1)).tolist()
        at += size
    return found


def test_one_packet_in_n_is_taken_at_random_distances() -> None:
    stage = Sample(100, mark=1, seed=1)
    found = taken(stage)
    assert len(found) == pytest.approx(500, rel=0.1)
    assert counters(stage) == {"sampled": len(found), "other": N_PACKETS - len(found)}
    skipped = np.diff([-1, *found]) - 1
    assert skipped.min() >= 0
    assert skipped.max() <= 198
    assert len(set(skipped.tolist())) > 150  # some 500 draws of 199
    assert skipped.mean() == pytest.approx(99, rel=0.1)
    # one half is as often above the middle as the other
    assert np.mean(skipped < 99.5) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 63, 64, 65), (4096,)])
def test_the_choice_does_not_depend_on_the_batches(sizes: tuple[int, ...]) -> None:
    assert taken(Sample(7, mark=1, seed=2), 5000, sizes) == taken(Sample(7, mark=1, seed=2), 5000)


@pytest.mark.parametrize("per", ["packet", "flow"])
def test_a_seed_gives_the_same_choice_and_no_seed_another(per: str) -> None:
    def choice(seed: int | None) -> list[int]:
        return taken(Sample(5, per, mark=1, seed=seed), 5000)  # type: ignore[arg-type]

    assert choice(3) == choice(3)
    assert choice(3) != choice(4)
    assert choice(0) != choice(1 << 127)
    assert choice(None) != choice(None)
    stage = Sample(5, per, mark=1)  # type: ignore[arg-type]
    first = taken(stage, 5000)
    stage.bind_alone()
    assert taken(stage, 5000) != first


@pytest.mark.parametrize("per", ["packet", "flow"])
def test_one_in_one_is_all(per: str) -> None:
    stage = Sample(1, per, mark=1)  # type: ignore[arg-type]
    assert taken(stage, 1000) == list(range(1000))
    assert counters(stage) == {"sampled": 1000, "other": 0}


def test_few_are_taken_of_many() -> None:
    assert len(taken(Sample(1 << 32, mark=1, seed=5))) == 0
    assert len(taken(Sample(1 << 32, "flow", mark=1, seed=5))) == 0


def test_flows_are_in_or_out_in_both_directions() -> None:
    packets = []
    for i in range(2000):
        ends = (f"10.0.{i >> 8}.{i & 255}", "10.1.0.1", 1000 + i, 53)
        packets += [udp(*ends), udp(ends[1], ends[0], ends[3], ends[2])]
    batch = batch_of(packets)
    stage = Sample(10, "flow", mark=1, seed=6)
    for _ in range(2):
        batch.mark[:] = 0
        stage.process(batch)
        there, back = batch.mark[::2], batch.mark[1::2]
        assert (there == back).all()
        assert int(there.sum()) == pytest.approx(200, rel=0.2)
    assert stage.counted("sampled") == 4 * there.sum()
    assert stage.counted("sampled") + stage.counted("other") == 8000


@pytest.mark.parametrize("per", ["packet", "flow"])
@pytest.mark.parametrize("verdict", [None, DROP])
@pytest.mark.parametrize("otherwise", [None, PASS])
@pytest.mark.parametrize("mark", [None, 7])
def test_each_packet_gets_what_is_said_of_it(
    per: str, verdict: Verdict | None, otherwise: Verdict | None, mark: int | None
) -> None:
    if (verdict, otherwise, mark) == (None, None, None):
        return
    packets = [udp(sport=i) for i in range(500)]
    seen = batch_of(packets)
    Sample(3, per, mark=1, seed=8).process(seen)  # type: ignore[arg-type]
    expected = seen.mark == 1
    assert 50 < expected.sum() < 300
    batch = batch_of(packets)
    batch.verdict[::5] = TX
    batch.mark[:] = 2
    stage = Sample(3, per, verdict=verdict, otherwise=otherwise, mark=mark, seed=8)  # type: ignore[arg-type]
    stage.process(batch)
    verdicts = np.where(expected, verdict or 0, otherwise or 0)
    verdicts[::5] = TX
    assert batch.verdict.tolist() == verdicts.tolist()
    assert batch.mark.tolist() == np.where(expected, 2 if mark is None else mark, 2).tolist()


def test_an_empty_batch_is_none() -> None:
    batch = Batch(bytearray(64), 1)
    batch.load([])
    for stage in (Sample(1, mark=1), Sample(2, otherwise=DROP), Sample(2, "flow", mark=1)):
        stage.process(batch)
        assert counters(stage) == {"sampled": 0, "other": 0}


def test_per_packet_it_needs_no_stage_before_it() -> None:
    assert Sample(2, mark=1).requires == ()
    assert Sample(2, "flow", mark=1).requires == ("flow_hash",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0, "mark": 1}, "Sample: n=0: one in 1 to"),
        ({"n": 1.5, "mark": 1}, "Sample: n=1.5"),
        ({"n": (1 << 32) + 1, "mark": 1}, "Sample: n=4294967297"),
        ({"n": 2, "per": "host", "mark": 1}, "Sample: per='host': 'packet' or 'flow'"),
        ({"n": 2}, "Sample: nothing would happen: give verdict, otherwise or mark"),
        ({"n": 2, "mark": 1, "seed": -1}, "Sample: seed=-1"),
        ({"n": 2, "mark": 1, "seed": 1 << 128}, "Sample: seed="),
        ({"n": 2, "verdict": "DROP"}, "Sample: 'DROP' is no verdict"),
        ({"n": 2, "mark": 1 << 32}, "Sample: mark=4294967296"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(XdpipeError, match=message):
        Sample(**options)  # type: ignore[arg-type]
