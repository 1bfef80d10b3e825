"""What is told of stages across process borders, where neither they nor numpy need be loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xdpipe.recording import FlowRecording, Recording, from_dict
from xdpipe.stage import (
    BUDGET_US,
    ERRORS,
    MAX_NS,
    NO_BUDGET_NS,
    NS,
    OVER_BUDGET,
    OWN,
    PACKETS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class StageInfo:
    """What others need to know of a stage to read its counts."""

    name: str
    kind: str
    """native, jit, c, array or packet."""
    counters: tuple[str, ...]
    recording: Recording | FlowRecording | None = None
    """Of a stage that has files written: what it declares."""
    budget_us: float = BUDGET_US
    """How long it may take for a batch; math.inf: as long as it takes."""

    @property
    def budget_ns(self) -> int:
        """The budget as the core has it."""
        ns = self.budget_us * 1000
        return int(ns) if ns < NO_BUDGET_NS else NO_BUDGET_NS

    @property
    def native(self) -> bool:
        """Whether it runs within a C call, without Python."""
        return self.kind in ("native", "jit", "c")

    @property
    def n_counts(self) -> int:
        """How many uint64 its counts take."""
        return OWN + len(self.counters)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON gives back the same."""
        recording = self.recording.to_dict() if self.recording is not None else None
        return {**asdict(self), "counters": list(self.counters), "recording": recording}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StageInfo:
        """Undo to_dict."""
        recording = data["recording"] and from_dict(data["recording"])
        return cls(**{**data, "counters": tuple(data["counters"]), "recording": recording})


def read_counts(infos: Sequence[StageInfo], memory: memoryview) -> list[dict[str, Any]]:
    """Read the stages' counts from where they are kept: uint64, stage behind stage."""
    result = []
    at = 0
    for info in infos:
        counts = memory[at : at + info.n_counts]
        result.append(
            {
                "name": info.name,
                "kind": info.kind,
                "packets": counts[PACKETS],
                "ns": counts[NS],
                "errors": counts[ERRORS],
                "over_budget": counts[OVER_BUDGET],
                "max_ns": counts[MAX_NS],
                "budget_us": None if math.isinf(info.budget_us) else info.budget_us,
                "counters": dict(zip(info.counters, counts[OWN:], strict=True)),
            }
        )
        at += info.n_counts
    return result
