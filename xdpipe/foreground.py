"""A pipeline in the foreground: run it until a signal, and show meanwhile how it goes."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.console import Console

    from xdpipe.run_options import RunOptions
    from xdpipe.supervisor import Supervisor

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
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return a descriptor that is readable once one came: select(2) goes on after a signal."""
        return self._event_fd

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        os.eventfd_write(self._event_fd, 1)
        if self._insist:
            for each in STOP_SIGNALS:
                signal.signal(each, signal.SIG_DFL)

    def __enter__(self) -> StopSignal:
        self._former = {n: signal.signal(n, self._note) for n in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(self._event_fd)


def supervise(
    options: RunOptions,
    duration: float | None,
    console: Console | None = None,
    *,
    tell: Callable[[str], None] | None = None,
    begin: Callable[[], None] = lambda: None,
    end: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run a pipeline in the foreground until a signal, `xdpipe down`, or the duration's end.

    Args:
        options: what to run.
        duration: seconds, or None.
        console: where to draw a live table, or say what was obtained where nobody looks at a
            terminal; None: nowhere.
        tell: told in a line what happens. By default it says so there, or on stderr.
        begin: called when packets go to the workers.
        end: called when it is about to stop, and packets still do.

    Returns:
        The final status.
    """
    from xdpipe.supervisor import Supervisor

    def say(text: str) -> None:
        if console is None:
            print(text, file=sys.stderr)
        else:
            console.print(text, markup=False, soft_wrap=True)

    with ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        supervisor = stack.enter_context(
            Supervisor(options, tell=tell or say, interrupted=lambda: stop.came)
        )
        supervisor.wake(stop)
        with nullcontext() if console is None else console.status("starting…"):
            supervisor.start()
        begin()
        until = None if duration is None else time.monotonic() + duration
        show = stack.enter_context(_shown(supervisor, console))
        while not (stop.came or supervisor.stop_asked or supervisor.error):
            left = _TICK_S if until is None else min(_TICK_S, until - time.monotonic())
            if left <= 0:
                break
            supervisor.poll(left)
            show()
        end()
        return supervisor.stop()


@contextmanager
def _shown(supervisor: Supervisor, console: Console | None) -> Iterator[Callable[[], None]]:
    """Say in lines what was obtained; or draw, and yield what brings the drawing up to date."""
    if console is None:
        yield lambda: None
        return
    if not console.is_terminal:
        status = supervisor.status()
        devs = ", ".join(port["dev"] for port in status["ports"])
        for worker in status["workers"]:
            console.print(
                f"{devs} queue {worker['queue']}: pid {worker['pid']} on core {worker['core']}, "
                f"{worker['mode']}, {worker['attach']}"
            )
        yield lambda: None
        return
    from rich.live import Live

    from xdpipe import view

    before: dict[str, Any] | None = None

    def update() -> None:
        nonlocal before
        now = supervisor.status()
        drawing.update(view.live(now, before))
        if before is None or now["uptime_s"] - before["uptime_s"] >= 1.0:
            before = now

    with Live(console=console, refresh_per_second=4, transient=True) as drawing:
        yield update
