"""When packets of a replay are due."""

import numpy as np
import pytest
from numpy.typing import NDArray

from xdpipe.errors import XdpipeError
from xdpipe.traffic.pace import Pace, Schedule

S = 1_000_000_000


def due(schedule: Schedule, times: list[float], lens: list[int] | None = None,
        keep: list[bool] | None = None) -> list[int]:  # fmt: skip
    n = len(times)
    stamps: NDArray[np.uint64] = (np.array(times) * S).astype(np.uint64)
    stamps += np.uint64(1_600_000_000 * S)
    return schedule.due_ns(
        stamps, np.array(lens or [100] * n, np.int32), np.array(keep or [True] * n)
    ).tolist()


def test_by_the_record_they_are_due_as_far_apart_as_they_came() -> None:
    schedule = Schedule(Pace())
    assert due(schedule, [5.0, 5.5, 7.0]) == [0, S // 2, 2 * S]
    assert due(schedule, [7.25]) == [2 * S + S // 4]
    assert (
        schedule.round_ns == 2 * S + S // 2
    )  # as far behind the last as that behind the one before


def test_times_that_go_back_are_no_time() -> None:
    schedule = Schedule(Pace())
    assert due(schedule, [5.0, 6.0, 4.0, 6.5]) == [0, S, S, S + S // 2]
    assert due(schedule, [3.0]) == [S + S // 2]


def test_what_is_left_out_says_nothing_about_time() -> None:
    schedule = Schedule(Pace())
    times = due(schedule, [1.0, 2.0, 9.0, 3.0], keep=[False, True, False, True])
    assert [times[1], times[3]] == [0, S]
    schedule = Schedule(Pace(pps=10))
    times = due(schedule, [0.0] * 4, keep=[True, False, True, True])
    assert [times[0], times[2], times[3]] == [0, S // 10, S // 5]


def test_speed_divides() -> None:
    assert due(Schedule(Pace(speed=4.0)), [0.0, 1.0, 2.0]) == [0, S // 4, S // 2]
    assert due(Schedule(Pace(speed=0.5)), [0.0, 1.0]) == [0, 2 * S]


@pytest.mark.parametrize("pps", [1.0, 7.5, 1000.0, 3e6])
def test_at_a_rate_packets_are_as_far_apart_over_batches_and_rounds(pps: float) -> None:
    schedule = Schedule(Pace(pps=pps))
    got = due(schedule, [9.0] * 1000) + due(schedule, [1.0] * 500)
    assert np.allclose(got, np.arange(1500) * S / pps, atol=1)
    assert schedule.round_ns == pytest.approx(1500 * S / pps, abs=1)


def test_bits_take_as_long_as_they_do() -> None:
    schedule = Schedule(Pace(mbps=8.0))  # a byte a microsecond
    assert due(schedule, [0.0] * 3, [60, 1514, 100]) == [0, 60_000, 1_574_000]
    assert due(schedule, [0.0] * 2, [60, 60]) == [1_674_000, 1_734_000]
    assert schedule.round_ns == 1_794_000


def test_at_top_speed_all_are_due_at_once() -> None:
    schedule = Schedule(Pace(top=True))
    assert due(schedule, [0.0, 5.0, 9.0]) == [0, 0, 0]
    assert schedule.round_ns == 0


def test_only_one_says_how_fast() -> None:
    with pytest.raises(XdpipeError, match="--speed and --pps: only one says how fast"):
        Pace(speed=2.0, pps=10.0)
    with pytest.raises(XdpipeError, match="--mbps and --top-speed"):
        Pace(mbps=2.0, top=True)
