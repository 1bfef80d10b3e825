"""Limit the rate of packets or bytes by key; core/stages/rate_limit.c does it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from xdpipe.action import action
from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.keyed_stage import KeyedStage
from xdpipe.verdict import DROP, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpipe.key import Flow, Prefix

_NS = 10**9
_MOST = 1 << 62
"""Units in a full bucket, and a nanosecond: sums of the two fit in 64 bits."""
_FINEST = 10**6
"""Rates are whole numbers of up to so many seconds."""


class RateLimit(KeyedStage):
    """Decide or mark what exceeds a rate: a token bucket for each key (RFC 2697, with one rate).

    `RateLimit(Prefix("src", bits4=24, bits6=56), rate=100, burst=200)` drops what a network sends
    beyond 100 packets a second, after 200 at once. Without columns all packets share one bucket.

    A bucket holds `burst` tokens at first and at the most, and gets `rate` a second; a packet takes
    one, or one a byte; one that finds too few takes none and has exceeded. The numbers are whole
    and exact. Time is the column `time_ns`: where it goes back there are no tokens, and where a
    clock is put back by a second or more, time goes on from there.

    Undecided packets alone are looked at; what an earlier stage decided takes no tokens. Each
    packet is counted in one of `conforming`, `exceeded`, `no_room` and `skipped`, which are the
    decided ones and those without the mark.

    Memory is fixed: 64 bytes a key, 128 where the key has more than 24 bytes, and up to 32 to find
    it by. A key whose bucket is full again gives its place to a new one where there is no other:
    that changes nothing for it but its figures in the report. Where no such key is found among the
    next 16, the packet goes on, counted as `no_room`: who sends from made-up addresses can fill the
    table, and must not thereby have others dropped. To limit them as well, put a second RateLimit
    without columns behind.

    Args:
        columns: names of columns, `Prefix` of an address, `Flow`; together up to 64 bytes.
        rate: tokens a second, more than 0; a fraction, such as 0.5, will do.
        burst: tokens of a full bucket, at least 1. A packet of more bytes never conforms.
        unit: "packets" or "bytes" (of the packet, the column `len`).
        verdict: for packets that exceed: DROP, TX, PASS, FORWARD; None: only the mark.
        mark: for packets that exceed, 0 to 2**32 - 1.
        only: mark of the packets that are looked at; None: all.
        n_keys: keys that there is room for, 1 to 2**24.
        shown: keys in the report at the most.

    Raises:
        XdpipeError: no such column, too long a key, or another number than those; neither verdict
            nor mark.
    """

    counters: ClassVar[tuple[str, ...]] = ("conforming", "exceeded", "no_room", "skipped", "keys")
    function: ClassVar[str] = "xp_stage_rate_limit"
    entry_type: ClassVar[str] = "struct xp_rate_limit_entry"
    fields: ClassVar[tuple[str, ...]] = ("level", "time_ns", "conforming", "exceeded")

    def __init__(
        self,
        *columns: str | Prefix | Flow,
        rate: float,
        burst: int,
        unit: Literal["packets", "bytes"] = "packets",
        verdict: Verdict | None = DROP,
        mark: int | None = None,
        only: int | None = None,
        n_keys: int = 1 << 16,
        shown: int = 20,
    ) -> None:
        from fractions import Fraction  # a millisecond, which few need

        super().__init__(columns, n_keys if columns else 1, only, shown)
        if unit not in ("packets", "bytes"):
            raise XdpipeError(f"RateLimit: unit={unit!r}: 'packets' or 'bytes'")
        if verdict is None and mark is None:
            raise XdpipeError("RateLimit: nothing would happen: give verdict or mark")
        if not (isinstance(rate, int | float | Fraction) and 0 < rate < math.inf):
            raise XdpipeError(f"RateLimit: rate={rate!r}: {unit} a second, more than 0")
        if not (isinstance(burst, int) and burst >= 1):
            raise XdpipeError(f"RateLimit: burst={burst!r}: a whole number of {unit}, at least 1")
        exact = Fraction(rate).limit_denominator(_FINEST)
        token = _NS * exact.denominator
        full = burst * token
        if exact == 0 or full > _MOST or exact.numerator > _MOST:
            raise XdpipeError(
                f"RateLimit: rate={rate!r}, burst={burst!r}: too small a rate or too large a burst "
                "to be counted exactly"
            )
        self._bucket = {
            "token": token, "units_a_ns": exact.numerator, "burst": burst, "full": full,
            "full_ns": -(-full // exact.numerator), "by_bytes": unit == "bytes",
            "exceeded": action("RateLimit", verdict, mark),
        }  # fmt: skip

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        table = self.make_table()
        state = ffi.new(
            "struct xp_rate_limit_state *",
            {
                **self._bucket, "counters": counters, "only": self._only, "key": self._c_key,
                "table": table.c, "hand": 1,
            },
        )  # fmt: skip
        return keep_with(state, table.c, self._c_key)

    def report(self) -> Mapping[str, Any]:
        """Return the keys of which the most packets exceeded."""
        rows = self.table
        rows = rows[rows["exceeded"] > 0]
        order = np.argsort(rows["exceeded"], kind="stable")[::-1][: self.shown]
        return {"most_limited": self.tell(rows[order], "exceeded", "conforming")}
