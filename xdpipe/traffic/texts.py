"""Times, shares and what a search found, as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpipe.traffic.rate_search import RateSearch

_UNITS = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))


def duration(ns: float | None) -> str:
    """Return a latency in the unit that fits, to four digits: `12.35 µs`."""
    if ns is None:
        return "none"
    unit, size = next((each for each in _UNITS if ns >= each[1]), _UNITS[-1])
    value = ns / size
    return f"{value:,.0f} {unit}" if value >= 1000 or unit == "ns" else f"{value:.4g} {unit}"


def share(part: int, whole: int) -> str:
    """Return a share as a person reads it: `0.25 %`, `3 in 10,000,000`."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.3g} %" if percent >= 0.001 else f"{part:,} in {whole:,}"


_ENDS = {
    "loss": "at more, more is lost", "range": "the highest that was to be tried",
    "sender": "the sender goes no faster: the link may carry more",
}  # fmt: skip


def search_summary(search: RateSearch) -> str:
    """Return what was found in a line."""
    loss = "without loss"
    if search.acceptable_loss:
        loss = f"with no more than {100 * search.acceptable_loss:.3g} % lost"
    if search.pps is None:
        failed = search.failed_pps
        return f"no rate {loss}" + (f"; not {failed:,.0f} packets/s" if failed else "")
    return f"{search.pps:,.0f} packets/s {loss}; {_ENDS[search.limited_by]}"
