"""Count packets and bytes by the values of columns; core/stages/count.c does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.core._core import ffi
from xdpipe.keep import keep_with
from xdpipe.keyed_stage import KeyedStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpipe.key import Flow, Prefix


class Count(KeyedStage):
    """Count packets and bytes for each value of a column, or of several together.

    `Count("ip_proto")`, `Count(Prefix("src", bits4=24, bits6=64), "l4_dport", n=10_000)`. The first
    n keys that come are counted, each exactly; packets of further ones are counted as `no_room`.
    Where it matters which keys these are, see Top. The report has the keys with the most packets.

    Each packet is counted in one of `counted`, `no_room` and `skipped`, which are those without
    the mark. Memory is fixed: 64 bytes a key, 128 where the key has more than 40 bytes, and up to
    32 to find it by. A key without room has a chance of 1e-23 before n are there, too (key.h).

    Args:
        columns: names of columns, `Prefix` of an address, `Flow`; together up to 64 bytes. None:
            packets and bytes in all.
        only: mark of the packets to be counted; None: all.
        n: keys that there is room for, 1 to 2**24.
        shown: keys in the report at the most.

    Raises:
        XdpipeError: no such column, too long a key, or another number than those.
    """

    counters: ClassVar[tuple[str, ...]] = (
        "counted", "bytes", "no_room", "no_room_bytes", "skipped", "keys",
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_count"
    entry_type: ClassVar[str] = "struct xp_count_entry"
    fields: ClassVar[tuple[str, ...]] = ("packets", "bytes")

    def __init__(
        self,
        *columns: str | Prefix | Flow,
        only: int | None = None,
        n: int = 1024,
        shown: int = 20,
    ) -> None:
        super().__init__(columns, n if columns else 1, only, shown)

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        table = self.make_table()
        state = ffi.new(
            "struct xp_count_state *",
            {
                "counters": counters, "only": self._only, "table": table.c,
                "key": self._c_key if self.key.n_words else ffi.NULL,
            },
        )  # fmt: skip
        return keep_with(state, table.c, self._c_key)

    def report(self) -> Mapping[str, Any]:
        """Return the keys with the most packets; without columns, packets and bytes."""
        if not self.key.n_words:
            return {"packets": self.counted("counted"), "bytes": self.counted("bytes")}
        rows = self.table
        order = np.lexsort((rows["bytes"], rows["packets"]))[::-1][: self.shown]
        return {"keys": self.tell(rows[order], *self.fields)}
