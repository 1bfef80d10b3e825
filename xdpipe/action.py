"""What stages give to packets, a verdict and a mark, and which packets they look at by their mark.

A mark is a number that a packet carries along the chain, in the column `mark`: 0 at first, set by
one stage and looked for by others, as that of nftables is.
"""

from __future__ import annotations

from typing import Any

from xdpipe.errors import XdpipeError
from xdpipe.verdict import Verdict

_MARKS = 1 << 32


def action(stage: str, verdict: Verdict | None, mark: int | None = None) -> dict[str, int]:
    """Return the members of a struct xp_action; that of (None, None) does nothing.

    Args:
        stage: its name, for messages.
        verdict: for undecided packets; None: none.
        mark: for all packets; None: none.

    Raises:
        XdpipeError: that is no verdict, or no mark.
    """
    if verdict is not None and not (isinstance(verdict, Verdict) and verdict):
        raise XdpipeError(f"{stage}: {verdict!r} is no verdict: DROP, TX, PASS, FORWARD or None")
    if mark is not None:
        _require_mark(stage, "mark", mark)
    return {"verdict": verdict or 0, "mark": mark or 0, "sets_mark": mark is not None}


def only(stage: str, mark: int | None) -> dict[str, int]:
    """Return the members of a struct xp_only: packets of this mark; None: all.

    Raises:
        XdpipeError: that is no mark.
    """
    if mark is not None:
        _require_mark(stage, "only", mark)
    return {"mark": mark or 0, "all": mark is None}


def _require_mark(stage: str, name: str, mark: Any) -> None:
    if not (isinstance(mark, int) and 0 <= mark < _MARKS):
        raise XdpipeError(f"{stage}: {name}={mark!r}: a mark is a number from 0 to 2**32 - 1")
