"""What a stage Record declares, for all processes that have to do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from xdpipe.tap import TapOrder


@dataclass(frozen=True)
class Recording:
    """A rotating capture.

    Attributes:
        directory: where the files are made; absolute.
        file_bytes: a file has no more; of one that is compressed somewhat more or less.
        file_s: seconds after which the next one is begun; None: no limit.
        n_files: of each queue, kept at the most; the oldest is removed for a new one. None: all.
        zstd: compress.
        ring_bytes: of copies that may wait to be written, of each queue.
        order: which packets, and what of them.
    """

    directory: str
    file_bytes: int
    file_s: float | None
    n_files: int | None
    zstd: bool
    ring_bytes: int
    order: TapOrder

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {**asdict(self), "order": self.order.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recording:
        """Undo to_dict."""
        return cls(**{**data, "order": TapOrder.from_dict(data["order"])})
