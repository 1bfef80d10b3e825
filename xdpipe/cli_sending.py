"""What commands that send have in common: options, a bar, words for people or one object."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from xdpipe.cli_console import make_console
from xdpipe.cli_edits import REASONS
from xdpipe.cli_options import Finite, Ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import Progress

    from xdpipe.link import Link
    from xdpipe.replay import ReplayOptions, ReplayResult
    from xdpipe.traffic.source import Source

_POSITIVE = Finite(min=0, min_open=True)


def sending_options(command: Any) -> Any:
    """Add the options that say how packets are sent, for commands that send."""
    for option in reversed(
        (
            click.option("--speed", type=_POSITIVE, help="So many times as fast as recorded."),
            click.option("--pps", type=_POSITIVE, help="Packets a second, over all queues."),
            click.option("--mbps", type=_POSITIVE, help="Megabits a second, without FCS."),
            click.option("--top-speed", is_flag=True, help="As fast as the link takes them."),
            click.option(
                "--loop", "loops", type=click.IntRange(min=0), default=1, show_default=True,
                help="How often; 0: until --duration or Ctrl-C.",
            ),
            click.option("--duration", type=_POSITIVE, help="End after this many seconds."),
            click.option(
                "--engine", type=click.Choice(["auto", "xdp", "live", "socket"]), default="auto",
                show_default=True,
                help="AF_XDP, the kernel's live frames, or a packet socket. auto: by what the link "
                "offers.",
            ),
            click.option(
                "--into-stack", is_flag=True,
                help="Give the packets to this host's network stack, as if DEV had received them.",
            ),
            click.option(
                "--queues", type=Ranges(),
                help="Transmit queues of AF_XDP, such as 0-3; each flow keeps to one. Default: 0.",
            ),
            click.option(
                "--mode", type=click.Choice(["auto", "zerocopy", "copy"]), default="auto",
                show_default=True, help="What AF_XDP is to ask of the driver.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def options_of(values: dict[str, Any], *, top_by_default: bool = False) -> ReplayOptions:
    """Take what `sending_options` added out of a command's arguments.

    Args:
        values: the arguments; those are taken out.
        top_by_default: without a pace go as fast as the link allows, since there is no record.
    """
    from xdpipe.replay import ReplayOptions
    from xdpipe.traffic.engine import EngineOptions
    from xdpipe.traffic.pace import Pace

    speed, pps, mbps, top = (values.pop(name) for name in ("speed", "pps", "mbps", "top_speed"))
    if top_by_default and speed is pps is mbps is None:
        top = True
    return ReplayOptions(
        pace=Pace(speed, pps, mbps, top),
        loops=values.pop("loops"),
        duration_s=values.pop("duration"),
        engine=EngineOptions(
            engine=values.pop("engine"), mode=values.pop("mode"), queues=values.pop("queues"),
            into_stack=values.pop("into_stack"),
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Sending:
    """What a command sends, and what it says of that.

    Attributes:
        source: of packets.
        what: it is called, for people.
        dev: interface that they are sent by.
        options: how.
        as_json: print one object on stdout.
        more: asked afterwards what else the object is to have.
    """

    source: Source
    what: str
    dev: str
    options: ReplayOptions
    as_json: bool = False
    more: Callable[[], dict[str, Any]] = dict

    @property
    def link(self) -> Link:
        """The interface, which is up.

        Raises:
            XdpipeError: there is none, or it is down.
        """
        from xdpipe.link import Link

        link = Link.find(self.dev)
        link.require_up()
        return link


def send(sending: Sending) -> None:
    """Send with a bar that shows how far it is, and say what became of the packets."""
    from xdpipe.foreground import StopSignal
    from xdpipe.replay import replay

    options = sending.options
    with StopSignal() as stop, Bar(f"to {sending.dev}") as bar:
        result = replay(
            sending.source, sending.link, options, stop=lambda: stop.came, progress=bar.update
        )
    if sending.as_json:
        print(json.dumps({**sending.more(), **result.to_dict()}))
        return
    show(result, sending.what)
    if options.run is not None:
        _console().print(
            f"{result.stamped:,} of them with a stamp; the other end: xdpipe measure "
            f"--run {options.run:#06x} --sent {result.stamped} --dev …"
        )


class Bar:
    """A bar with rate and time left, where stderr is a terminal.

    Of something without an end it shows what was sent and the rate.
    """

    def __init__(self, text: str) -> None:
        self._progress: Progress | None = None
        if not sys.stderr.isatty():
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"),
            TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), Remaining(),
            console=make_console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(text, total=None, rate="")

    def update(self, n: int, total: int | None) -> None:
        """Show that n packets of so many were sent."""
        if self._progress is None:
            return
        task = self._progress.tasks[self._task]
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        self._progress.update(self._task, completed=n, total=total, rate=rate)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def show(result: ReplayResult, what: str) -> None:
    """Say for people what became of the packets."""
    shown = result.to_dict()
    console = _console()
    console.print(
        f"{what} to {result.dev} ({result.engine}, {result.mode}): sent {result.sent:,} packets in "
        f"{result.seconds:.2f} s, {shown['pps']:,.0f} packets/s, {shown['mbps']:,.1f} Mbit/s",
        markup=False,
    )
    if result.late_us:
        late = result.late_us
        console.print(
            f"handed over late by {late['p50']:g} us (half of them), {late['p99']:g} us (99 %), "
            f"{late['max']:g} us at the most"
        )
    for label, n in (
        ("not taken by the link", result.refused),
        ("too long", result.too_long),
        ("too short", result.too_short),
        *((f"left out, {REASONS[reason]}", n) for reason, n in result.edits.items()),
    ):
        if n:
            console.print(f"{label}: {n:,}")
    if result.truncated:
        console.print(f"the file ends early: {result.truncated}", markup=False)
    if result.interrupted:
        console.print("ended before the last packet")


def _console() -> Console:
    return make_console(highlight=False, soft_wrap=True)
