"""Find the keys with the most packets or bytes; core/stages/top.c does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.key_table import Memory
from xdpipe.keyed_stage import KeyedStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from xdpipe.key import Flow, Prefix

_ROOT, _CHILDREN = 3, 4


class Top(KeyedStage):
    """Find the keys with the most packets, or bytes, among any number of keys.

    `Top("src")`, `Top(Flow(), by="bytes")`. It keeps n keys by space-saving (Metwally, Agrawal, El
    Abbadi 2005): a key that is not among them takes the place of the least. So of each key that is
    in the report, `count` may be too high, by `error` at the most: count - error ≤ true ≤ count.
    With N packets (or bytes) in all, every key that has more than N / n of them is there, and
    `error` is N / n at the most. `packets` and `bytes` beside it are those since it came in, which
    it surely had. For exact numbers of few keys see Count.

    Each packet is counted in one of `counted`, `skipped`, which are those without the mark, and
    `no_room`, which has a chance of 1e-23 (key.h). Memory is fixed: 84 bytes a key, 148 where the
    key has more than 32 bytes, and up to 32 to find it by.

    Args:
        columns: names of columns, `Prefix` of an address, `Flow`; together up to 64 bytes.
        n: keys that are kept, 1 to 2**24. The more, the more exact; ten times as many as are shown
            is a good number.
        by: "packets" or "bytes".
        only: mark of the packets to be counted; None: all.
        shown: keys in the report at the most.

    Raises:
        XdpipeError: no such column, none at all, too long a key, or something else than those.
    """

    counters: ClassVar[tuple[str, ...]] = (
        "counted", "bytes", "no_room", "skipped", "keys", "replaced",
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_top"
    entry_type: ClassVar[str] = "struct xp_top_entry"
    fields: ClassVar[tuple[str, ...]] = ("error", "packets", "bytes")

    def __init__(
        self,
        *columns: str | Prefix | Flow,
        n: int = 100,
        by: Literal["packets", "bytes"] = "packets",
        only: int | None = None,
        shown: int = 20,
    ) -> None:
        if not columns:
            raise XdpipeError("Top: name at least one column")
        if by not in ("packets", "bytes"):
            raise XdpipeError(f"Top: by={by!r}: 'packets' or 'bytes'")
        super().__init__(columns, n, only, shown)
        self._by_bytes = by == "bytes"

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        table = self.make_table()
        self._heap = Memory(16 * (_ROOT + self.n_keys + _CHILDREN - 1))
        self._heap.bytes.view(np.uint64)[::2] = ~np.uint64(0)
        self._places = Memory(4 * (self.n_keys + 1))
        state = ffi.new(
            "struct xp_top_state *",
            {
                "counters": counters, "only": self._only, "key": self._c_key, "table": table.c,
                "heap": ffi.cast("struct xp_top_place *", self._heap.c),
                "places": ffi.cast("uint32_t *", self._places.c), "by_bytes": self._by_bytes,
            },
        )  # fmt: skip
        return keep_with(state, table.c, self._c_key, self._heap, self._places)

    @property
    def counts(self) -> NDArray[np.uint64]:
        """The count of each row of `table`, a copy."""
        n_used = len(self.table)
        places = self._places.bytes.view(np.uint32)[1 : n_used + 1]
        counts: NDArray[np.uint64] = self._heap.bytes.view(np.uint64)[::2][places]
        return counts

    def report(self) -> Mapping[str, Any]:
        """Return the keys with the highest counts, and the total that they are part of."""
        counts = self.counts
        order = np.argsort(counts, kind="stable")[::-1][: self.shown]
        total = self.counted("bytes" if self._by_bytes else "counted")
        return {
            "total": total,
            "none_missing_above": total // self.n_keys,
            "keys": self.tell(self.table[order], *self.fields, count=counts[order]),
        }
