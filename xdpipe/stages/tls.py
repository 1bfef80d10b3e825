"""TLS records and hellos into columns; core/stages/tls.c follows them, tls_hello.c parses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.batch import COLUMNS, ENUMS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.stage import NativeStage
from xdpipe.stages.tcp_streams import TcpStreams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.stage import Stage

_LIBCRYPTO = ("libcrypto.so.3", "libcrypto.so")


class Tls(NativeStage):
    """Read TLS records, hellos and alerts of the streams that `TcpStreams` follows.

    Streams of any port that begin with a TLS record (RFC 8446, 5.1) are followed, record by record,
    wherever segments are cut. ClientHello: versions, server name, ALPN, cipher suites, extensions,
    and the client's fingerprint JA4 (FoxIO). ServerHello: version, cipher suite, ALPN where it is
    in the clear. The columns about a hello are those of the packet in which it ends.

    What contradicts itself is flagged (`tls_malformed`) with a reason and counted; nothing is
    dropped. Texts that the batch has no room for are empty (`texts_lost`). Not read: what is
    encrypted, Encrypted Client Hello's inside, DTLS, QUIC.

    Args:
        ja4: make fingerprints; takes OpenSSL's libcrypto, which Python's hashlib takes as well.
        n_buffers: hellos that come in several segments, at once; 16 KiB each. When all are taken,
            the one begun longest ago is given up.

    Memory: 40 bytes for each direction that TcpStreams can follow, and the buffers.

    Raises:
        XdpipeError: n_buffers is no number from 1 to 65536; libcrypto is not there.
    """

    requires: ClassVar[tuple[str, ...]] = ("tcp_stream", "tcp_pieces")
    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "Tls"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "streams", "not_tls", "records", "client_hellos", "server_hellos", "retries", "alerts",
        "put_together", "given_up", "buffer_taken_away", "no_ja4", "texts_lost",
        "malformed",
        *(f"malformed_{reason.lower()}" for reason in ENUMS["tls_malformed"]),
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_tls"

    def __init__(self, *, ja4: bool = True, n_buffers: int = 256) -> None:
        if not (isinstance(n_buffers, int) and 1 <= n_buffers <= 65536):
            raise XdpipeError(f"Tls: n_buffers={n_buffers!r}: 1 to 65536")
        self._n_buffers = n_buffers
        self._n_connections = 0
        self._libcrypto = _libcrypto() if ja4 else None

    def join(self, earlier: Sequence[Stage]) -> None:
        """Learn how many connections TcpStreams follows."""
        self._n_connections = sum(
            stage.n_connections for stage in earlier if isinstance(stage, TcpStreams)
        )

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function: no direction is known."""
        arena = ffi.new("uint8_t[]", lib.xp_tls_bytes(self._n_connections, self._n_buffers))
        sha256 = ffi.new("struct xp_sha256 *")
        if self._libcrypto is not None:
            for name in ("init", "update", "final"):
                function = getattr(self._libcrypto, f"SHA256_{name.capitalize()}")
                setattr(sha256, name, ffi.cast(ffi.typeof(getattr(sha256, name)), function))
        secret = int.from_bytes(os.urandom(8), "little")
        tls = lib.xp_tls_init(arena, self._n_connections, self._n_buffers, sha256[0], secret)
        return keep_with(
            ffi.new("struct xp_tls_state *", {"counters": counters, "tls": tls}),
            arena,
            self._libcrypto,
        )


def _libcrypto() -> Any:
    from cffi import FFI

    own = FFI()
    own.cdef(
        "int SHA256_Init(void *); int SHA256_Update(void *, const void *, size_t);"
        "int SHA256_Final(unsigned char *, void *);"
    )
    for name in _LIBCRYPTO:
        try:
            return _Functions(own.dlopen(name), own)
        except OSError:
            continue
    raise XdpipeError("Tls: OpenSSL's libcrypto is not there: install libssl3, or write ja4=False")


class _Functions:
    """The addresses of functions of a library, which stays loaded as long as this is held."""

    def __init__(self, library: Any, own: Any) -> None:
        self._library, self._own = library, own

    def __getattr__(self, name: str) -> Any:
        address = self._own.cast("uintptr_t", self._own.addressof(self._library, name))
        return ffi.cast("void *", int(address))
