"""Plots of a measurement, by matplotlib (`xdpipe[plot]`): SVG for a page, or a picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.traffic.texts import duration, search_summary, share

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xdpipe.traffic.measurement import Measurement
    from xdpipe.traffic.rate_search import RateSearch

_BLUE, _RED, _GREY = "#1f6fb4", "#c8442b", "#6b7280"
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
_MARKED = ((50, "-"), (99, "--"), (99.9, ":"))
_POINTS_MAX = 250
"""Of what is drawn over time."""
_BARS = 120
"""Of the histogram: neighbouring bins are put together."""
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": _GREY, "axes.titlesize": 11,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "grid.color": "#e2e5ea",
    "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "xdpipe",
}  # fmt: skip
_LEGEND: dict[str, Any] = {
    "loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3, "frameon": False,
    "borderaxespad": 0.2,
}  # fmt: skip
"""Above the axes, where it hides nothing."""


def png(make: Callable[[], Figure]) -> bytes:
    """Return a figure, which is made in our style, as PNG."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        data = io.BytesIO()
        make().savefig(data, format="png", dpi=130)
    return data.getvalue()


def svg(make: Callable[[], Figure]) -> str:
    """Return a figure, which is made in our style, as an element <svg>."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        text = io.StringIO()
        make().savefig(text, format="svg", metadata={"Date": None})
    told = text.getvalue()
    return told[told.index("<svg") :]


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


def draw_search(search: RateSearch) -> Figure:
    """Draw what each trial lost at its rate, and the rate that was found."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots()
    for passed, color, name in ((True, _BLUE, "passed"), (False, _RED, "failed")):
        some = [t for t in search.trials if (t.lost_share <= search.acceptable_loss) == passed]
        shares = [100 * trial.lost_share for trial in some]
        axes.plot([trial.pps for trial in some], shares, "o", color=color, label=name)
    if search.pps is not None:
        axes.axvline(search.pps, color=_BLUE, linestyle="--", linewidth=1.1)
    axes.set_xlim(0)
    axes.set_ylim(bottom=-2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel("packets/s, as sent")
    axes.set_ylabel("lost, %")
    axes.set_title(search_summary(search))
    axes.legend(**_LEGEND)
    axes.grid(visible=True)
    return figure


def _draw_curve(axes: Axes, each: Measurement) -> None:
    """Latency by percentile, where each further nine has as much room."""
    points = each.percentile_curve()
    last = 2 * each.n_latencies
    x = [last if percent >= 100 else 1 / (1 - percent / 100) for percent, _ in points]
    axes.plot(x, [value for _, value in points], color=_BLUE, linewidth=1.8)
    ticks = [1 / (1 - percent / 100) for percent in _PERCENTILES]
    names = [f"{percent:g} %" for percent in _PERCENTILES]
    shown = [(tick, name) for tick, name in zip(ticks, names, strict=True) if tick <= last]
    axes.set_xscale("log")
    axes.set_xticks([tick for tick, _ in shown], [name for _, name in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(1, last * 1.05)
    _latency_scale(axes.yaxis, axes, each)
    axes.set_ylabel("latency")
    axes.set_xlabel("packets that are no later")
    axes.set_title("Latency by percentile")
    axes.grid(visible=True)
    for percent, _ in _MARKED:
        value = each.percentile_ns(percent)
        if value is not None and 1 / (1 - percent / 100) <= last:
            axes.plot(1 / (1 - percent / 100), value, "o", color=_BLUE, markersize=4)


def _latency_scale(axis: Any, axes: Axes, each: Measurement) -> None:
    """Logarithmic where the greatest is far from the least; each tick with its unit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    axis.set_major_locator(MaxNLocator(6))
    least = max(each.least, 1)
    if each.greatest > 4 * least:
        (axes.set_yscale if axis is axes.yaxis else axes.set_xscale)("log")
        subs = (1.0,) if each.greatest > 300 * least else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _draw_histogram(axes: Axes, each: Measurement) -> None:
    """Packets by latency; neighbouring bins together, until they can be seen."""
    bins = each.latency_bins()
    first, last = max(bins[0][0], 1), bins[-1][1]
    wide = last > 4 * first
    edges = (np.geomspace if wide else np.linspace)(first, last, _BARS + 1)
    middles = np.array([max((low + high) / 2, 1) for low, high, _ in bins])
    heights, _ = np.histogram(middles, edges, weights=[n for *_, n in bins])
    axes.stairs(heights, edges, fill=True, color=_BLUE, alpha=0.85)
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(heights.max() * 1.6, 2))
    _latency_scale(axes.xaxis, axes, each)
    for percent, style in _MARKED:
        value = each.percentile_ns(percent)
        assert value is not None
        axes.axvline(value, color=_RED, linestyle=style, linewidth=1.1,
                     label=f"p{percent:g}")  # fmt: skip
    axes.legend(**_LEGEND)
    axes.set_xlabel("latency")
    axes.set_ylabel("packets")
    axes.set_title("Packets by latency")
    axes.grid(visible=True, axis="y")


def _times(each: Measurement) -> tuple[Any, Any, float]:
    """Return slots of time, so many together that they can be seen: values, edges, width; s.

    Without the two at the ends where there are many: they are cut.
    """
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
    slots, edges, _ = _times(each)
    there = slots[:, 0] > 0
    mean = np.where(there, slots[:, 2] / np.maximum(slots[:, 0], 1), np.nan)
    most = np.where(there, slots[:, 3], np.nan)
    middle = (edges[:-1] + edges[1:]) / 2
    axes.plot(middle, most, color=_RED, linewidth=1.0, label="max", alpha=0.8)
    axes.plot(middle, mean, color=_BLUE, linewidth=1.4, label="mean")
    _latency_scale(axes.yaxis, axes, each)
    axes.set_xlim(0, edges[-1])
    axes.legend(**_LEGEND)
    axes.set_xlabel("time, s")
    axes.set_ylabel("latency")
    axes.set_title("Latency over time")
    axes.grid(visible=True)
