"""Write a capture's packets, as the edits left them, to another capture file."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError
from xdpipe.traffic.capture_writer import BatchWriter
from xdpipe.verdict import DROP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdpipe.traffic.capture_source import CaptureSource


@dataclass
class EditedCopy:
    """What became of the packets: read + added = left out, all reasons together + written.

    Attributes:
        read: packets of the capture.
        added: packets that the user's function returned beyond one for each.
        left_out: by reason.
        written: to the new file.
        truncated: where and why the capture ended early, or None.
        interrupted: it was ended before the last packet.
    """

    read: int = 0
    added: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    written: int = 0
    truncated: str | None = None
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


def require_another(capture: str | Path, path: str | Path) -> None:
    """Refuse to write over the capture that is read.

    Raises:
        XdpipeError: both are the same file.
    """
    if os.path.exists(capture) and os.path.exists(path) and os.path.samefile(capture, path):
        raise XdpipeError(f"-w {path}: that is the capture itself; name another file")


def write_copy(
    source: CaptureSource,
    path: str | Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda n: None,
) -> EditedCopy:
    """Write the packets of a source, their times those that it gives, to a pcap file.

    Args:
        source: of the packets.
        path: of the file, which is made anew; `-` is standard output.
        stop: asked after each batch whether to end.
        progress: told after each batch how many packets were written.

    Raises:
        XdpipeError: it cannot be written, or not whole.
    """
    result = EditedCopy()
    with BatchWriter(path) as writer:
        for batch in source:
            writer.write(batch, batch.verdict != DROP)
            progress(writer.n_packets)
            if stop():
                result.interrupted = True
                break
        result.written = writer.n_packets
    result.read, result.added, result.left_out = source.read, source.added, source.left_out
    result.truncated = source.truncated
    return result
