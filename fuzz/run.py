"""Run libFuzzer on a target, and say what came of it."""

import hashlib
import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.build import BUILD, ROOT
from fuzz.records import SEPARATOR
from fuzz.targets import Target

FOUND = ROOT / "fuzz" / "found"
"""Inputs that once found something, by target; part of the repository."""
_MEMORY_MIB = 2048
_MAX_LEN = 8192
_STATUS = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+)")
_KEPT = re.compile(r"Test unit written to (\S+)")
_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_SAYS = re.compile(r"^(fuzz: .*|SUMMARY: .*|.*: runtime error: .*|==\d+== ?ERROR: .*)$")
_SANITIZERS = {
    # the stages allocate nothing, which the driver sees to; what Python made is put back
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_abort=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
}


@dataclass
class Outcome:
    """What came of fuzzing one target.

    Attributes:
        name: of the target.
        seconds: that it took.
        n_runs: inputs that were run.
        coverage: places in the core's code that were reached, as libFuzzer counts them.
        says: what the driver or the sanitizers said; empty where nothing was found.
        input: that did it; None: nothing was found, or libFuzzer kept none.
    """

    name: str
    seconds: float = 0.0
    n_runs: int = 0
    coverage: int = 0
    says: list[str] = field(default_factory=list)
    input: Path | None = None

    @property
    def found(self) -> bool:
        """Whether something was found."""
        return bool(self.says)

    def line(self) -> str:
        """Return all of it in one line."""
        rate = self.n_runs / max(self.seconds, 1e-9)
        line = (
            f"{self.name:<20} {self.seconds:5.0f} s {self.n_runs:>9,} runs {rate:>7,.0f} runs/s "
            f"{self.coverage:>5} reached  "
        )
        return line + (f"FOUND: {self.says[0]}" if self.found else "nothing found")

    def again(self) -> str:
        """Return the command that runs the input again."""
        if self.input is None:
            return "libFuzzer kept no input; run it again"
        where = os.path.relpath(self.input, ROOT)
        return f"{where}; again: ./dev fuzz {self.name} --again {where}"


def environment() -> dict[str, str]:
    """Return the environment for a driver."""
    return {**os.environ, **_SANITIZERS}


def write_seeds(name: str, seeds: Iterable[bytes]) -> Path:
    """Write inputs to begin with; return their directory, which holds nothing else."""
    place = BUILD / "seeds" / name
    place.mkdir(parents=True, exist_ok=True)
    wanted = {hashlib.sha256(seed).hexdigest()[:24]: seed for seed in seeds}
    for old in place.iterdir():
        if old.name not in wanted:
            old.unlink()
    for digest, seed in wanted.items():
        if not (place / digest).exists():
            (place / digest).write_bytes(seed)
    return place


def _write_dictionary(name: str, target: Target) -> Path:
    path = BUILD / f"{name}.dict"
    words = ("".join(f"\\x{byte:02x}" for byte in token) for token in (SEPARATOR, *target.tokens))
    path.write_text("".join(f'"{word}"\n' for word in words))
    return path


def run(
    program: Path,
    name: str,
    target: Target,
    seeds: Path,
    seconds: int,
    told: Callable[[int], None] = lambda n_runs: None,
) -> Outcome:
    """Fuzz a target until something is found or the time is over.

    Args:
        program: of the target, by clang.
        name: of the target.
        target: itself.
        seeds: directory of inputs to begin with, beside those of earlier runs.
        seconds: for how long.
        told: called now and then with how many inputs have been run.
    """
    corpus, kept = BUILD / "corpus" / name, BUILD / "findings"
    directories = [corpus, seeds, *([FOUND / name] if (FOUND / name).is_dir() else [])]
    for path in (corpus, kept):
        path.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(name)
    # What counts as used is the process's peak, which begins with that of the one that started it.
    limit = _MEMORY_MIB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    before = time.monotonic()
    with subprocess.Popen(
        [
            str(program), *map(str, directories), f"-max_total_time={seconds}",
            f"-max_len={_MAX_LEN}", "-timeout=5", f"-rss_limit_mb={limit}", "-print_final_stats=1",
            f"-artifact_prefix={kept}/{name}-", f"-dict={_write_dictionary(name, target)}",
        ],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            last = line.rstrip() or last
            _take(outcome, line.rstrip())
            told(outcome.n_runs)
    outcome.seconds = time.monotonic() - before
    if process.returncode and not outcome.says:
        outcome.says.append(last)
    elif not process.returncode:
        outcome.says.clear()
    return outcome


def _take(outcome: Outcome, line: str) -> None:
    """Take down what one line of libFuzzer's says."""
    if match := _STATUS.match(line):
        outcome.n_runs, outcome.coverage = int(match[1]), int(match[2])
    elif match := _RUNS.match(line):
        outcome.n_runs = int(match[1])
    elif match := _KEPT.search(line):
        outcome.input = Path(match[1])
    elif match := _SAYS.match(line):
        outcome.says.append(match[1])
