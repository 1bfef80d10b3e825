"""The receiving side of a measurement: a pipeline of Headers and Measure on an interface."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xdpipe.errors import XdpipeError
from xdpipe.traffic.measurement import Measurement, merged, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from xdpipe.pipeline import Pipeline

_ONE = "(ip[ip[2:2] - 18 : 2] = 0x7850 or ip6[ip6[4:2] + 22 : 2] = 0x7850)"
STAMPED = f"{_ONE} or (vlan and ({_ONE} or (vlan and {_ONE})))"
"""Takes packets of IPv4 and IPv6, with up to two VLAN tags, whose last 18 bytes by the length in
the IP header begin as a stamp does (core/traffic/probe.h): stamped ones, and of others one in
65536, which the stage then tells apart."""
PORT = "wire"
"""The pipeline's port: one with a name is promiscuous where no guard is, so that packets to any MAC
address are received."""
N_RUNS, N_STREAMS = 32, 128
"""Of one receiver: those of a search for a rate are a run each."""
_LOOK_S = 0.05
_COUNTED = ("in_order", "reordered", "duplicates", "too_late", "no_room")
_FILE = """\
from xdpipe.traffic.receiver import receiving

pipeline = receiving({filter!r}, {run!r}, passes={passes!r})
"""


def receiving(filter: str, run: int | None, *, passes: bool) -> Pipeline:
    """Return the pipeline: stamped packets end in it, others go on to the kernel.

    The guard is off: it would keep some stamped packets back (of a capture of SSH, say), and what
    has no stamp is given back anyway.

    Args:
        filter: which packets are looked at.
        run: the one that is looked for; None: any.
        passes: others are given back; else they are dropped.
    """
    from xdpipe.pipeline import Pipeline
    from xdpipe.stages import Headers, Measure
    from xdpipe.steering import Steering
    from xdpipe.verdict import DROP, PASS

    measure = Measure(run=run, n_runs=N_RUNS, n_streams=N_STREAMS, window=1 << 15)
    return Pipeline(
        Steering(filter, guard=False), [Headers(), measure], default=PASS if passes else DROP,
        ports=(PORT,),
    )  # fmt: skip


@dataclass(frozen=True)
class ReceiverOptions:
    """Where and how to receive.

    Attributes:
        dev: the interface.
        filter: which packets are looked at; see STAMPED.
        run: number of the run that is looked for; None: any.
        queues: receive queues; () means all.
        cores: a CPU for each; () means to choose.
        mode: `auto`, `zerocopy` or `copy`.
        attach: `auto`, `native` or `generic`; in generic mode what was taken by mistake cannot be
            given back, and is dropped.
        n_frames: of each queue: more than a pipeline's default, since what a receiver loses looks
            as if the link had lost it.
    """

    dev: str
    filter: str = STAMPED
    run: int | None = None
    queues: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()
    mode: str = "auto"
    attach: str = "auto"
    n_frames: int = 16384


class Receiver:
    """Receives stamped packets and says what became of them; a context manager.

    Start, then poll now and then, then stop: all on the main thread, as a Supervisor wants it.
    Nothing but its workers measures, so that who sends may do so from the same thread.

    Args:
        options: where and how.
        tell: told in a line what happens.
        interrupted: asked while it starts whether to give up.
    """

    def __init__(
        self,
        options: ReceiverOptions,
        tell: Callable[[str], None],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._options = options
        self._tell = tell
        self._interrupted = interrupted
        self._stack = ExitStack()
        self._dropped_before = 0

    def start(self) -> None:
        """Begin to receive; when this returns, packets are taken.

        Raises:
            XdpipeError: that cannot be; nothing is left attached.
        """
        from xdpipe.run_options import RunOptions
        from xdpipe.supervisor import Supervisor

        options = self._options
        # Root's alone: the worker reads it before it gives its privileges up.
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="xdpipe-"))
        file = Path(directory) / "measure.py"
        passes = options.attach != "generic"
        file.write_text(_FILE.format(filter=options.filter, run=options.run, passes=passes))
        run = RunOptions(
            file=str(file), devs={PORT: options.dev}, queues=options.queues, cores=options.cores,
            mode=options.mode, attach=options.attach, n_frames=options.n_frames,
        )  # fmt: skip
        self._supervisor = self._stack.enter_context(Supervisor(run, self._tell, self._interrupted))
        self._supervisor.start()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Deal with what happens within timeout_s: a worker that dies, for one.

        Raises:
            XdpipeError: the interface is gone.
        """
        self._supervisor.poll(timeout_s)
        if self._supervisor.error:
            raise XdpipeError(f"{self._supervisor.error}; the measurement ended")

    @property
    def stop_asked(self) -> bool:
        """Somebody asked by `xdpipe down` that it ends."""
        return self._supervisor.stop_asked

    def n_stamped(self) -> int:
        """Return how many stamped packets have come so far."""
        counters = _measure_of(self._supervisor.status())["counters"]
        return sum(counters[name] for name in _COUNTED)

    def measurements(self) -> list[Measurement]:
        """Ask the workers what they have measured so far, the latest run first."""
        return _measurements(self._supervisor.status(reports=True))

    def settle(self, quiet_s: float = 0.5) -> None:
        """Poll until no stamped packet has come for so long: what is under way arrives.

        RFC 2544 (23) has 2 s.
        """
        n, since = self.n_stamped(), time.monotonic()
        while time.monotonic() - since < quiet_s:
            self.poll(_LOOK_S)
            before, n = n, self.n_stamped()
            if n != before:
                since = time.monotonic()

    def take(self, run: int, sent: int) -> Measurement:
        """Return what came of a run that has ended and settled, one of several in a row.

        `receiver_dropped` is what was dropped here since the last call, or the start.

        Args:
            run: its number.
            sent: how many packets were sent with its stamp.
        """
        found = self.measurements()
        each = next((one for one in found if one.run == run), Measurement.nothing(run))
        dropped = _dropped(self._supervisor.status())
        each.receiver_dropped, self._dropped_before = dropped - self._dropped_before, dropped
        each.sent = sent
        return each

    def stop(self) -> tuple[list[Measurement], dict[str, Any]]:
        """End: what is under way still arrives.

        Returns:
            What was measured, the latest run first, and of many as many as a message of a worker's
            holds; and the pipeline's final status.
        """
        final = self._supervisor.stop()
        return _measurements(final), final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def _measure_of(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in status["stages"] if s["name"] == "Measure")
    return found


def _measurements(status: dict[str, Any]) -> list[Measurement]:
    found = merged(
        unpacked(text) for report in _measure_of(status)["reports"] for text in report["_runs"]
    )
    for each in found:
        each.receiver_dropped = _dropped(status)
    return found


def _dropped(status: dict[str, Any]) -> int:
    """Return how many packets were lost here before a worker had them."""
    ledger = status["ledger"]
    return int(sum(ledger["kernel_drops"].values()) + ledger["redirect_failed"])
