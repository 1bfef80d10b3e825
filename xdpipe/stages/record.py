"""Keep a capture of what comes by; core/tap.c copies, the recorder's process writes."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.block_ring import ring_size
from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.pcapng import MAX_SNAPLEN
from xdpipe.recording import Recording
from xdpipe.stage import NativeStage
from xdpipe.tap import Tap, TapOrder, verdict_bits
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpipe.block_ring import BlockRing
    from xdpipe.stage import ServedQueue

_MIB = 1 << 20


class Record(NativeStage):
    """Write packets into capture files (pcapng), as they are at this place in the chain.

    Each queue has files of its own, `PIPELINE-DEV-Record-qQUEUE-TIME-NUMBER.pcapng`;
    Wireshark's mergecap makes one of them. A process off the workers' cores writes them, as the
    same user as the workers (`--user`); a directory that is not there is made, and given to that
    user. The worker waits for nobody: packets that find no room are `lost` for the capture, and go
    on as all others.

    A worker or the recorder may be killed at any moment; what was copied is written, once.
    `xdpipe check` writes no files.

    Args:
        directory: where the files are made; relative to where `xdpipe run` is started.
        file_mib: MiB (2**20 bytes) of a file at the most, at least 1.
        file_s: begin the next file after so many seconds; None: only when one is full.
        n_files: of each queue, keep so many, those of earlier runs counted, and remove the oldest
            one; None: keep all.
        snaplen: bytes of each packet at the most, 1 to 262144.
        filter: record packets that this tcpdump filter takes; empty: all. It looks into a packet's
            first frame.
        verdict: record packets that earlier stages have given this verdict; None: all.
        comments: write the verdict so far, and the queue, beside each packet; some 40 bytes each.
        zstd: compress the files (.pcapng.zst), which Wireshark and `zstd -d` read; takes the
            package zstandard.
        buffer_mib: MiB of copies that may wait for the disk, of each queue; rounded up to a power
            of two.

    Raises:
        XdpipeError: a limit that cannot be, or what it takes is not installed.
    """

    counters: ClassVar[tuple[str, ...]] = ("recorded", "lost")
    function: ClassVar[str] = "xp_stage_record"
    recording: Recording

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        file_mib: float = 1024,
        file_s: float | None = None,
        n_files: int | None = None,
        snaplen: int = MAX_SNAPLEN,
        filter: str = "",
        verdict: Verdict | None = None,
        comments: bool = False,
        zstd: bool = False,
        buffer_mib: int = 64,
    ) -> None:
        self._tap: Tap | None = None
        if not 1 <= file_mib < math.inf:
            raise XdpipeError(f"Record: file_mib={file_mib!r}: at least 1")
        if file_s is not None and not 0 < file_s < math.inf:
            raise XdpipeError(f"Record: file_s={file_s!r}: seconds, more than 0, or None")
        if n_files is not None and not (isinstance(n_files, int) and n_files >= 1):
            raise XdpipeError(f"Record: n_files={n_files!r}: a whole number from 1 on, or None")
        if not (isinstance(snaplen, int) and 1 <= snaplen <= MAX_SNAPLEN):
            raise XdpipeError(f"Record: snaplen={snaplen!r}: 1 to {MAX_SNAPLEN} bytes")
        if not (isinstance(buffer_mib, int) and 1 <= buffer_mib <= 1 << 16):
            raise XdpipeError(f"Record: buffer_mib={buffer_mib!r}: 1 to 65536")
        if zstd and find_spec("zstandard") is None:
            raise XdpipeError("Record: zstd=True takes a package: pip install 'xdpipe[zstd]'")
        program: tuple[tuple[int, int, int, int], ...] = ()
        if filter:
            from xdpipe.filter import Filter  # libpcap, which few need

            program = Filter(filter).program
        order = TapOrder(1, verdict_bits(verdict), snaplen, program, told=comments)
        self.recording = Recording(
            os.path.abspath(directory), int(file_mib * _MIB), file_s, n_files,
            ring_size(buffer_mib * _MIB), zstd, order,
        )  # fmt: skip

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        tap = ffi.NULL if self._tap is None else self._tap.c
        return ffi.new("struct xp_record_state *", {"counters": counters, "tap": tap})

    def serve(self, ring: BlockRing | None, fds: list[int], queue: ServedQueue) -> None:
        """Have it copy to this ring once it is bound; see NativeStage.serve."""
        if ring is not None:
            self._tap = Tap(self.recording.order, ring, *queue)

    def report(self) -> Mapping[str, Any]:
        """Return what to know of it where it does not write."""
        return {} if self._tap else {"recording": "nothing is written"}
