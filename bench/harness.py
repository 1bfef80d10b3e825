"""What the benchmarks share: alternating rounds, medians and spread, a table or one JSON object."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

MIN_ROUNDS = 5
Measure = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One result. The aim is of the ratio where there is one, else of the value.

    Attributes:
        name: what was measured.
        value: ours, the median over the rounds.
        unit: of value and peer_value.
        peer: whom it is compared with, or None.
        peer_value: the peer's, from the same rounds; a median.
        ratio: value / peer_value, the median of the rounds' own ratios.
        aim: such as "≥ 0.97".
        spread: of the value: (max - min) / median.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    aim: str = ""
    spread: float = 0.0


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cores": str(os.cpu_count()), "kernel": platform.release()}


def alternate(
    contestants: Mapping[str, Measure], rounds: int, console: Console
) -> dict[str, list[dict[str, float]]]:
    """Let each contestant run once a round, in an order that rotates; return all results."""
    names = list(contestants)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(names))
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                progress.update(task, description=f"round {number + 1} of {rounds}: {name}")
                results[name].append(contestants[name]())
                progress.advance(task)
    return results


def series(results: list[dict[str, float]], key: str) -> list[float]:
    """Return one figure over the rounds."""
    return [result[key] for result in results]


def spread(values: list[float]) -> float:
    """Return (max - min) / median."""
    median = statistics.median(values)
    return (max(values) - min(values)) / median if median else 0.0


def compare(
    name: str, unit: str, ours: list[float], peer: str, theirs: list[float], aim: str
) -> Row:
    """Compare two series of the same rounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Row(
        name, statistics.median(ours), unit, peer, statistics.median(theirs),
        statistics.median(ratios), aim, spread(ours),
    )  # fmt: skip


def alone(name: str, unit: str, ours: list[float], aim: str = "") -> Row:
    """Make a row without a peer."""
    return Row(name, statistics.median(ours), unit, aim=aim, spread=spread(ours))


def options(description: str) -> argparse.Namespace:
    """Read --json, --rounds and --seconds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    given = parser.parse_args()
    if given.rounds < MIN_ROUNDS:
        parser.error(f"--rounds: at least {MIN_ROUNDS}")
    return given


def report(
    bench: str, rows: list[Row], facts: Mapping[str, str], given: argparse.Namespace
) -> None:
    """Print the rows: a table, or with --json one object on stdout."""
    told = {**machine(), **facts, "rounds": str(given.rounds), "seconds": str(given.seconds)}
    if given.json:
        print(json.dumps({"bench": bench, "machine": told, "rows": [asdict(row) for row in rows]}))
        return
    console = Console()
    console.print(f"{bench}: " + ", ".join(f"{name} {value}" for name, value in told.items()))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for heading in ("", "value", "unit", "spread", "peer", "peer's", "ratio", "aim"):
        left = heading in ("", "unit", "peer")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name, _figure(row.value), row.unit, f"{row.spread:.0%}", row.peer or "",
            "" if row.peer_value is None else _figure(row.peer_value),
            "" if row.ratio is None else f"{row.ratio:.3f}", row.aim,
        )  # fmt: skip
    console.print(table)


def _figure(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3f}{unit}"
    return f"{value:.2f}"


def fail(message: str) -> None:
    """End with one line."""
    print(f"bench: {message}", file=sys.stderr)
    raise SystemExit(1)
