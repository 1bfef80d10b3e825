"""The command line, as far as it needs neither privilege nor interface."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from hosts import EXAMPLES
from xdpipe.capture import CaptureWriter
from xdpipe.cli import main
from xdpipe.process import ONE_THREAD

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_the_version_is_told_where_the_package_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the VM xdpipe runs from the tree, which has no metadata."""

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    told = CliRunner().invoke(main, ["--version"])
    expected = tomllib.loads(PYPROJECT.read_text())["project"]["version"]
    assert (told.exit_code, told.output) == (0, f"xdpipe, version {expected}\n")


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("xdpipe.cli", ["rich", "numpy", "pyroute2", "scapy", "bcc"]),
        ("xdpipe.supervisor", ["rich", "numpy", "scapy", "bcc"]),
        ("xdpipe.worker", ["rich", "pyroute2", "scapy", "bcc", "xdpipe.stages.dns"]),
    ],
)
def test_what_is_slow_to_import_comes_when_it_is_used(module: str, slow: list[str]) -> None:
    code = f"import sys, {module}; print(*set({slow}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


def test_a_command_starts_no_threads_for_linear_algebra(tmp_path: Path) -> None:
    """numpy's library would start one for each core."""
    path = tmp_path / "none.pcap"
    with CaptureWriter(path):
        pass
    code = (
        "import os, sys; from xdpipe.cli import main\n"
        f"try: main(['check', {str(EXAMPLES / 'dns_guard.py')!r}, '--pcap', {str(path)!r}])\n"
        "finally: print('numpy' in sys.modules, os.listdir('/proc/self/task'), file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ONE_THREAD}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    loaded, _, tasks = done.stderr.partition(" ")
    assert (loaded, tasks.count(",")) == ("True", 0), done.stderr
