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
MAX_WAITED = 0.05  # of a measurement's time; of testpmd with the machine to itself 0.01 to 0.025
TRIES = 3
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
        low: the least value of a round.
        high: the greatest.
        ratios: of each round.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    aim: str = ""
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0
    ratios: tuple[float, ...] = ()


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cores": str(os.cpu_count()), "kernel": platform.release()}


def waited(pid: int) -> float:
    """Return for how many seconds the threads of a process were ready to run and had no core.

    The second figure of schedstat (Documentation/scheduler/sched-stats.rst).
    """
    paths = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[1]) for path in paths) / 1e9


def alternate(
    contestants: Mapping[str, Measure], rounds: int, console: Console
) -> dict[str, list[dict[str, float]]]:
    """Let each contestant run once a round, in an order that rotates; return all results.

    A measurement whose processes had to wait for their cores, by its figure `waited`, says more
    about who else was running than about the contestant: it is repeated, up to TRIES times in all.
    """
    names = list(contestants)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(names))
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                doing = f"round {number + 1} of {rounds}: {name}"
                progress.update(task, description=doing)
                if not console.is_terminal:
                    console.print(doing)
                results[name].append(_undisturbed(contestants[name]))
                progress.advance(task)
    return results


def _undisturbed(measure: Measure) -> dict[str, float]:
    for repeated in range(TRIES):
        result = measure() | {"repeated": repeated}
        if result.get("waited", 0) <= MAX_WAITED:
            break
    return result


def disturbance(results: Mapping[str, list[dict[str, float]]]) -> str:
    """Say how many measurements had to be repeated, and how many count although disturbed."""
    flat = [result for of_one in results.values() for result in of_one]
    repeated = sum(result["repeated"] for result in flat)
    kept = sum(result.get("waited", 0) > MAX_WAITED for result in flat)
    return f"{repeated:.0f} repeated, {kept} of {len(flat)} kept disturbed"


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
        statistics.median(ratios), aim, spread(ours), min(ours), max(ours), tuple(ratios),
    )  # fmt: skip


def alone(name: str, unit: str, ours: list[float], aim: str = "") -> Row:
    """Make a row without a peer."""
    return Row(
        name, statistics.median(ours), unit, aim=aim, spread=spread(ours), low=min(ours),
        high=max(ours),
    )  # fmt: skip


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
    told = {**machine(), **facts, "seconds": str(given.seconds)}
    if given.json:
        rounds, as_dicts = given.rounds, [asdict(row) for row in rows]
        print(json.dumps({"bench": bench, "machine": told, "rounds": rounds, "rows": as_dicts}))
        return
    told["rounds"] = str(given.rounds)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 110)  # else a pipe has 80 columns
    console.print(f"{bench}: " + ", ".join(f"{name} {value}" for name, value in told.items()))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for heading in ("", "value", "unit", "low", "high", "peer", "peer's", "ratio", "aim"):
        left = heading in ("", "unit", "peer")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name, _figure(row.value), row.unit, _figure(row.low), _figure(row.high),
            row.peer or "",
            "" if row.peer_value is None else _figure(row.peer_value),
            "" if row.ratio is None else f"{row.ratio:.3f}", row.aim,
        )  # fmt: skip
    console.print(table)


def _figure(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return _digits(value / size) + unit
    return _digits(value)


def _digits(value: float) -> str:
    """Three digits at the least: the table has 80 columns."""
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def fail(message: str) -> None:
    """End with one line."""
    print(f"bench: {message}", file=sys.stderr)
    raise SystemExit(1)
