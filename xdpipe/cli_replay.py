"""The command replay: put packets on a link."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from xdpipe import cli_edits
from xdpipe.cli_both_ends import Measuring, measuring_options, send_and_measure
from xdpipe.cli_edits import edit_options
from xdpipe.cli_options import Finite, Ranges, json_option
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.replay import ReplayOptions, ReplayResult
    from xdpipe.traffic.edits import Edits
    from xdpipe.traffic.source import Source

_BATCH = 4096
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


def send(
    source: Source, what: str, dev: str, options: ReplayOptions, asked: Measuring, *, as_json: bool
) -> None:
    """Send a source with a bar that shows how far it is, and say what became of it.

    Args:
        source: of packets.
        what: it is called, for people.
        dev: interface.
        options: how.
        asked: whether to measure.
        as_json: print one object on stdout.
    """
    from xdpipe.replay import NothingToSendError

    try:
        if asked.to is not None:
            send_and_measure(source, what, dev, options, asked, as_json=as_json)
        else:
            _send(source, what, dev, options, asked, as_json=as_json)
    except NothingToSendError as error:
        raise XdpipeError(f"{what}: {error}") from error


def _send(
    source: Source, what: str, dev: str, options: ReplayOptions, asked: Measuring, *, as_json: bool
) -> None:
    if asked.measure:
        from xdpipe.traffic.probe import new_run

        options = replace(options, run=new_run())
    from xdpipe.foreground import StopSignal
    from xdpipe.link import Link
    from xdpipe.replay import replay as run_replay

    link = Link.find(dev)
    link.require_up()
    with StopSignal() as stop, Bar(f"to {dev}", options) as bar:
        result = run_replay(source, link, options, stop=lambda: stop.came, progress=bar.update)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        show(result, what, dev)
        if options.run is not None:
            _console().print(
                f"{result.stamped:,} of them with a stamp; the other end: xdpipe measure "
                f"--run {options.run:#06x} --sent {result.stamped} --dev …"
            )


class Bar:
    """A bar with rate and time left; of something without an end, what was sent and the rate."""

    def __init__(self, text: str, options: ReplayOptions) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"),
            TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), Remaining(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(text, total=None, rate="")
        self.update: Callable[[int, int | None], None] = self._update

    def _update(self, n: int, total: int | None) -> None:
        task = self._progress.tasks[self._task]
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        self._progress.update(self._task, completed=n, total=total, rate=rate)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def show(result: ReplayResult, what: str, dev: str) -> None:
    """Say for people what became of the packets."""
    shown = result.to_dict()
    console = _console()
    console.print(
        f"{what} to {dev} ({result.engine}, {result.mode}): sent {result.sent:,} packets in "
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
        ("left out", result.left_out),
    ):
        if n:
            console.print(f"{label}: {n:,}")
    if result.truncated:
        console.print(f"the file ends early: {result.truncated}", markup=False)
    if result.interrupted:
        console.print("ended before the last packet")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


@click.command()
@click.argument("capture")
@click.option("--dev", help="Interface.")
@click.option(
    "-w", "--write", "file", metavar="FILE",
    help="Send nothing: write the packets, edited, to a capture; - is stdout.",
)  # fmt: skip
@edit_options
@sending_options
@measuring_options
@json_option
@click.pass_context
def replay(ctx: click.Context, /, capture: str, dev: str | None, file: str | None, edits: Edits,
           as_json: bool, **values: Any) -> None:  # fmt: skip
    """Put the packets of CAPTURE on a link, at the times at which they were recorded."""
    if (file is None) == (dev is None):
        raise click.UsageError("say where to: --dev DEV or -w FILE")
    if file is not None:
        cli_edits.refuse_others(ctx, ("capture", "file", "as_json"))
        cli_edits.write(capture, edits, file, as_json=as_json)
        return
    assert dev is not None
    asked = Measuring.of(values)
    options = options_of(values)
    from xdpipe.link import Link

    mtu = Link.find(dev).mtu if edits.truncate else None
    with cli_edits.open_edited(capture, edits, batch_size=_BATCH, link_mtu=mtu) as source:
        send(source, capture, dev, options, asked, as_json=as_json)
