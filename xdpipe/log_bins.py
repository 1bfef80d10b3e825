"""Bins as HdrHistogram has them: as wide as their values are large (xp_log_bin in the core).

With s bits, values below 2 ** (s + 1) have a bin each, and each power of two above is parted into
2 ** s bins of equal width: the middle of a bin is off by 2 ** -(s + 1) of the true value at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def n_bins(value_bits: int, sub_bits: int) -> int:
    """Return how many bins hold the values below 2 ** value_bits."""
    return (value_bits - sub_bits + 1) << sub_bits


def first_of(index: int, sub_bits: int) -> int:
    """Return the least value of a bin: what xp_log_bin maps to it."""
    shift = max(0, (index >> sub_bits) - 1)
    return (index - (shift << sub_bits)) << shift


def percentile(
    bins: NDArray[np.uint64], sub_bits: int, percent: float, least: int, greatest: int
) -> float | None:
    """Return the value that `percent` of a hundred values do not exceed; None: there are none.

    Args:
        bins: how many values are in each.
        sub_bits: see above.
        percent: 0 to 100.
        least: the least value that there is.
        greatest: the greatest.
    """
    n_counted = int(bins.sum())
    if not n_counted:
        return None
    wanted = max(1, -(-n_counted * percent // 100))
    index = int(np.searchsorted(np.cumsum(bins), wanted))
    first = max(first_of(index, sub_bits), least)
    last = min(first_of(index + 1, sub_bits) - 1, greatest)
    return first if first == last else (first + last) / 2
