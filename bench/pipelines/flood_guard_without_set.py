"""examples/flood_guard.py, whose offenders the XDP program never hears of."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xdpipe.pipeline import Pipeline, load_pipeline

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flood_guard.py"


class Deaf(Mapping[str, Any]):
    """Sets that forget what is added."""

    def __getitem__(self, name: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def add(self, addresses: Any) -> int:
        return 0


guarded = load_pipeline(EXAMPLE)
guard = guarded.stages[1]
type(guard).sets = property(lambda self: Deaf(), lambda self, value: None)  # type: ignore[assignment]
pipeline = Pipeline("udp dst port 53", stages=guarded.stages, default=guarded.default)
