"""Send stamped packets by one interface, and measure what comes of them by another."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import TYPE_CHECKING

from xdpipe.replay import replay
from xdpipe.traffic.pace import Pace
from xdpipe.traffic.probe import new_run
from xdpipe.traffic.rate_search import Trial, search_rate
from xdpipe.traffic.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.link import Link
    from xdpipe.replay import ReplayOptions, ReplayResult
    from xdpipe.traffic.measurement import Measurement
    from xdpipe.traffic.rate_search import RateSearch, SearchOptions
    from xdpipe.traffic.receiver import ReceiverOptions
    from xdpipe.traffic.source import Source

_IDLE_S = 0.5
"""What has not come so long after the last that came is lost."""


class BothEnds:
    """A receiver that runs, and a source that is sent as often as one likes; a context manager.

    Args:
        source: of packets; stays the caller's.
        link: the interface that they are sent by.
        options: how; its run is chosen anew each time.
        receiver: where they are to come, and how that is received.
        tell: told in a line what happens.
        stop: asked now and then whether to end.
        progress: told packets handed over, and packets in all, where that is known.
    """

    def __init__(
        self, source: Source, link: Link, options: ReplayOptions, receiver: ReceiverOptions,
        tell: Callable[[str], None], stop: Callable[[], bool],
        progress: Callable[[int, int | None], None],
    ) -> None:  # fmt: skip
        self._source, self._link, self._options = source, link, options
        self._stop, self._progress = stop, progress
        self._receiver = Receiver(receiver, tell, stop)

    def __enter__(self) -> BothEnds:
        self._receiver.__enter__()
        try:
            self._receiver.start()
        except BaseException:
            self._receiver.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._receiver.stop()
        finally:
            self._receiver.__exit__(None, None, None)

    def run(self, pace: Pace | None = None) -> tuple[ReplayResult, Measurement]:
        """Send, and wait for what is still under way; return both ends' words.

        Args:
            pace: in the place of the options' own.
        """
        number = new_run()
        options = changed(self._options, run=number, pace=pace or self._options.pace)
        result = replay(
            self._source, self._link, options, stop=self._stop, progress=self._look_and_tell
        )
        self._receiver.settle(_IDLE_S)
        return result, self._receiver.take(number, result.stamped)

    def search(self, options: SearchOptions, tell: Callable[[Trial, bool], None]) -> RateSearch:
        """Find the highest rate without loss; each trial is a run of its own."""

        def trial(pps: float) -> Trial:
            result, measurement = self.run(Pace(pps=pps))
            return Trial.of(pps, result.seconds, measurement)

        return search_rate(trial, options, tell, self._stop)

    def _look_and_tell(self, n: int, total: int | None) -> None:
        self._receiver.poll(0.0)
        self._progress(n, total)
