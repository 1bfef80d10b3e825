"""The highest rate without loss, by bisection (RFC 2544, 26.1: throughput)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.traffic.measurement import Measurement

_REACHED = 0.98
"""A trial that was sent at less than this share of the rate asked for shows the sender's limit."""


@dataclass(frozen=True)
class Trial:
    """What became of packets that were sent at one rate for a while.

    Attributes:
        asked_pps: packets a second that it was to be.
        pps: packets a second that it was, while packets were sent.
        sent: packets.
        lost: of them.
        measurement: all that was measured, for who wants to know more.
    """

    asked_pps: float
    pps: float
    sent: int
    lost: int
    measurement: Measurement | None = None

    @classmethod
    def of(cls, asked_pps: float, seconds: float, measurement: Measurement) -> Self:
        """Return the trial of which this was measured.

        Args:
            asked_pps: packets a second that it was to be.
            seconds: that sending took.
            measurement: of its run, with `sent` filled in.
        """
        sent = measurement.sent or 0
        pps = sent / seconds if seconds > 0 else 0.0
        return cls(asked_pps, pps, sent, measurement.lost, measurement)

    @property
    def lost_share(self) -> float:
        """What of the packets was lost, 0 to 1."""
        return self.lost / self.sent if self.sent else 0.0

    @property
    def reached(self) -> bool:
        """Whether it was sent as fast as asked for."""
        return self.pps >= _REACHED * self.asked_pps


@dataclass(frozen=True)
class SearchOptions:
    """Where to search, and when a rate is passed.

    Attributes:
        least_pps: the lowest rate that is tried.
        most_pps: the highest, which is tried first.
        resolution: the search ends when the rate is known to this share of it.
        acceptable_loss: share of the packets that may be lost, 0 to 1; RFC 2544 has 0.
        attempts: a rate is failed only when so many trials in a row are: what else the machines do
            may lose a packet at any rate.

    Raises:
        XdpipeError: other numbers than can be.
    """

    least_pps: float
    most_pps: float
    resolution: float = 0.01
    acceptable_loss: float = 0.0
    attempts: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.least_pps <= self.most_pps < math.inf:
            raise XdpipeError(
                f"a search from {self.least_pps:g} to {self.most_pps:g} packets/s: give a range "
                "that begins above 0 and does not run backwards"
            )
        if not 1e-6 <= self.resolution < 1:
            raise XdpipeError(f"resolution {self.resolution:g}: a share between 0.000001 and 1")
        if not 0 <= self.acceptable_loss < 1:
            raise XdpipeError(f"acceptable loss {self.acceptable_loss:g}: a share, 0 to below 1")
        if self.attempts < 1:
            raise XdpipeError(f"{self.attempts} attempts: 1 at the least")


@dataclass
class RateSearch:
    """What a search found.

    Attributes:
        pps: the highest rate that was passed, as it was sent; None: not even the lowest was.
        failed_pps: the lowest rate that was not; None: there was none.
        limited_by: `loss`; `sender`, which could not send as fast as was to be tried, so that the
            rate may be higher; `range`: the highest rate to be tried was passed.
        trials: all of them, in order.
        acceptable_loss: share of the packets that could be lost at a rate that was passed.
    """

    pps: float | None = None
    failed_pps: float | None = None
    limited_by: str = "loss"
    trials: list[Trial] = field(default_factory=list)
    acceptable_loss: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` shows of it."""
        trials = []
        for trial in self.trials:
            measurement = trial.measurement
            told = {**asdict(trial, dict_factory=_without_measurement)}
            told["lost_share"] = trial.lost_share
            if measurement is not None:
                told["p99_ns"] = measurement.percentile_ns(99)
                told["receiver_dropped"] = measurement.receiver_dropped
            trials.append(told)
        return {
            "pps": self.pps, "failed_pps": self.failed_pps, "limited_by": self.limited_by,
            "acceptable_loss": self.acceptable_loss, "trials": trials,
        }  # fmt: skip


def _without_measurement(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if name != "measurement"}


def search_rate(
    trial: Callable[[float], Trial],
    options: SearchOptions,
    tell: Callable[[Trial, bool], None] = lambda _trial, _passed: None,
    stop: Callable[[], bool] = lambda: False,
) -> RateSearch:
    """Find the highest rate at which no more is lost than is acceptable.

    The highest rate of the range first, then always the middle between the highest that was passed
    and the lowest that was not, and the range's lowest in the end where none was passed.

    Args:
        trial: sends at a rate for a while, waits until what is under way has arrived, and says what
            became of it.
        options: where to search.
        tell: told each trial, and whether it was passed.
        stop: asked before each trial whether to end; what was found so far is returned.
    """
    found = RateSearch(acceptable_loss=options.acceptable_loss)
    low = 0.0  # the highest that was passed, as asked for

    def passes(pps: float) -> bool:
        for _ in range(options.attempts):
            done = trial(pps)
            found.trials.append(done)
            passed = done.sent > 0 and done.lost_share <= options.acceptable_loss
            tell(done, passed)
            if passed:
                found.pps = max(found.pps or 0.0, done.pps)
                return True
            if stop():
                break
        rate = min(pps, done.pps) if done.pps > 0 else pps
        found.failed_pps = min(found.failed_pps or rate, rate)
        return False

    def ends_by(pps: float) -> bool:
        """Try a rate that may end the search: the sender's limit, passed, does."""
        nonlocal low
        if not passes(pps):
            return False
        low = pps
        if not found.trials[-1].reached:
            found.limited_by = "sender"
            return True
        return False

    if stop() or ends_by(options.most_pps):
        return found
    if low:
        found.limited_by = "range"
        return found
    while not stop():
        high = found.failed_pps or options.most_pps
        bottom = max(low, options.least_pps)
        if high - bottom <= options.resolution * high:
            if not low and bottom < high:
                ends_by(bottom)
            return found
        if ends_by((bottom + high) / 2):
            return found
    return found
