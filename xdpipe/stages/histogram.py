"""Count how often which values of a column come; core/stages/histogram.c does it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.action import only as only_mark
from xdpipe.batch import COLUMNS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.log_bins import first_of, percentile
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUB_BITS: int = lib.XP_HISTOGRAM_SUB_BITS
_N_BINS: int = lib.XP_HISTOGRAM_BINS
_MOST_EDGES = 1 << 10
_KINDS = {
    "uint8": lib.XP_HISTOGRAM_U8, "uint16": lib.XP_HISTOGRAM_U16, "uint32": lib.XP_HISTOGRAM_U32,
    "uint64": lib.XP_HISTOGRAM_U64, "int32": lib.XP_HISTOGRAM_I32,
}  # fmt: skip
_PERCENTILES = (50, 90, 99, 99.9)


class Histogram(NativeStage):
    """Count the values of a column of numbers in bins.

    `Histogram("len", bins=[0, 64, 128, 256, 512, 1024, 1519])`: a bin from each edge up to the next
    one, which is not in it; values below the first edge are counted as `under`, from the last one
    on as `over`.

    `Histogram("len")`: bins for all values that there are, as HdrHistogram has them: each value
    below 64 has its own, and above each power of two is parted into 32. The report has percentiles
    then: values that at least so many of a hundred packets do not exceed, off by 1/64 (1.6 %) of
    the true one at the most, and exact below 64.

    Each packet is counted in one of `counted`, `under`, `over`, `absent` (an offset of what is not
    there, a number below 0) and `skipped` (without the mark). Least, greatest and mean are exact,
    and of all values but the absent ones. Memory is fixed: 8 bytes a bin and up to 16 an edge;
    without edges there are 1920 bins.

    Args:
        column: with one number per packet.
        bins: edges, rising, from 0 on; 2 to 1024 of them. None: as above.
        only: mark of the packets to be counted; None: all.

    Raises:
        XdpipeError: no such column, or no such edges.
    """

    counters: ClassVar[tuple[str, ...]] = ("counted", "under", "over", "absent", "skipped")
    function: ClassVar[str] = "xp_stage_histogram"

    def __init__(
        self, column: str, *, bins: Sequence[int] | None = None, only: int | None = None
    ) -> None:
        self._only = only_mark("Histogram", only)
        found = COLUMNS.get(column)
        if found is None:
            raise XdpipeError(f"Histogram: there is no column {column!r}")
        if found.dtype.name not in _KINDS or found.width > 1:
            raise XdpipeError(f"Histogram: {column} is no column with one number per packet")
        if bins is not None:
            _check_edges(bins)
        self._column = found
        self._edges = None if bins is None else np.array(bins, np.uint64)
        self._bins = np.zeros(_N_BINS if bins is None else len(bins) - 1, np.uint64)
        self.requires = (column,)  # type: ignore[misc] # said to each of its instances

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        c_edges, n_edges, n_steps = ffi.NULL, 0, 0
        if self._edges is not None:
            n_edges = len(self._edges)
            n_steps = (n_edges - 1).bit_length()
            edges = np.full(1 << n_steps, ~np.uint64(0))
            edges[:n_edges] = self._edges
            c_edges = ffi.from_buffer("uint64_t[]", edges)
        self._bins = np.zeros_like(self._bins)
        c_bins = ffi.from_buffer("uint64_t[]", self._bins)
        state = ffi.new(
            "struct xp_histogram_state *",
            {
                "counters": counters, "only": self._only, "column": self._column.index,
                "kind": _KINDS[self._column.dtype.name], "edges": c_edges, "n_edges": n_edges,
                "n_steps": n_steps, "bins": c_bins, "least": (1 << 64) - 1,
            },
        )  # fmt: skip
        return keep_with(state, c_edges, c_bins)

    @property
    def bins(self) -> list[tuple[int, int, int]]:
        """The bins: the first value of each, the first one behind it, packets."""
        if self._edges is None:
            edges = [first_of(k, _SUB_BITS) for k in range(_N_BINS + 1)]
        else:
            edges = self._edges.tolist()
        pairs = itertools.pairwise(edges)
        return [(*pair, n) for pair, n in zip(pairs, self._bins.tolist(), strict=True)]

    def percentile(self, percent: float) -> float | None:
        """Return the value that `percent` of a hundred packets do not exceed; see above.

        None: there are no packets, or the edges are one's own.
        """
        if self._edges is not None:
            return None
        least, greatest = int(self.state.least), int(self.state.greatest)
        return percentile(self._bins, _SUB_BITS, percent, least, greatest)

    def report(self) -> Mapping[str, Any]:
        """Return least, greatest, mean, percentiles, and the bins that are not empty.

        Without edges of one's own it is a bin for each power of two; `bins` has them all.
        """
        n = sum(self.counted(name) for name in ("counted", "under", "over"))
        if not n:
            return {}
        state = self.state
        return {
            "least": state.least,
            "greatest": state.greatest,
            "mean": round((state.sum_high << 64 | state.sum_low) / n, 3),
            **{f"p{p}": value for p in _PERCENTILES if (value := self.percentile(p)) is not None},
            "bins": [
                {"from": first, "below": behind, "packets": n_packets}
                for first, behind, n_packets in self._coarse_bins()
                if n_packets
            ],
        }

    def _coarse_bins(self) -> list[tuple[int, int, int]]:
        if self._edges is not None:
            return self.bins
        n_packets = self._bins.reshape(-1, 1 << _SUB_BITS).sum(axis=1).tolist()
        edges = [first_of(k << _SUB_BITS, _SUB_BITS) for k in range(len(n_packets) + 1)]
        return [(*pair, n) for pair, n in zip(itertools.pairwise(edges), n_packets, strict=True)]


def _check_edges(edges: Any) -> None:
    if not (
        isinstance(edges, Sequence | np.ndarray)
        and 2 <= len(edges) <= _MOST_EDGES
        and all(isinstance(edge, int | np.integer) for edge in edges)
        and all(a < b for a, b in itertools.pairwise(edges))
        and edges[0] >= 0
        and edges[-1] < 1 << 64
    ):
        raise XdpipeError(
            f"Histogram: bins={edges!r}: 2 to {_MOST_EDGES} edges, rising whole numbers from 0 on"
        )
