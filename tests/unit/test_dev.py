"""The shell script that starts everything, as far as it goes without installing anything."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

COMMANDS = ["setup", "demo", "test", "lint", "fuzz", "bench", "vm"]


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "dev", *arguments], capture_output=True, text=True, check=False)


def test_alone_it_tells_its_commands() -> None:
    result = dev()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: ./dev COMMAND")
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


def test_an_unknown_command_is_named() -> None:
    result = dev("dmeo")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("dev: dmeo: no such command\n")


@pytest.mark.parametrize("command", ["setup", "demo"])
def test_without_root_one_line_says_so(command: str) -> None:
    nobody = 65534 if os.geteuid() == 0 else None
    # By stdin and from /, since nobody may not be able to reach the checkout.
    script = (ROOT / "dev").read_text()
    to_checkout = 'cd -- "$(dirname -- "${BASH_SOURCE[0]}")"'
    assert to_checkout in script
    result = subprocess.run(
        ["bash", "-s", command],
        input=script.replace(to_checkout, "cd /"),
        capture_output=True,
        text=True,
        check=False,
        user=nobody,
        cwd="/",
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"dev: {command} needs root; start it as: sudo ./dev {command}\n"


def test_benchmarks_are_listed() -> None:
    result = dev("bench")
    names = sorted(path.stem for path in (ROOT / "bench").glob("*.py"))
    assert (result.returncode, sorted(result.stdout.split())) == (0, names)


def test_an_unknown_benchmark_is_named() -> None:
    result = dev("bench", "nosuch")
    assert result.returncode == 1
    assert result.stderr == "dev: bench nosuch: no such benchmark; './dev bench' lists them\n"
