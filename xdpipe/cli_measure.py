"""The command measure: receive what `replay --measure` stamped, and say what became of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from xdpipe.cli_console import make_console
from xdpipe.cli_options import Finite, Ranges, json_option

if TYPE_CHECKING:
    from rich.console import Console

    from xdpipe.traffic.measurement import Measurement
    from xdpipe.traffic.receiver import Receiver, ReceiverOptions

_TICK_S = 0.1


def _run_number(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise click.BadParameter("a number from 0 to 0xffff, as replay tells it")
    return number


@click.command()
@click.option("--dev", required=True, help="Interface that the packets come by.")
@click.option("--duration", type=Finite(min=0), help="End after this many seconds.")
@click.option(
    "--idle", "idle_s", type=Finite(min=0, min_open=True),
    help="End when packets have come, and then none for so long; seconds.",
)  # fmt: skip
@click.option(
    "--sent", type=click.IntRange(min=0),
    help="How many stamped packets were sent, of the latest run: so what was lost at either end "
    "is known, too.",
)  # fmt: skip
@click.option("--run", callback=_run_number, help="Number of the run to look for. Default: any.")
@click.option(
    "--filter", "filter_", help="tcpdump filter. Default: takes what has a stamp, of IPv4 and IPv6."
)
@click.option("--queues", type=Ranges(), help="Receive queues, such as 0-3. Default: all.")
@click.option("--cores", type=Ranges(), help="A CPU for each queue, such as 2-5.")
@click.option(
    "--mode", type=click.Choice(["auto", "zerocopy", "copy"]), default="auto", show_default=True,
    help="What to ask of the driver.",
)  # fmt: skip
@click.option(
    "--attach", type=click.Choice(["auto", "native", "generic"]), default="auto",
    show_default=True, help="How to attach the XDP program.",
)  # fmt: skip
@click.option(
    "--frames", "n_frames", type=click.IntRange(64, 1 << 20), default=16384, show_default=True,
    help="Frames of each queue: what comes while its worker is held up.",
)  # fmt: skip
@click.option("--report", metavar="FILE.html", help="Write a page with plots, all in one file.")
@click.option("--png", metavar="FILE.png", help="Write the plots of the latest run as a picture.")
@json_option
def measure(dev: str, duration: float | None, idle_s: float | None, sent: int | None,
            run: int | None, filter_: str | None, queues: list[int] | None,
            cores: list[int] | None, mode: str, attach: str, n_frames: int, report: str | None,
            png: str | None, as_json: bool) -> None:  # fmt: skip
    """Receive packets that `replay --measure` stamped; tell loss, reordering and latency.

    Until Ctrl-C, unless --duration or --idle say when. On another host, have the clocks of the two
    agree (PTP): latencies are off by as much as they do not.
    """
    from xdpipe.ranges import check_cores
    from xdpipe.traffic import report as reports
    from xdpipe.traffic.measurement import Measurement
    from xdpipe.traffic.receiver import STAMPED, ReceiverOptions

    if cores:
        check_cores(cores)
    reports.require(report, png)
    options = ReceiverOptions(
        dev, STAMPED if filter_ is None else filter_, run, tuple(queues or ()),
        tuple(cores or ()), mode, attach, n_frames,
    )  # fmt: skip
    console = make_console(stderr=True, highlight=False)
    found, final = _receive(options, duration, idle_s, console)
    if sent is not None:
        if not found:
            found = [Measurement.nothing(run or 0)]
        found[0].sent = sent
    about = f"{dev} ({final['driver']}, {final['workers'][0]['mode']})"
    if report:
        reports.write_html(report, found, about)
    if png:
        reports.write_png(png, found, about)
    if as_json:
        print(json.dumps(_told(found, final)))
        return
    out = make_console(highlight=False)
    if not found:
        out.print(f"{dev}: no packet with a stamp came; replay --measure puts them in")
    for each in found:
        out.print(reports.summary(each), markup=False)
    for path in filter(None, (report, png)):
        out.print(f"written: {path}", markup=False)


def _receive(
    options: ReceiverOptions, duration: float | None, idle_s: float | None, console: Console
) -> tuple[list[Measurement], dict[str, Any]]:
    """Receive until it is time; return what was measured, and the pipeline's final status."""
    from xdpipe.foreground import StopSignal
    from xdpipe.traffic.receiver import Receiver

    with (
        StopSignal() as stop,
        Receiver(
            options, lambda text: console.print(text, markup=False, soft_wrap=True),
            lambda: stop.came,
        ) as receiver,
        console.status("starting…") as status,
    ):  # fmt: skip
        receiver.start()
        status.update(f"{options.dev}: waiting for stamped packets")
        if not console.is_terminal:
            console.print(f"{options.dev}: waiting for stamped packets")
        watch = _Watch(receiver, duration, idle_s)
        while not (stop.came or receiver.stop_asked or watch.is_over()):
            receiver.poll(_TICK_S)
            if watch.n:
                status.update(f"{options.dev}: {watch.n:,} stamped packets, {watch.pps:,.0f}/s")
        return receiver.stop()


class _Watch:
    """Looks how many packets have come, and when it is time to end."""

    def __init__(self, receiver: Receiver, duration: float | None, idle_s: float | None) -> None:
        self._receiver = receiver
        self._idle_s = idle_s
        self._changed = self._looked = time.monotonic()
        self._until = None if duration is None else self._changed + duration
        self.n = 0
        self.pps = 0.0

    def is_over(self) -> bool:
        """Look, and return whether it is time."""
        now, n = time.monotonic(), self._receiver.n_stamped()
        if now > self._looked:
            self.pps = (n - self.n) / (now - self._looked)
        if n != self.n:
            self._changed = now
        self.n, self._looked = n, now
        idle = self._idle_s is not None and n > 0 and now - self._changed >= self._idle_s
        return idle or (self._until is not None and now >= self._until)


def _told(found: list[Measurement], final: dict[str, Any]) -> dict[str, Any]:
    stage = next(s for s in final["stages"] if s["name"] == "Measure")
    return {
        "dev": final["dev"],
        "driver": final["driver"],
        "attach": final["attach"],
        "mode": final["workers"][0]["mode"],
        "filter": final["filter"],
        "runs": [each.to_dict() for each in found],
        "counters": stage["counters"],
        "ledger": final["ledger"],
    }
