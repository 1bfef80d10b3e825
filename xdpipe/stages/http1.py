"""HTTP/1 messages into columns; core/stages/http1.c finds them, http1_head.c reads their heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.batch import COLUMNS, ENUMS, TEXT
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.stage import NativeStage
from xdpipe.stages.tcp_streams import TcpStreams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xdpipe.stage import Stage

MESSAGE = np.dtype(
    [
        ("packet", np.uint32), ("kind", np.uint8), ("version", np.uint8), ("status", np.uint16),
        ("content_length", np.int64), ("method", TEXT), ("target", TEXT), ("host", TEXT),
    ]
)  # fmt: skip
"""A row of Http1.messages: the number of the packet, and what the columns http_… are."""


class Http1(NativeStage):
    """Read HTTP/1 requests and responses of the streams that `TcpStreams` follows (RFC 9112).

    Streams of any port that begin with a start line are followed, message by message, wherever
    segments are cut and however many requests are sent at once: method, target, Host, status,
    Content-Length. Bodies are counted off and not read. The columns are about the first message
    whose header section ends in a packet; `messages` has all.

    What contradicts itself (two lengths, a folded field, …), as in request smuggling, is flagged
    (`http_malformed`) with a reason and counted, and the direction is read no further; nothing is
    dropped. Not read: what follows CONNECT or an upgrade; HTTP/2.

    Args:
        n_buffers: header sections that come in several segments, at once; 16 KiB each. When all
            are taken, the one begun longest ago is given up.
        n_messages: of one batch that `messages` can hold; those beyond are counted
            (`messages_lost`), and still seen in the columns. Texts that the batch has no room for,
            and Hosts of more than 255 bytes, are empty (`texts_lost`).

    Memory: 80 bytes for each connection that TcpStreams can follow, 40 for each of n_messages, and
    the buffers.

    Raises:
        XdpipeError: a number that cannot be.
    """

    requires: ClassVar[tuple[str, ...]] = ("tcp_stream", "tcp_pieces")
    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "Http1"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "requests", "responses", "not_http", "put_together", "given_up", "buffer_taken_away",
        "messages_lost", "texts_lost", "malformed",
        *(f"malformed_{reason.lower()}" for reason in ENUMS["http_malformed"]),
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_http1"

    def __init__(self, *, n_buffers: int = 256, n_messages: int = 4096) -> None:
        for name, value in (("n_buffers", n_buffers), ("n_messages", n_messages)):
            if not (isinstance(value, int) and 1 <= value <= 1 << 20):
                raise XdpipeError(f"Http1: {name}={value!r}: 1 to {1 << 20}")
        self._n_buffers, self._n_messages = n_buffers, n_messages
        self._n_connections = 0
        self._http: Any = None

    def join(self, earlier: Sequence[Stage]) -> None:
        """Learn how many connections TcpStreams follows."""
        self._n_connections = sum(
            stage.n_connections for stage in earlier if isinstance(stage, TcpStreams)
        )

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function: no direction is known."""
        sizes = self._n_connections, self._n_buffers, self._n_messages
        arena = ffi.new("uint8_t[]", lib.xp_http1_bytes(*sizes))
        self._http = lib.xp_http1_init(arena, *sizes)
        return keep_with(
            ffi.new("struct xp_http1_state *", {"counters": counters, "http": self._http}), arena
        )

    @property
    def messages(self) -> NDArray[Any]:
        """All messages whose header sections ended in the batch: MESSAGE[k], in order; a view.

        Valid as long as the batch. `batch.text(http.messages["host"])` gives the texts.
        """
        n = ffi.new("uint32_t *")
        messages = lib.xp_http1_messages(self._http, n) if self._http is not None else ffi.NULL
        view = np.frombuffer(ffi.buffer(messages, n[0] * MESSAGE.itemsize), MESSAGE)
        view.flags.writeable = False
        return view
