"""TCP's bytes in the order of their streams; core/stages/tcp_streams.c follows the connections."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.batch import COLUMNS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from collections.abc import Mapping


class TcpStreams(NativeStage):
    """Find out for each TCP segment which of its bytes come next in their stream (RFC 9293, 3.4).

    The stages that parse what TCP carries stand behind it. Bytes that come next stay where they
    are, in the packet; those that come too early are copied and handed on with the packet that
    fills the gap before them; those that came before are left out. A gap that is not filled is
    given up and counted, and the stages behind are told how much is missing.

    Connections are followed from their SYN on, or from the first segment with data that is seen
    (`middle`). When the table is full, one that is over makes room for a new one, else the one
    seen longest ago of a few (`evicted`). Both directions must come by the same queue, as NICs do
    it with a symmetric RSS key; else one side's acknowledgements are missing, and gaps take longer.

    Nothing is verified, neither checksums nor windows: a sender who wants to be misunderstood can
    send bytes that the other end will throw away. Segments in IP fragments are left out.

    Args:
        n_connections: followed at once, 1 to 16777216; 224 bytes each.
        n_chunks: pieces of early bytes kept at once, of all connections, up to 2036 bytes each
            (2 KiB of memory); 64 of one direction at the most.
        wait_s: so long early bytes wait for those before them, while the connection goes on and the
            other end has not acknowledged them.
        idle_s: what comes after so long begins the connection anew.
    """

    requires: ClassVar[tuple[str, ...]] = (
        "flags", "l4", "payload", "payload_len", "src", "dst", "l4_sport", "l4_dport", "tcp_flags",
    )  # fmt: skip
    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "TcpStreams"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "connections", "middle", "ended", "reset", "evicted", "bytes", "again", "early", "gaps",
        "lost_bytes", "thrown_away_bytes", "outside", "fragments",
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_tcp_streams"

    def __init__(
        self,
        *,
        n_connections: int = 65536,
        n_chunks: int = 4096,
        wait_s: float = 5.0,
        idle_s: float = 600.0,
    ) -> None:
        if not (isinstance(n_connections, int) and 1 <= n_connections <= 1 << 24):
            raise XdpipeError(f"TcpStreams: n_connections={n_connections!r}: 1 to {1 << 24}")
        if not (isinstance(n_chunks, int) and 0 <= n_chunks <= 1 << 24):
            raise XdpipeError(f"TcpStreams: n_chunks={n_chunks!r}: 0 to {1 << 24}")
        for name, value in (("wait_s", wait_s), ("idle_s", idle_s)):
            if not 0 <= value < 1e9:
                raise XdpipeError(f"TcpStreams: {name}={value!r}: seconds, from 0 on")
        self.n_connections = n_connections
        self._n_chunks = n_chunks
        self._wait_ns, self._idle_ns = int(wait_s * 1e9), int(idle_s * 1e9)
        self._table: Any = None

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function: an empty table."""
        n_bytes = lib.xp_tcp_table_bytes(self.n_connections, self._n_chunks)
        arena = ffi.new("uint8_t[]", n_bytes)
        secret = [int.from_bytes(os.urandom(8), "little") for _ in range(2)]
        self._table = lib.xp_tcp_table_init(
            arena, self.n_connections, self._n_chunks, self._wait_ns, self._idle_ns, *secret
        )
        return keep_with(
            ffi.new("struct xp_tcp_streams_state *", {"counters": counters, "table": self._table}),
            arena,
        )

    def report(self) -> Mapping[str, Any]:
        """Return how many connections the table holds, and how many chunks are in use."""
        if self._table is None:
            return {}
        return {
            "connections_held": lib.xp_tcp_n_connections(self._table),
            "chunks_held": lib.xp_tcp_n_held(self._table),
        }
