"""What commands that send take to measure at the other end as well: stamps, reports, a search."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from xdpipe.cli_console import make_console
from xdpipe.cli_options import Finite
from xdpipe.cli_sending import Bar, Sending, send, show
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from xdpipe.replay import ReplayResult
    from xdpipe.traffic.measurement import Measurement
    from xdpipe.traffic.rate_search import RateSearch, SearchOptions, Trial

_SHARE = Finite(min=0, max=1, max_open=True)
_TRIAL_S = 2.0


def measuring_options(command: Any) -> Any:
    """Add the options to a command; `Measuring.of` takes them out of its arguments."""
    for option in reversed(
        (
            click.option(
                "--measure", is_flag=True,
                help="Stamp number and time into payloads, for `xdpipe measure` at the other end.",
            ),
            click.option("--to", metavar="DEV", help="Measure where the packets come by DEV, too."),
            click.option("--report", metavar="FILE.html", help="With --to: a page with plots."),
            click.option("--png", metavar="FILE.png", help="With --to: the plots as a picture."),
            click.option(
                "--search-rate", is_flag=True,
                help="With --to: find the highest rate without loss by bisection (RFC 2544), in "
                f"trials of --duration seconds, {_TRIAL_S:g} by default.",
            ),
            click.option(
                "--least-pps", type=Finite(min=1), default=1000, show_default=True,
                help="Of a search: the lowest rate.",
            ),
            click.option(
                "--most-pps", type=Finite(min=1), default=1e8, show_default=True,
                help="Of a search: the highest rate.",
            ),
            click.option(
                "--acceptable-loss", type=_SHARE, default=0.0, show_default=True,
                help="Of a search: the share that may be lost.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True)
class Measuring:
    """What is asked for.

    Attributes:
        measure: stamp packets.
        to: interface that they are to come by, or None.
        report: path of a page, or None.
        png: path of a picture, or None.
        search: where to search for a rate, or None.
    """

    measure: bool
    to: str | None
    report: str | None
    png: str | None
    search: SearchOptions | None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Measuring:
        """Take what `measuring_options` added out of a command's arguments.

        Raises:
            XdpipeError: one asks for what takes another.
        """
        from xdpipe.traffic.rate_search import SearchOptions

        least, most, loss = (
            values.pop(name) for name in ("least_pps", "most_pps", "acceptable_loss")
        )
        search = SearchOptions(least, most, acceptable_loss=loss)
        asked = cls(
            values.pop("measure"), values.pop("to"), values.pop("report"), values.pop("png"),
            search if values.pop("search_rate") else None,
        )  # fmt: skip
        for name, value in (("--report", asked.report), ("--png", asked.png),
                            ("--search-rate", asked.search)):  # fmt: skip
            if value is not None and asked.to is None:
                raise XdpipeError(f"{name} takes --to DEV: where the packets come by")
        return asked


def send_or_measure(sending: Sending, asked: Measuring) -> None:
    """Send; measure at the other end as well, or search for a rate, if that is asked for.

    Raises:
        XdpipeError: it cannot be sent.
    """
    from xdpipe.replay import NothingToSendError
    from xdpipe.traffic.probe import new_run

    try:
        if asked.to is not None:
            _measure(sending, asked, asked.to)
        elif asked.measure:
            send(replace(sending, options=replace(sending.options, run=new_run())))
        else:
            send(sending)
    except NothingToSendError as error:
        raise XdpipeError(f"{sending.what}: {error}") from error


def _measure(sending: Sending, asked: Measuring, to: str) -> None:
    from xdpipe.foreground import StopSignal
    from xdpipe.traffic import report
    from xdpipe.traffic.both_ends import BothEnds
    from xdpipe.traffic.pace import Pace
    from xdpipe.traffic.receiver import ReceiverOptions

    report.require(asked.report, asked.png)
    options = sending.options
    if asked.search is not None:
        if options.pace != Pace():
            raise XdpipeError("--search-rate chooses the pace; leave --pps and the like out")
        options = replace(options, loops=0, duration_s=options.duration_s or _TRIAL_S)
    error = make_console(stderr=True, highlight=False)

    def tell(text: str) -> None:
        error.print(text, markup=False, soft_wrap=True)

    def tell_trial(trial: Trial, passed: bool) -> None:
        lost = f"lost {trial.lost:,} of {trial.sent:,}" if trial.lost else "nothing lost"
        tell(f"{trial.pps:,.0f} packets/s: {lost}{'' if passed else ': too much'}")

    with (
        StopSignal() as stop,
        Bar(f"{sending.dev} to {to}") as bar,
        BothEnds(
            sending.source,
            sending.link,
            options,
            ReceiverOptions(to),
            tell,
            lambda: stop.came,
            bar.update,
        ) as ends,
    ):
        if asked.search is not None:
            found = ends.search(asked.search, tell_trial)
            _tell_search(found, asked, as_json=sending.as_json)
            return
        result, measurement = ends.run()
    _write(asked, [measurement])
    if sending.as_json:
        told = {**sending.more(), **result.to_dict(), "measurement": measurement.to_dict()}
        print(json.dumps(told))
        return
    show(result, sending.what)
    _tell(result, measurement, asked)


def _write(asked: Measuring, found: list[Measurement], search: RateSearch | None = None) -> None:
    from xdpipe.traffic import report

    if asked.report:
        report.write_html(asked.report, found, f"to {asked.to}", search)
    if asked.png:
        report.write_png(asked.png, found, f"to {asked.to}")


def _tell(result: ReplayResult, measurement: Measurement, asked: Measuring) -> None:
    from xdpipe.traffic import report

    out = make_console(highlight=False, soft_wrap=True)
    if result.stamped < result.sent:
        out.print(f"without a stamp, for want of room: {result.sent - result.stamped:,}")
    out.print(report.summary(measurement), markup=False)
    for path in filter(None, (asked.report, asked.png)):
        out.print(f"written: {path}", markup=False)


def _tell_search(found: RateSearch, asked: Measuring, *, as_json: bool) -> None:
    trials = reversed(found.trials)  # the latest first
    _write(asked, [each.measurement for each in trials if each.measurement is not None], found)
    if as_json:
        print(json.dumps({"to": asked.to, "search": found.to_dict()}))
        return
    out = make_console(highlight=False, soft_wrap=True)
    if found.pps is None:
        out.print("no rate that was tried is without loss")
        return
    limit = {
        "loss": "more is lost", "range": "nothing higher was tried: see --most-pps",
        "sender": "the sender cannot send faster",
    }[found.limited_by]  # fmt: skip
    out.print(f"{found.pps:,.0f} packets/s is the highest rate found; beyond, {limit}")
