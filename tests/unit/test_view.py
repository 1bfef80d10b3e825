"""What people look at fits where they look."""

import io

import pytest
from rich.console import Console

from xdpipe import view

MANY = 231_900


def status(default: str, **verdicts: int) -> view.Status:
    counts = {
        "DROP": 0,
        "TX": 0,
        "PASS": 0,
        "FORWARD": 0,
        "INVALID": 0,
        "LOST_WITH_WORKER": 0,
        **verdicts,
    }
    worker = {
        "queue": 0, "core": 11, "mode": "zerocopy", "attach": "native", "state": "serving",
        "packets": MANY, "batches": 1000, "busy_ns": 10**9, "verdicts": counts,
        "frames": {"rx": 0}, "n_frames": 4096, "kernel": {"rx_dropped": 0, "rx_ring_full": 0},
    }  # fmt: skip
    return {"default": default, "uptime_s": 10.0, "workers": [worker, {**worker, "queue": 1}]}


def drawn(now: view.Status) -> str:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(view.workers_table(now, None))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("default", ["DROP", "TX", "PASS", "FORWARD"])
@pytest.mark.parametrize(
    "verdicts",
    [{}, {"DROP": MANY}, {"TX": MANY}, dict.fromkeys(("DROP", "TX", "PASS", "FORWARD"), MANY)],
)
def test_the_table_of_workers_fits_in_80_columns(default: str, verdicts: dict[str, int]) -> None:
    text = drawn(status(default, **verdicts))
    assert "…" not in text, text
    headings = text.splitlines()[1].split()
    for verdict in ("TX", "PASS", "FORWARD"):
        assert (verdict in headings) == (verdict == default or verdict in verdicts)
