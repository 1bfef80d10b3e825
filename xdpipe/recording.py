"""What stages that write files declare, for all processes that have to do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from xdpipe.tap import TapOrder


@dataclass(frozen=True)
class Files:
    """Files that one queue's stage has written, one after the other.

    Attributes:
        directory: where the files are made; absolute.
        file_bytes: a file has no more; of one that is compressed somewhat more or less.
        file_s: seconds after which the next one is begun; None: no limit.
        n_files: of each queue, kept at the most; the oldest is removed for a new one. None: all.
        ring_bytes: of what may wait to be written, of each queue.
    """

    directory: str
    file_bytes: int
    file_s: float | None
    n_files: int | None
    ring_bytes: int

    kind: ClassVar[str]
    """What is written; one process writes all of a kind."""

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON gives back the same; from_dict undoes it."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Recording(Files):
    """A rotating capture, of a stage Record.

    Attributes:
        zstd: compress.
        order: which packets, and what of them.
    """

    zstd: bool
    order: TapOrder

    kind: ClassVar[str] = "capture"

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON gives back the same."""
        return {**super().to_dict(), "order": self.order.to_dict()}


@dataclass(frozen=True)
class FlowOptions:
    """How flows are told apart, when they end, and how many there may be; see FlowMeter.

    Attributes:
        n_flows: at the most at once, of each queue.
        idle_ns: a flow without packets for so long is over.
        active_ns: one that goes on for so long is told, and counted anew.
        linger_ns: how long one that TCP has ended stays; 0: TCP ends none.
        labels: columns of texts.
        label_bytes: of each, kept at the most.
        by_vlan: the outer VLAN id tells flows apart.
        evict: where there is no room, one that has been quiet for long goes.
    """

    n_flows: int
    idle_ns: int
    active_ns: int
    linger_ns: int
    labels: tuple[str, ...]
    label_bytes: int
    by_vlan: bool
    evict: bool


@dataclass(frozen=True)
class FlowRecording(Files):
    """Records of flows, of a stage FlowMeter.

    Attributes:
        format: ndjson, csv or parquet.
        stem: what names of files begin with; empty: the pipeline's, the interface's and the
            stage's.
        options: of the flows.
    """

    format: str
    stem: str
    options: FlowOptions

    kind: ClassVar[str] = "flows"

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON gives back the same."""
        data = super().to_dict()
        return {**data, "options": {**data["options"], "labels": list(self.options.labels)}}


def from_dict(data: dict[str, Any]) -> Recording | FlowRecording:
    """Undo to_dict."""
    fields = {name: value for name, value in data.items() if name != "kind"}
    if data["kind"] == Recording.kind:
        return Recording(**{**fields, "order": TapOrder.from_dict(data["order"])})
    options = {**data["options"], "labels": tuple(data["options"]["labels"])}
    return FlowRecording(**{**fields, "options": FlowOptions(**options)})
