"""When a replay's packets are due, with the time as an argument."""

import pytest

from xdpipe.replay import CATCH_UP_S, Pace

TOTAL = 1_000_000


def test_without_a_rate_all_are_due_at_once() -> None:
    assert Pace(None, 5.0).due(5.0, 0, TOTAL) == TOTAL
    assert Pace(None, 5.0).wait_s(5.0, 0) == 0.0


@pytest.mark.parametrize("pps", [1.0, 10.0, 1000.0, 3e6])
def test_packets_are_due_at_the_rate(pps: float) -> None:
    pace = Pace(pps, 100.0)
    n_sent = 0
    for step in range(1000):
        now = 100.0 + step * 0.001
        due = pace.due(now, n_sent, TOTAL * 10)
        assert due == pytest.approx((now - 100.0) * pps + 1, abs=1)
        n_sent = due


def test_the_wait_ends_when_the_next_is_due() -> None:
    pace = Pace(10.0, 0.0)
    assert pace.due(0.0, 0, TOTAL) == 1
    wait = pace.wait_s(0.0, 1)
    assert wait == pytest.approx(0.1)
    assert pace.due(wait - 0.001, 1, TOTAL) == 1
    assert pace.due(wait + 0.001, 1, TOTAL) == 2


def test_what_was_missed_in_a_stall_is_not_sent_as_a_burst() -> None:
    pps = 50_000.0
    pace = Pace(pps, 0.0)
    pace.due(0.0, 0, TOTAL)
    due = pace.due(3.0, 1, TOTAL)  # 150,000 would be due
    assert due == 1 + int(pps * CATCH_UP_S)
    # and from there on it goes at the rate again
    assert pace.due(4.0, due, TOTAL) - due == pytest.approx(pps * CATCH_UP_S, abs=2)
    n_sent = pace.due(4.0, due, TOTAL)
    assert pace.due(4.001, n_sent, TOTAL) - n_sent == pytest.approx(pps * 0.001, abs=2)


def test_no_more_is_due_than_there_is() -> None:
    assert Pace(1e9, 0.0).due(1.0, 90, 100) == 100
