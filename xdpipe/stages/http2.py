"""HTTP/2 frames into columns; core/stages/http2.c follows them, libnghttp2 decodes the fields."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.action import action
from xdpipe.batch import COLUMNS, ENUMS, TEXT
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.stage import NativeStage
from xdpipe.stages.tcp_streams import TcpStreams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdpipe.stage import Stage
    from xdpipe.verdict import Verdict

FRAME = np.dtype(
    [
        ("packet", np.uint32), ("stream", np.uint32), ("length", np.uint32), ("value", np.uint32),
        ("dir", np.uint8), ("type", np.uint8), ("flags", np.uint8), ("zero", np.uint8),
    ]
)  # fmt: skip
"""A row of Http2.frames: the number of the packet, the frame's stream (0: the connection) and
length; `value` is the error code of RST_STREAM and GOAWAY, the increment of WINDOW_UPDATE, the
stream that PUSH_PROMISE promises, else 0; dir 0: from the client; type and flags as sent."""

SETTING = np.dtype(
    [("packet", np.uint32), ("value", np.uint32), ("id", np.uint16), ("dir", np.uint8),
     ("zero", np.uint8)]
)  # fmt: skip
"""A row of Http2.settings: packet in which it ends, who said it, identifier and value."""

MESSAGE = np.dtype(
    [
        ("packet", np.uint32), ("stream", np.uint32), ("kind", np.uint8), ("dir", np.uint8),
        ("status", np.uint16), ("method", TEXT), ("path", TEXT), ("authority", TEXT),
    ]
)  # fmt: skip
"""A row of Http2.messages: packet in which the header section ends, stream, and as the columns."""

FRAME_TYPES = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
    "WINDOW_UPDATE", "CONTINUATION",
)  # fmt: skip
"""By number (RFC 9113, 6)."""

_LIBNGHTTP2 = ("libnghttp2.so.14", "libnghttp2.so")
_NS = 10**9


class Http2(NativeStage):
    """Read HTTP/2 frames and header fields of the streams that `TcpStreams` follows (RFC 9113).

    Connections of any port that begin with the client's preface are followed, frame by frame in
    both directions, wherever segments are cut: `frames` has all of a batch, `messages` the method,
    path, authority and status of each header section, `settings` what the ends said. The columns
    are about the first frame and the first header section of a packet. What contradicts itself is
    flagged (`http2_malformed`) with a reason and counted.

    Not seen: what is inside TLS, which is most of the Web's HTTP/2: this is for traffic behind what
    ends TLS, between services (gRPC), or with prior knowledge. Nor HTTP/1.1's upgrade to h2c.

    Floods are seen for each connection: streams that a client opens and resets at once
    (CVE-2023-44487), endless header sections (CVE-2024-27316), and PING, SETTINGS and PRIORITY
    (CVE-2019-9512 and others). A client that exceeds a bound is told in `http2_flood` from that
    packet on, and with a verdict given, all of its packets on that connection get it, but TCP RST.
    Where only the client's direction comes by, all of this works but for what the server says.

    Where bytes of a frame's contents are lost, the frames go on; where a frame's header is, the
    direction is given up (`given_up`), and floods in it are no longer seen. Header fields each
    depend on those before: where one section is lost, broken or too large to keep, those behind it
    are no longer told (`hpack_lost`).

    Args:
        headers: decode header fields; takes libnghttp2.
        max_resets_per_s: RST_STREAM of a client on one connection; None: no bound.
        reset_burst: so many at once, before that rate counts.
        max_control_per_s: PING, SETTINGS and PRIORITY of a client on one connection, without
            acknowledgements, and as many at once; None: no bound.
        max_continuations: CONTINUATION frames of one header section.
        max_section: bytes of one header section as sent, padding counted.
        verdict: for a client that exceeds a bound: DROP, PASS, …; None: it is only told.
        mark: the same, 0 to 2**32 - 1.
        n_decoders: directions whose header fields are decoded at once; 32 KiB each. When all are
            taken, the one used longest ago is taken away (`decoder_taken_away`).
        n_frames: of one batch that `frames` can hold, and `settings`; those beyond are counted
            (`frames_lost`, `settings_lost`).
        n_messages: of one batch that `messages` can hold (`messages_lost`). Where the batch has no
            room for their texts, these are empty (`texts_lost`).

    Memory: 176 bytes for each connection that TcpStreams can follow, 32 for each of n_frames, 40
    for each of n_messages, and the decoders. HPACK's table is followed up to 8192 bytes, which are
    more than the 4096 of most; a field is told up to some 10000 bytes.

    Raises:
        XdpipeError: a number that cannot be; libnghttp2 is not there.
    """

    requires: ClassVar[tuple[str, ...]] = ("tcp_stream", "tcp_pieces", "time_ns")
    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "Http2"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "connections", "not_http2", "frames",
        *(f"frames_{name.lower()}" for name in FRAME_TYPES), "frames_other",
        "opened", "client_resets", "server_resets", "requests", "responses", "trailers", "pushes",
        "given_up", "hpack_lost", "decoder_taken_away", "frames_lost", "settings_lost",
        "messages_lost", "texts_lost", "rapid_resets", "continuation_floods", "control_floods",
        "flood_packets", "malformed",
        *(f"malformed_{reason.lower()}" for reason in ENUMS["http2_malformed"]),
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_http2"

    def __init__(
        self,
        *,
        headers: bool = True,
        max_resets_per_s: float | None = 50.0,
        reset_burst: int = 200,
        max_control_per_s: float | None = 1000.0,
        max_continuations: int = 32,
        max_section: int = 65536,
        verdict: Verdict | None = None,
        mark: int | None = None,
        n_decoders: int = 512,
        n_frames: int = 8192,
        n_messages: int = 4096,
    ) -> None:
        for name, value, most in (
            ("reset_burst", reset_burst, 1 << 20),
            ("max_continuations", max_continuations, 1 << 20),
            ("max_section", max_section, 1 << 24),
            ("n_decoders", n_decoders, 1 << 16),
            ("n_frames", n_frames, 1 << 20),
            ("n_messages", n_messages, 1 << 20),
        ):
            if not (isinstance(value, int) and 1 <= value <= most):
                raise XdpipeError(f"Http2: {name}={value!r}: 1 to {most}")
        self._limits = {
            "resets": _limit("max_resets_per_s", max_resets_per_s, reset_burst),
            "control": _limit("max_control_per_s", max_control_per_s, None),
            "n_continuations": max_continuations, "section_len": max_section,
            "exceeded": action("Http2", verdict, mark),
        }  # fmt: skip
        self._n_decoders = n_decoders if headers else 0
        self._n_frames, self._n_messages = n_frames, n_messages
        self._n_connections = 0
        self._libnghttp2 = _libnghttp2() if headers else None
        self._http: Any = None

    def join(self, earlier: Sequence[Stage]) -> None:
        """Learn how many connections TcpStreams follows."""
        self._n_connections = sum(
            stage.n_connections for stage in earlier if isinstance(stage, TcpStreams)
        )

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function: no connection is known."""
        sizes = ffi.new(
            "struct xp_http2_sizes *",
            (self._n_connections, self._n_decoders, self._n_frames, self._n_messages),
        )[0]  # fmt: skip
        hpack = ffi.new("struct xp_hpack *")
        if self._libnghttp2 is not None:
            for name, address in self._libnghttp2.items():
                setattr(hpack, name, ffi.cast(ffi.typeof(getattr(hpack, name)), address))
        limits = ffi.new("struct xp_http2_limits *", self._limits)
        arena = ffi.new("uint8_t[]", lib.xp_http2_bytes(sizes))
        self._http = lib.xp_http2_init(arena, sizes, hpack[0], limits[0])
        state = ffi.new("struct xp_http2_state *", {"counters": counters, "http": self._http})
        self._arena = arena
        return keep_with(state, arena)

    @property
    def frames(self) -> NDArray[Any]:
        """All frames told in the batch: FRAME[k], in order; a view, valid as long as the batch."""
        return self._rows(lib.xp_http2_frames, FRAME)

    @property
    def settings(self) -> NDArray[Any]:
        """All settings of the batch: SETTING[k], in order; a view, valid as long as the batch."""
        return self._rows(lib.xp_http2_settings, SETTING)

    @property
    def messages(self) -> NDArray[Any]:
        """All header sections that ended in the batch: MESSAGE[k], in order; a view.

        Valid as long as the batch. `batch.text(http.messages["path"])` gives the texts.
        """
        return self._rows(lib.xp_http2_messages, MESSAGE)

    def _rows(self, function: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
        n = ffi.new("uint32_t *")
        rows = function(self._http, n) if self._http is not None else ffi.NULL
        view = np.frombuffer(ffi.buffer(rows, n[0] * dtype.itemsize), dtype)
        view.flags.writeable = False
        return view


def _limit(name: str, rate: float | None, burst: int | None) -> dict[str, int]:
    """Return the members of a struct xp_http2_limit; burst None: what comes in a second."""
    if rate is None:
        return {"interval_ns": 0, "tolerance_ns": 0}
    if not (isinstance(rate, int | float) and 0.001 <= rate <= _NS and math.isfinite(rate)):
        raise XdpipeError(f"Http2: {name}={rate!r}: 0.001 to {_NS} a second, or None")
    interval_ns = round(_NS / rate)
    at_once = burst or max(1, int(rate))
    return {"interval_ns": interval_ns, "tolerance_ns": interval_ns * (at_once - 1)}


def _libnghttp2() -> Mapping[str, int]:
    """Return the addresses of the functions of the library, which then stays loaded."""
    from cffi import FFI

    own = FFI()
    own.cdef(
        "int nghttp2_hd_inflate_new2(void **, void *);"
        "int nghttp2_hd_inflate_change_table_size(void *, size_t);"
        "ssize_t nghttp2_hd_inflate_hd2(void *, void *, int *, const uint8_t *, size_t, int);"
        "int nghttp2_hd_inflate_end_headers(void *);"
    )
    names = {
        "create": "new2", "change_table_size": "change_table_size", "inflate": "hd2",
        "end_headers": "end_headers",
    }  # fmt: skip
    for file in _LIBNGHTTP2:
        try:
            library = own.dlopen(file)
        except OSError:
            continue
        _LOADED.append(library)
        return {
            ours: int(own.cast("uintptr_t", own.addressof(library, f"nghttp2_hd_inflate_{theirs}")))
            for ours, theirs in names.items()
        }
    raise XdpipeError(
        "Http2: libnghttp2 is not there: apt install libnghttp2-14, or write headers=False"
    )


_LOADED: list[Any] = []
"""Libraries whose functions the core calls."""
