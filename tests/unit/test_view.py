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


def test_dicts_of_the_same_keys_in_a_report_are_drawn_as_a_table() -> None:
    rows = [{"src": "10.0.0.1", "bytes": 1234567}, {"src": None, "bytes": 8}]
    odd = [{"src": "10.0.0.1"}, {"dst": "10.0.0.2"}]
    stage = {"name": "Top", "reports": [{"queue": 3, "keys": rows, "odd": odd, "none": []}]}
    console = Console(width=60, file=io.StringIO(), color_system=None)
    console.print(*view.reports([stage]))
    assert isinstance(console.file, io.StringIO)
    lines = [line.strip("│├└─ ") for line in console.file.getvalue().splitlines()]
    assert lines[0] == "Top (queue 3)"
    assert ["src", "bytes"] in [line.split() for line in lines]
    assert ["10.0.0.1", "1,234,567"] in [line.split() for line in lines]
    assert ["8"] in [line.split() for line in lines]
    assert '{"src": "10.0.0.1"}' in lines


def test_what_is_for_programs_alone_is_not_drawn() -> None:
    stage = {"name": "Measure", "reports": [{"runs": [], "_runs": ["eJzt"]}]}
    console = Console(width=60, file=io.StringIO(), color_system=None)
    console.print(*view.reports([stage]))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().split() == ["Measure", "└──", "runs"]
