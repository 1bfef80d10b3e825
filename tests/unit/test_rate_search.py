"""The search for the highest rate without loss, over links that are made up."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpipe.errors import XdpipeError
from xdpipe.traffic.measurement import Measurement
from xdpipe.traffic.rate_search import RateSearch, SearchOptions, Trial, search_rate


@dataclass
class Link:
    """Carries so many packets a second and loses what is more; a sender has a limit, too."""

    carries_pps: float
    sender_pps: float = float("inf")
    asked: list[float] = field(default_factory=list)

    def trial(self, pps: float) -> Trial:
        self.asked.append(pps)
        offered = min(pps, self.sender_pps)
        sent = round(offered * 10)
        lost = max(sent - int(self.carries_pps * 10), 0)
        return Trial(pps, offered, sent, lost)


RATES = st.floats(1e3, 2e7)


@settings(max_examples=300, deadline=None)
@given(RATES, st.floats(100, 900), st.sampled_from([0.1, 0.01, 0.001]))
def test_what_a_link_carries_is_found_to_the_resolution(
    carries: float, least: float, resolution: float
) -> None:
    link = Link(carries)
    found = search_rate(link.trial, SearchOptions(least, 3e7, resolution))
    assert found.limited_by == "loss"
    assert found.pps is not None
    assert found.failed_pps is not None
    assert found.pps <= carries + 0.2 < found.failed_pps + 0.4
    assert found.failed_pps - found.pps <= resolution * found.failed_pps
    assert link.asked[0] == 3e7
    assert len(link.asked) < 40
    assert [trial.asked_pps for trial in found.trials] == link.asked


def test_the_highest_rate_of_the_range_is_tried_first_and_ends_the_search() -> None:
    link = Link(5000)
    found = search_rate(link.trial, SearchOptions(10, 4000))
    assert (found.pps, found.failed_pps, found.limited_by) == (4000, None, "range")
    assert link.asked == [4000]


def test_the_middle_is_tried_next() -> None:
    link = Link(100)
    search_rate(link.trial, SearchOptions(10, 410, 0.2))
    assert link.asked == [410, 210, 110, 60, 85, 97.5]


@pytest.mark.parametrize("carries", [1.0, 9.9])
def test_where_nothing_is_passed_the_lowest_is_tried_last(carries: float) -> None:
    link = Link(carries)
    found = search_rate(link.trial, SearchOptions(10, 1000, 0.1))
    assert found.pps is None
    assert found.failed_pps == link.asked[-1] == 10


def test_only_the_lowest_is_passed() -> None:
    link = Link(10)
    found = search_rate(link.trial, SearchOptions(10, 1000, 0.1))
    assert found.pps == link.asked[-1] == 10


@pytest.mark.parametrize("sender", [700.0, 40.0])
def test_a_sender_that_is_too_slow_is_named(sender: float) -> None:
    link = Link(1000, sender)
    found = search_rate(link.trial, SearchOptions(10, 5000))
    assert (found.pps, found.limited_by) == (sender, "sender")
    assert link.asked == [5000]


@settings(max_examples=100, deadline=None)
@given(RATES, RATES)
def test_a_slow_sender_never_keeps_the_search_from_ending(carries: float, sender: float) -> None:
    link = Link(carries, sender)
    found = search_rate(link.trial, SearchOptions(10, 3e7))
    assert found.pps is not None
    assert found.pps <= min(carries, sender) + 0.2
    assert found.pps >= 0.98 * min(carries, sender) - 0.2
    assert len(link.asked) < 40


def test_acceptable_loss_is_accepted() -> None:
    link = Link(1000)
    found = search_rate(link.trial, SearchOptions(10, 5000, 0.001, acceptable_loss=0.1))
    assert found.pps == pytest.approx(1000 / 0.9, rel=0.002)
    assert found.acceptable_loss == 0.1


def test_a_rate_is_failed_only_after_so_many_attempts() -> None:
    tries = iter([True, False, False, True])  # loses by mishap

    def trial(pps: float) -> Trial:
        return Trial(pps, pps, 1000, int(next(tries)))

    told: list[tuple[float, bool]] = []
    options = SearchOptions(100, 1000, 0.9, attempts=3)
    found = search_rate(trial, options, lambda trial, passed: told.append((trial.pps, passed)))
    assert found.pps == 1000
    assert told == [(1000, False), (1000, True)]


def test_a_search_can_be_stopped() -> None:
    link = Link(100)
    found = search_rate(link.trial, SearchOptions(1, 1e6), stop=lambda: len(link.asked) >= 3)
    assert len(found.trials) == 3
    assert found.pps is None
    assert search_rate(link.trial, SearchOptions(1, 2), stop=lambda: True) == RateSearch()


def test_a_trial_that_sent_nothing_is_failed() -> None:
    found = search_rate(lambda pps: Trial(pps, 0.0, 0, 0), SearchOptions(10, 1000, 0.5))
    assert found.pps is None


def test_a_trial_is_made_of_what_was_measured() -> None:
    measurement = Measurement.nothing(7, sent=100)
    assert Trial.of(60.0, 2.0, measurement) == Trial(60.0, 50.0, 100, 100, measurement)
    assert Trial.of(60.0, 0.0, Measurement.nothing(7)).pps == 0.0


def test_it_is_told_as_json() -> None:
    measurement = Measurement(
        1, 4, np.zeros(1000, np.uint64), packets=1, least=7, greatest=7, receiver_dropped=2
    )
    measurement.bins[7] = 1
    trials = [Trial(10.0, 9.9, 100, 5, measurement), Trial(5.0, 5.0, 50, 0)]
    told = json.loads(json.dumps(RateSearch(5.0, 9.9, "loss", trials).to_dict()))
    assert told == {
        "pps": 5.0, "failed_pps": 9.9, "limited_by": "loss", "acceptable_loss": 0.0,
        "trials": [
            {"asked_pps": 10.0, "pps": 9.9, "sent": 100, "lost": 5, "lost_share": 0.05,
             "p99_ns": 7, "receiver_dropped": 2},
            {"asked_pps": 5.0, "pps": 5.0, "sent": 50, "lost": 0, "lost_share": 0.0},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchOptions(0, 10), "a search from 0 to 10 packets/s"),
        (lambda: SearchOptions(20, 10), "does not run backwards"),
        (lambda: SearchOptions(1, float("inf")), "a search from 1 to inf"),
        (lambda: SearchOptions(1, 10, 0), "resolution 0"),
        (lambda: SearchOptions(1, 10, acceptable_loss=1), "acceptable loss 1"),
        (lambda: SearchOptions(1, 10, attempts=0), "0 attempts"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    make: Callable[[], SearchOptions], message: str
) -> None:
    with pytest.raises(XdpipeError, match=message):
        make()
