"""What `./dev vm test` runs: which tests, on which kernel, over which NICs."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vm.cache import ROOT, say
from vm.image import root_image
from vm.kernel import DEFAULT, KERNELS, Kernel
from vm.qemu import Accelerator, Qemu

# hypothesis, which no test here uses, takes seconds to import under TCG
_PYTEST = ("pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-q", "-rs")
_COMMANDS = "tests/vm/commands"
_NO_TESTS = 5
"""pytest's exit code where -k leaves none."""
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|error)")


@dataclass(frozen=True)
class Suite:
    """Tests that run in one start of the VM, or on the host.

    Attributes:
        name: to be told.
        nics: kinds of NICs that the VM has.
        kernel: its version.
        tests: what pytest is given.
        only: pytest's expression (-k) of those that are meant; empty: all.
        n_cpus: that the VM has.
        on_host: they are not in the VM; they start it themselves.
        options: of pytest.
    """

    name: str
    nics: tuple[str, ...]
    kernel: str
    tests: tuple[str, ...]
    only: str = ""
    n_cpus: int = 2
    on_host: bool = False
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its name, over which NICs, on which kernel."""
        if self.on_host:
            return self.name
        return f"{self.name} over {', '.join(self.nics) or 'veth'} on Linux {self.kernel}"


def suites(*, everything: bool) -> list[Suite]:
    """Return the suites.

    Args:
        everything: all root tests on all kernels, which takes hours under TCG, instead of those
            that are marked `kernel`: one of each kind of thing that a kernel may lack.
    """
    root_tests: tuple[str, ...] = ("tests/bpf", "tests/veth")
    if not everything:
        names = ("test_udp_echo", "test_jumbo", "test_nic_told", "test_tx_times", "test_pass")
        root_tests = ("tests/bpf/test_attach.py", *(f"tests/veth/{name}.py" for name in names))
    marks = () if everything else ("-m", "kernel")
    over_nics = ("tests/vm", f"--ignore={_COMMANDS}")
    return [  # the longest first, and virtio's apart, so that two VMs are busy to the end
        Suite("zero copy", ("igb", "vmxnet3", "virtio"), DEFAULT, over_nics, "not virtio"),
        Suite("zero copy", ("virtio",), DEFAULT, over_nics, "virtio"),
        *(
            # those marked run on one as well, which leaves the other core to another VM
            Suite("root tests", (), version, (*root_tests, *marks), n_cpus=2 if everything else 1)
            for version in KERNELS
        ),
        # two at once: at the end, when this is the last suite, no other core would be busy
        Suite("./dev vm itself", (), DEFAULT, (_COMMANDS,), on_host=True, options=("-n", "2")),
    ]


class Running:
    """A suite that runs in a VM of its own, started as `./dev vm run` would be."""

    def __init__(self, suite: Suite, only: str, more: Sequence[str], place: Path) -> None:
        self.suite = suite
        self._output, self._result = place / "output", place / "result"
        nics = [word for nic in suite.nics for word in ("--nic", nic)]
        self._file = self._output.open("w")
        both = " and ".join(f"({each})" for each in (suite.only, only) if each)
        vm_run = [
            "vm", "run", *nics, "--cpus", str(suite.n_cpus), "--kernel", suite.kernel,
            "--result", str(self._result), "--", "python", "-m",
        ]  # fmt: skip
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m",
             *([] if suite.on_host else vm_run), *_PYTEST, *suite.options, *suite.tests,
             *(["-k", both] if both else []), *more],
            stdout=self._file, stderr=subprocess.STDOUT, cwd=ROOT,
        )  # fmt: skip

    def outcome(self) -> dict[str, Any]:
        """Print what it printed; return what came of it, with the tests counted by outcome."""
        self._file.close()
        output = self._output.read_text(errors="replace")
        sys.stderr.write(output)
        counts = {"passed": 0, "failed": 0, "skipped": 0, "error": 0}
        last = next((line for line in reversed(output.splitlines()) if " in " in line), "")
        for number, kind in _COUNTS.findall(last):
            counts[kind] += int(number)
        counts["failed"] += counts.pop("error")
        told = {
            "release": "" if self.suite.on_host else self.suite.kernel,
            "accelerator": "",
            "seconds": 0.0,
            "trouble": [],
        }
        if self._result.exists():
            told = json.loads(self._result.read_text())
        counts["failed"] += len(told["trouble"])  # a WARNING, BUG or Oops of the VM's kernel
        if self.popen.returncode not in (0, _NO_TESTS) and not counts["failed"]:
            counts["failed"] = 1  # pytest or the VM itself
        return told | counts


def run_suites(chosen: Sequence[Suite], only: str, more: Sequence[str]) -> int:
    """Run suites, two at once or more, and tell `N passed, N failed`.

    A WARNING, BUG or Oops of the VM's kernel counts as a failure.

    Args:
        chosen: what to run.
        only: pytest's expression (-k) of the tests that are meant; empty: all.
        more: further arguments for pytest.

    Returns:
        The exit code.
    """
    _make_ready(chosen)
    console = Console(stderr=True)
    at_once = max(2, (os.cpu_count() or 1) // 2)
    waiting = list(chosen)
    running: list[Running] = []
    outcomes: dict[str, dict[str, Any]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place, console.status("") as status:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    suite = waiting.pop(0)
                    own = Path(place, str(len(waiting)))
                    own.mkdir()
                    running.append(Running(suite, only, more, own))
                    say(f"started: {suite.title}")
                for each in [each for each in running if each.popen.poll() is not None]:
                    running.remove(each)
                    outcomes[each.suite.title] = each.outcome()
                names = "; ".join(each.suite.title for each in running)
                status.update(f"{time.monotonic() - began:.0f} s: {names}")
                time.sleep(0.2)
        finally:
            for each in running:
                each.popen.terminate()
            for each in running:
                each.popen.wait()
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    console.width = max(console.width, 110)
    for heading in ("tests", "kernel", "accelerator"):
        table.add_column(heading)
    for heading in ("passed", "failed", "skipped", "seconds"):
        table.add_column(heading, justify="right")
    for suite in chosen:
        told = outcomes[suite.title]
        table.add_row(
            suite.title, told["release"], told["accelerator"],
            *(str(told[kind]) for kind in ("passed", "failed", "skipped")),
            f"{told['seconds']:.0f}",
        )  # fmt: skip
    console.print(table)
    passed = sum(told["passed"] for told in outcomes.values())
    failed = sum(told["failed"] for told in outcomes.values())
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def _make_ready(chosen: Sequence[Suite]) -> None:
    """Make what the VMs need before they start, where progress can be seen."""
    root_image()
    qemu = Qemu.find()
    for version in sorted({suite.kernel for suite in chosen}):
        kernel = Kernel.get(version)
    Accelerator.choose(qemu, kernel)
