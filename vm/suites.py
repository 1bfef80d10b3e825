"""What `./dev vm test` runs: which tests, on which kernel, over which NICs."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from vm.kernel import DEFAULT, KERNELS
from vm.session import Result, Wanted, run

_PYTEST = ("python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs")
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|error)")


@dataclass(frozen=True)
class Suite:
    """Tests that run in one start of the VM.

    Attributes:
        name: to be told.
        nics: kinds of NICs that the VM has.
        kernel: its version.
        tests: what pytest is given.
    """

    name: str
    nics: tuple[str, ...]
    kernel: str
    tests: tuple[str, ...]


def suites(*, everything: bool) -> list[Suite]:
    """Return the suites.

    Args:
        everything: all root tests on all kernels, which takes an hour under TCG, instead of those
            that are marked `kernel`: one of each kind of thing that a kernel may lack.
    """
    found = [Suite("zero copy", ("virtio", "igb", "vmxnet3"), DEFAULT, ("tests/vm",))]
    for version in KERNELS:
        chosen = () if everything else ("-m", "kernel")
        found.append(Suite("veth", (), version, ("tests/bpf", "tests/veth", *chosen)))
    return found


@dataclass
class Outcome:
    """What came of a suite."""

    suite: Suite
    result: Result
    counts: dict[str, int]


def _run(suite: Suite, more: Sequence[str]) -> Outcome:
    wanted = Wanted(suite.nics, kernel=suite.kernel)
    result = run(wanted, [*_PYTEST, *suite.tests, *more], capture=True, quiet=True)
    sys.stderr.write(result.output)
    counts = {"passed": 0, "failed": 0, "skipped": 0, "error": 0}
    last = next((line for line in reversed(result.output.splitlines()) if " in " in line), "")
    for number, kind in _COUNTS.findall(last):
        counts[kind] += int(number)
    counts["failed"] += counts.pop("error")
    if result.status not in (0, 5) and not counts["failed"]:
        counts["failed"] += 1  # pytest itself failed
    for line in result.trouble:
        sys.stderr.write(f"vm: kernel: {line}\n")
        counts["failed"] += 1
    return Outcome(suite, result, counts)


def run_suites(chosen: Sequence[Suite], more: Sequence[str]) -> int:
    """Run suites one after the other, and end with the line `N passed, N failed`.

    A WARNING, BUG or Oops of the VM's kernel counts as a failure.

    Args:
        chosen: what to run.
        more: further arguments for pytest.

    Returns:
        The exit code.
    """
    console = Console(stderr=True)
    outcomes = []
    for number, suite in enumerate(chosen, 1):
        over = ", ".join(suite.nics) or "veth"
        what = f"{number} of {len(chosen)}: {suite.name} over {over} on Linux {suite.kernel}"
        with console.status(what):
            console.print(f"vm: {what}", highlight=False)
            outcomes.append(_run(suite, more))
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    headings = ("tests", "NICs", "kernel", "accelerator", "passed", "failed", "skipped", "seconds")
    for heading in headings:
        table.add_column(heading, justify="left" if heading < "b" or heading in "NICs" else "right")
    for outcome in outcomes:
        table.add_row(
            outcome.suite.name, " ".join(outcome.suite.nics) or "veth", outcome.result.release,
            outcome.result.accelerator,
            *(str(outcome.counts[kind]) for kind in ("passed", "failed", "skipped")),
            f"{outcome.result.seconds:.0f}",
        )  # fmt: skip
    console.print(table)
    passed = sum(outcome.counts["passed"] for outcome in outcomes)
    failed = sum(outcome.counts["failed"] for outcome in outcomes)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
