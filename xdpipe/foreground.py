"""A pipeline in the foreground: run it until a signal, and show meanwhile how it goes."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rich.live import Live

from xdpipe import view

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from rich.console import Console

    from xdpipe.run_options import RunOptions

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_S = 0.25


class StopSignal:
    """Remembers SIGINT, SIGTERM and SIGHUP instead of dying of them; a context manager.

    Args:
        insist: die of the second one; for who may be held up by whom it writes to.
    """

    def __init__(self, *, insist: bool = False) -> None:
        self.came = False
        self._insist = insist

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came and self._insist:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.came = True

    def __enter__(self) -> StopSignal:
        self._former = {n: signal.signal(n, self._note) for n in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)


def supervise(
    options: RunOptions,
    duration: float | None,
    console: Console,
    *,
    show: bool,
    begin: Callable[[], None] = lambda: None,
    end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run a pipeline in the foreground until a signal, `xdpipe down`, or the duration's end.

    Args:
        options: what to run.
        duration: seconds, or None.
        console: where to draw.
        show: draw the live table, or say what was obtained where nobody looks at a terminal.
        begin: called when packets go to the workers.
        end: called when it is about to stop, and packets still do.

    Returns:
        The final status.
    """
    from xdpipe.supervisor import Supervisor

    with ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        supervisor = stack.enter_context(
            Supervisor(
                options,
                tell=lambda text: console.print(text, markup=False, soft_wrap=True),
                interrupted=lambda: stop.came,
            )
        )
        with console.status("starting…"):
            supervisor.start()
        begin()
        until = None if duration is None else time.monotonic() + duration
        drawing = Live(console=console, refresh_per_second=4, transient=True)
        if show and console.is_terminal:
            stack.enter_context(drawing)
        elif show:
            status = supervisor.status()
            for worker in status["workers"]:
                devs = ", ".join(port["dev"] for port in status["ports"])
                console.print(
                    f"{devs} queue {worker['queue']}: pid {worker['pid']} on core "
                    f"{worker['core']}, {worker['mode']}, {worker['attach']}"
                )
        before = None
        while not (stop.came or supervisor.stop_asked or supervisor.error):
            left = _TICK_S if until is None else min(_TICK_S, until - time.monotonic())
            if left <= 0:
                break
            supervisor.poll(left)
            if show and console.is_terminal:
                now = supervisor.status()
                drawing.update(view.live(now, before))
                if before is None or now["uptime_s"] - before["uptime_s"] >= 1.0:
                    before = now
        end()
        return supervisor.stop()
