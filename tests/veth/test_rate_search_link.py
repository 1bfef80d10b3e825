"""The highest rate without loss, of a link that carries a known one; all from one process."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import PIPELINES, Crossing, crossing
from stamped import Stamp, stamped_capture
from xdpipe.link import Link
from xdpipe.replay import ReplayOptions, replay
from xdpipe.traffic.capture_source import CaptureSource
from xdpipe.traffic.pace import Pace
from xdpipe.traffic.rate_search import SearchOptions, Trial, search_rate
from xdpipe.traffic.receiver import Receiver, ReceiverOptions

RATE, BURST, TRIAL_S = 4000, 200, 0.5


@pytest.fixture
def across(tmp_path: Path) -> Iterator[Crossing]:
    with crossing(tmp_path) as bench:
        yield bench


@pytest.mark.alone
def test_the_rate_that_a_link_carries_is_found(
    across: Crossing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = across.run(PIPELINES / "limited_link.py", "--queues", "0")
    monkeypatch.setenv("XDPIPE_RUN_DIR", str(tmp_path / "receiver"))
    told: list[str] = []
    runs = itertools.count(1)
    out = across.client.call(lambda: Link.find("c0"))
    allowed = os.sched_getaffinity(0)
    with Receiver(ReceiverOptions("f0"), told.append) as receiver:
        with across.far:
            receiver.start()

        def trial(pps: float) -> Trial:
            run, n = next(runs), round(pps * TRIAL_S)
            capture = stamped_capture(tmp_path / "run.pcap", [Stamp(k, run=run) for k in range(n)])
            source = CaptureSource(capture)
            with across.client:
                sent = replay(source, out, ReplayOptions(Pace(pps=pps)))
            source.close()
            receiver.settle(0.2)
            assert sent.sent == n
            return Trial.of(pps, sent.seconds, receiver.take(run, n))

        found = search_rate(trial, SearchOptions(500, 32_000, 0.05))
        measurements, final = receiver.stop()
    assert told == []
    assert os.sched_getaffinity(0) == allowed
    assert found.limited_by == "loss"
    assert found.pps is not None
    # what is asked for within the resolution; the bucket lets its burst pass in each trial
    assert RATE * 0.9 <= found.pps <= RATE + BURST / TRIAL_S + 0.05 * RATE
    assert len(measurements) == len(found.trials)
    assert sum(each.packets for each in measurements) == final["ledger"]["verdicts"]["DROP"]
    ledger = link.end()["ledger"]
    lost = sum(each.lost for each in found.trials)
    assert lost == ledger["verdicts"]["DROP"]
    assert all(t.measurement is not None and not t.measurement.receiver_dropped
               for t in found.trials)  # fmt: skip
