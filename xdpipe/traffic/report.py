"""A measurement for people: lines for a terminal, a page with plots, a picture.

Plots are matplotlib's (`xdpipe[plot]`), as SVG within the page, so that it is one file that asks
for nothing else.
"""

from __future__ import annotations

import html
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError
from xdpipe.traffic.texts import duration, search_summary, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.traffic.measurement import Measurement
    from xdpipe.traffic.rate_search import RateSearch


def require(*paths: str | None) -> None:
    """See to it, before anything is measured, that files can be written and plots drawn.

    Args:
        paths: of the files; None: not wanted.

    Raises:
        XdpipeError: there is no such directory, or matplotlib is missing.
    """
    wanted = [path for path in paths if path]
    for path in wanted:
        if not Path(path).absolute().parent.is_dir():
            raise XdpipeError(f"{path}: there is no directory {Path(path).absolute().parent}")
    if wanted and importlib.util.find_spec("matplotlib") is None:
        raise XdpipeError(
            f"{wanted[0]}: plots are drawn by matplotlib, which is not installed; "
            "pip install 'xdpipe[plot]'"
        )


def rows(each: Measurement) -> list[tuple[str, str]]:
    """Return what there is to say of a measurement, by name."""
    told = each.to_dict()
    latency = told["latency"]
    whole = each.packets + each.lost
    sent = f"{each.sent:,}" if each.sent is not None else "not said; lost is told by gaps"
    found = [
        ("sent", sent),
        ("received", f"{each.packets:,}"),
        ("lost", f"{each.lost:,} ({share(each.lost, whole)})"),
        ("duplicates", f"{told['duplicates']:,}"),
        ("reordered", f"{told['reordered']:,} ({share(told['reordered'], each.packets)})"),
    ]
    if told["reordered"]:
        mean, most = told["reordered_extent_mean"], told["reordered_extent_max"]
        found.append(("late by", f"{mean:.1f} packets in the mean, {most:,} at most"))
    if told["too_late"]:
        found.append(("too late to tell", f"{told['too_late']:,}"))
    if each.receiver_dropped:
        found.append(("dropped by this receiver", f"{each.receiver_dropped:,}: it was too slow"))
    found.append(("rate", f"{each.pps:,.0f} packets/s, {each.bits_per_s / 1e6:,.1f} Mb/s"))
    found.append(("for", duration(each.seconds * 1e9)))
    for name in ("min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"):
        found.append((f"latency {name}", duration(latency[name])))
    if each.early:
        text = f"{each.early:,} had been sent later than they came: the clocks differ"
        found.append(("without latency", text))
    return found


def summary(each: Measurement) -> str:
    """Return it as lines for a terminal."""
    told = rows(each)
    width = max(len(name) for name, _ in told)
    lines = [f"run {each.run:#06x}"]
    return "\n".join(lines + [f"  {name:<{width}}  {text}" for name, text in told])


def write_png(path: str, found: Sequence[Measurement], about: str) -> None:
    """Draw the plots of the first measurement as a picture.

    Args:
        path: where to.
        found: the latest first.
        about: where it was measured.

    Raises:
        XdpipeError: the file cannot be written.
    """
    from xdpipe.traffic import plots

    _write(path, plots.png(lambda: plots.draw(found[0] if found else None, about)))


def write_html(
    path: str, found: Sequence[Measurement], about: str, search: RateSearch | None = None
) -> None:
    """Write a page of all measurements, with plots and tables.

    Args:
        path: where to.
        found: the latest first.
        about: where it was measured.
        search: for a rate, of which they are the trials; stands first.

    Raises:
        XdpipeError: the file cannot be written.
    """
    parts = [_section(each, about) for each in found] or ["<p>No packet with a stamp came.</p>"]
    if search is not None:
        parts.insert(0, _search_section(search))
    title = html.escape(f"xdpipe measure: {about}")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_CSS}</style></head>\n<body><h1>{title}</h1>\n{''.join(parts)}</body></html>\n"
    )
    _write(path, page.encode())


_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 2.5rem 1rem 0; display: inline-table;
  vertical-align: top; }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #e2e5ea; }
td.n, th.n { text-align: right; padding-right: 0; padding-left: 1rem;
  font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; }
"""


def _section(each: Measurement, about: str) -> str:
    from xdpipe.traffic import plots

    told = rows(each)
    counts = [row for row in told if not row[0].startswith("latency ")]
    latencies = [(name[8:], text) for name, text in told if name.startswith("latency ")]
    picture = plots.svg(lambda: plots.draw(each, about))
    streams = [
        [str(number), *(f"{n:,}" for n in (
            counts.packets, counts.next - counts.lowest - counts.packets, counts.duplicates,
            counts.reordered, counts.too_late,
        ))]
        for number, counts in sorted(each.streams.items())
    ]  # fmt: skip
    heads = ["stream", "received", "gaps", "duplicates", "reordered", "too late"]
    return (
        f"<h2>run {each.run:#06x}</h2>\n{_table([], [list(row) for row in counts])}"
        f"{_table(['latency', ''], [list(row) for row in latencies])}"
        f"{_table(heads, streams) if len(streams) > 1 else ''}\n{picture}\n"
    )


def _search_section(search: RateSearch) -> str:
    from xdpipe.traffic import plots

    lines = [
        [f"{trial.asked_pps:,.0f}", f"{trial.pps:,.0f}", f"{trial.sent:,}",
         f"{trial.lost:,} ({share(trial.lost, trial.sent)})",
         duration(trial.measurement.percentile_ns(99) if trial.measurement else None)]
        for trial in search.trials
    ]  # fmt: skip
    heads = ["packets/s asked for", "sent with", "packets", "lost", "latency p99"]
    picture = plots.svg(lambda: plots.draw_search(search))
    return f"<h2>{html.escape(search_summary(search))}</h2>\n{_table(heads, lines)}\n{picture}\n"


def _table(heads: list[str], lines: list[list[str]]) -> str:
    def row(cells: list[str], tag: str) -> str:
        told = [
            f"<{tag}{' class=n' if k else ''}>{html.escape(cell)}</{tag}>"
            for k, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(told)}</tr>"

    head = row(heads, "th") if heads else ""
    return f"<table>{head}{''.join(row(line, 'td') for line in lines)}</table>"


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise XdpipeError(f"{path}: cannot be written: {error.strerror}") from error
