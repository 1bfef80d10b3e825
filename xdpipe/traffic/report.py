"""A measurement for people: lines for a terminal, a page with plots, a picture.

Plots are matplotlib's (`xdpipe[plot]`), as SVG within the page, so that it is one file that asks
for nothing else.
"""

from __future__ import annotations

import html
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xdpipe.traffic.measurement import Measurement

_UNITS = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
_BLUE, _RED, _GREY = "#1f6fb4", "#c8442b", "#6b7280"
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
_POINTS_MAX = 250
"""Of what is drawn over time."""
_LINES_MAX = 120
"""Bars of the histogram: neighbours are put together until there are so few."""
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": _GREY, "axes.titlesize": 11,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "grid.color": "#e2e5ea",
    "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "xdpipe",
}  # fmt: skip


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


def duration(ns: float | None) -> str:
    """Return a latency in the unit that fits, to four digits: `12.35 µs`."""
    if ns is None:
        return "–"
    unit, size = next((each for each in _UNITS if ns >= each[1]), _UNITS[-1])
    value = ns / size
    return f"{value:,.0f} {unit}" if value >= 1000 or unit == "ns" else f"{value:.4g} {unit}"


def share(part: int, whole: int) -> str:
    """Return a share as a person reads it: `0.25 %`, `3 in 10,000,000`."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.3g} %" if percent >= 0.001 else f"{part:,} in {whole:,}"


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
    found.append(("for", f"{each.seconds:,.2f} s"))
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
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        data = io.BytesIO()
        figure = draw(found[0] if found else None, about)
        figure.savefig(data, format="png", dpi=130)
    _write(path, data.getvalue())


def write_html(path: str, found: Sequence[Measurement], about: str) -> None:
    """Write a page of all measurements, with plots and tables.

    Args:
        path: where to.
        found: the latest first.
        about: where it was measured.

    Raises:
        XdpipeError: the file cannot be written.
    """
    parts = [_section(each, about) for each in found] or ["<p>No packet with a stamp came.</p>"]
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
    import matplotlib as mpl

    told = rows(each)
    counts = [row for row in told if not row[0].startswith("latency ")]
    latencies = [(name[8:], text) for name, text in told if name.startswith("latency ")]
    with mpl.rc_context(_STYLE):
        text = io.StringIO()
        draw(each, about).savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
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
        f"{_table(heads, streams) if len(streams) > 1 else ''}\n{svg[svg.index('<svg') :]}\n"
    )


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


# The plots


def draw(each: Measurement | None, about: str) -> Figure:
    """Draw latency by percentile, its histogram, and rate and latency over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.6), layout="constrained")
    if each is None or not each.packets:
        figure.text(0.5, 0.5, f"{about}: no packet with a stamp came", ha="center")
        return figure
    whole = each.packets + each.lost
    lost = f"lost {each.lost:,} of {whole:,} ({share(each.lost, whole)})"
    told = [f"p50 {duration(each.percentile_ns(50))}", f"p99 {duration(each.percentile_ns(99))}",
            f"p99.9 {duration(each.percentile_ns(99.9))}",
            f"max {duration(each.percentile_ns(100))}"]  # fmt: skip
    figure.suptitle(
        f"{about}, run {each.run:#06x}\n{lost};  latency {',  '.join(told)}", x=0.01, ha="left",
        fontsize=12,
    )  # fmt: skip
    (curve, histogram), (rate, over_time) = figure.subplots(2, 2)
    if each.n_latencies:
        _draw_curve(curve, each)
        _draw_histogram(histogram, each)
        _draw_latency_over_time(over_time, each)
    else:
        for axes in (curve, histogram, over_time):
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no latencies: all stamps are from the future", ha="center")
    _draw_rate(rate, each)
    return figure


def _unit_for(ns: float) -> tuple[str, float]:
    return next((each for each in _UNITS if ns >= each[1]), _UNITS[-1])


def _draw_curve(axes: Axes, each: Measurement) -> None:
    """Latency by percentile, where each further nine has as much room."""
    unit, size = _unit_for(each.percentile_ns(50) or 1)
    points = each.percentile_curve()
    last = 2 * each.n_latencies
    x = [last if percent >= 100 else 1 / (1 - percent / 100) for percent, _ in points]
    axes.plot(x, [value / size for _, value in points], color=_BLUE, linewidth=1.8)
    ticks = [1 / (1 - percent / 100) for percent in _PERCENTILES]
    names = [f"{percent:g} %" for percent in _PERCENTILES]
    shown = [(tick, name) for tick, name in zip(ticks, names, strict=True) if tick <= last]
    axes.set_xscale("log")
    axes.set_xticks([tick for tick, _ in shown], [name for _, name in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(1, last * 1.05)
    _latency_scale(axes.yaxis, axes, each)
    axes.set_ylabel(f"latency, {unit}")
    axes.set_xlabel("packets that are no later")
    axes.set_title("Latency by percentile")
    axes.grid(visible=True)
    for percent in (50, 99, 99.9):
        value = each.percentile_ns(percent)
        if value is not None and 1 / (1 - percent / 100) <= last:
            axes.plot(1 / (1 - percent / 100), value / size, "o", color=_BLUE, markersize=4)


def _latency_scale(axis: Any, axes: Axes, each: Measurement) -> None:
    """Logarithmic where the greatest is far from the least, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    if each.greatest <= 4 * max(each.least, 1):
        return
    (axes.set_yscale if axis is axes.yaxis else axes.set_xscale)("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _draw_histogram(axes: Axes, each: Measurement) -> None:
    """Packets by latency; neighbouring bins together, until they can be seen."""
    import numpy as np

    unit, size = _unit_for(each.percentile_ns(50) or 1)
    bins = each.latency_bins()
    first, last = max(bins[0][0], 1), bins[-1][1]
    wide = last > 4 * first
    edges = (np.geomspace if wide else np.linspace)(first, last, _LINES_MAX + 1)
    middles = np.array([max((low + high) / 2, 1) for low, high, _ in bins])
    heights, _ = np.histogram(middles, edges, weights=[n for *_, n in bins])
    axes.stairs(heights, edges / size, fill=True, color=_BLUE, alpha=0.85)
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(heights.max() * 1.6, 2))
    _latency_scale(axes.xaxis, axes, each)
    for percent, style in ((50, "-"), (99, "--"), (99.9, ":")):
        value = each.percentile_ns(percent)
        assert value is not None
        axes.axvline(value / size, color=_RED, linestyle=style, linewidth=1.1,
                     label=f"p{percent:g}")  # fmt: skip
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="none")
    axes.set_xlabel(f"latency, {unit}")
    axes.set_ylabel("packets")
    axes.set_title("Packets by latency")
    axes.grid(visible=True, axis="y")


def _times(each: Measurement) -> tuple[Any, Any, float]:
    """Return slots of time, so many together that they can be seen: values, edges, width; s.

    Without the two at the ends where there are many: they are cut.
    """
    import numpy as np

    slots = each.used_slots().astype(float)
    together = -(-len(slots) // _POINTS_MAX)
    slots = np.vstack([slots, np.zeros((-len(slots) % together, 4))]).reshape(-1, together, 4)
    slots = np.hstack([slots[:, :, :3].sum(axis=1), slots[:, :, 3:].max(axis=1)])
    width = each.slot_s * together
    if len(slots) > 10:
        slots = slots[1:-1]
    return slots, np.arange(len(slots) + 1) * width, width


def _draw_rate(axes: Axes, each: Measurement) -> None:
    slots, edges, width = _times(each)
    rate = slots[:, 0] / width
    top = rate.max()
    unit, size = ("million packets/s", 1e6) if top >= 1e6 else ("packets/s", 1.0)
    axes.stairs(rate / size, edges, color=_BLUE, linewidth=1.2, fill=True, alpha=0.25)
    axes.stairs(rate / size, edges, color=_BLUE, linewidth=1.2, baseline=None)
    axes.set_ylim(0, top / size * 1.15 or 1)
    axes.set_xlim(0, edges[-1])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel("time, s")
    axes.set_ylabel(unit)
    axes.set_title("Rate, as received")
    axes.grid(visible=True)


def _draw_latency_over_time(axes: Axes, each: Measurement) -> None:
    import numpy as np

    unit, size = _unit_for(each.percentile_ns(50) or 1)
    slots, edges, _ = _times(each)
    there = slots[:, 0] > 0
    mean = np.where(there, slots[:, 2] / np.maximum(slots[:, 0], 1), np.nan) / size
    most = np.where(there, slots[:, 3], np.nan) / size
    middle = (edges[:-1] + edges[1:]) / 2
    axes.plot(middle, most, color=_RED, linewidth=1.0, label="max", alpha=0.8)
    axes.plot(middle, mean, color=_BLUE, linewidth=1.4, label="mean")
    _latency_scale(axes.yaxis, axes, each)
    axes.set_xlim(0, edges[-1])
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="none")
    axes.set_xlabel("time, s")
    axes.set_ylabel(f"latency, {unit}")
    axes.set_title("Latency over time")
    axes.grid(visible=True)
