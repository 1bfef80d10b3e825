"""Write batches to a capture file: pcap with nanoseconds, as fast as they are copied."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from xdpipe.batch import Batch

_BUFFER = 1 << 20
STDOUT = "-"


class BatchWriter:
    """A pcap file that whole batches are written to.

    Attributes:
        path: of the file, which is made anew; `-` is standard output.
        n_packets: written so far; the last ones may still be buffered.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the file.

        Raises:
            XdpipeError: no such directory, no permission; standard output is a terminal.
        """
        self.path = os.fspath(path)
        self.n_packets = 0
        self._fd = -1
        try:
            if self.path == STDOUT:
                if sys.stdout.isatty():
                    raise XdpipeError("-w -: standard output is a terminal; say a file, or pipe it")
                self._fd = os.dup(1)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise XdpipeError(f"{self.path}: {error.strerror}") from error
        self._buffer = bytearray(_BUFFER)
        self._c = ffi.new("struct xp_capture_writer *")
        self._c.fd = self._fd
        self._c.buffer = ffi.from_buffer("uint8_t[]", self._buffer)
        self._c.size = _BUFFER
        lib.xp_capture_begin(self._c)

    def write(self, batch: Batch, where: NDArray[np.bool_] | None = None) -> int:
        """Write the packets of a batch; return how many.

        Args:
            batch: whose `time_ns` are nanoseconds since 1970; the format ends in 2106.
            where: bool[n], which packets; None: all.

        Raises:
            XdpipeError: the disk is full, or nobody reads the pipe any more.
        """
        mask: Any = ffi.NULL
        if where is not None:
            mask = ffi.from_buffer("uint8_t[]", np.ascontiguousarray(where, np.bool_))
        n = int(lib.xp_capture_write(self._c, batch.c, mask))
        if n < 0:
            raise self._failed(-n)
        self.n_packets += n
        return n

    def close(self) -> None:
        """Write out what is buffered and close the file. May be called twice.

        Raises:
            XdpipeError: not all could be written.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        error = -int(lib.xp_capture_flush(self._c))
        try:
            os.close(fd)
        except OSError as failed:
            error = error or failed.errno or 0
        if error:
            raise self._failed(error)

    def _failed(self, error: int) -> XdpipeError:
        name = "standard output" if self.path == STDOUT else self.path
        return XdpipeError(
            f"{name}: {os.strerror(error)}, after {self.n_packets:,} packets at most"
        )

    def abandon(self) -> None:
        """Close it without writing what is buffered."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()
