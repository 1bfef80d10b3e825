"""./dev vm on the host, as a user runs it, with the commands that docs/vm.md starts with."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BOOT_S = 120
"""How long a start and an end of the VM may take where much else runs."""


def documented() -> list[str]:
    """Return the commands of the first code block of docs/vm.md."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "docs/vm.md").read_text(), re.M | re.S)
    return str(blocks[0]).splitlines()


def vm(*argv: str) -> list[str]:
    return [sys.executable, "-m", "vm", *argv]


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=ROOT, check=False, timeout=BOOT_S, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def children(pid: int) -> set[int]:
    """Return a process's descendants."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | children(child)
    return found


def eventually(what: Callable[[], bool], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def test_the_documented_commands_are_these() -> None:
    """Each is run below, but for the tests, among which this is."""
    build, command, tests, shell = documented()
    assert build == "./dev vm build"
    assert command == "./dev vm run --nic virtio ip -brief link"
    assert tests.startswith("./dev vm test")
    assert shell == "./dev vm shell --nic igb"


def test_build_has_nothing_to_do_twice() -> None:
    for _ in range(2):  # the image may be there, but from other packages
        done = run(documented()[0].split())
        assert done.returncode == 0
    assert done.stderr.splitlines()[-1].startswith("vm: ready: ")
    assert "making" not in done.stderr


def test_run_shows_the_links_of_the_guest() -> None:
    done = run(documented()[1].split())
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["lo", "eth0", "eth1"]
    assert re.search(r"^vm: accelerator: (tcg|kvm) \(.+\); kernel: \d+\.\d+", done.stderr, re.M)


def test_run_gives_back_exit_code_streams_and_files_and_leaves_the_tree_alone(
    tmp_path: Path,
) -> None:
    script = "echo one; echo two >&2; echo three >/out/file; touch /work/four; exit 5"
    done = run(vm("run", "--out", str(tmp_path), "sh", "-c", script))
    assert done.returncode == 5
    assert done.stdout == "one\n"
    assert "two" in done.stderr.splitlines()
    assert (tmp_path / "file").read_text() == "three\n"
    assert not (ROOT / "four").exists()


def test_shell_is_a_terminal_in_the_guest() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv("./dev", documented()[3].split())
    said = b""

    def hear(mark: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + BOOT_S
        while mark not in said:
            assert select.select([terminal], [], [], deadline - time.monotonic())[0], said
            said += os.read(terminal, 4096)

    try:
        hear(b"# ")
        os.write(terminal, b"xdpipe --version; tty; ls /sys/class/net; exit 6\n")
        hear(b"xdpipe, version ")
        hear(b"/dev/hvc0")
        hear(b"eth1")
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 6
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        os.close(terminal)


def test_killed_it_leaves_nothing_that_runs(tmp_path: Path) -> None:
    script = "touch /out/up; exec sleep 600"
    with subprocess.Popen(
        vm("run", "--nic", "virtio", "--out", str(tmp_path), "sh", "-c", script),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    ) as popen:  # fmt: skip
        try:
            eventually((tmp_path / "up").exists, within_s=BOOT_S)
            started = children(popen.pid)
            assert started
        finally:
            popen.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), within_s=10)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["run", "--kernel", "5.4", "true"], "vm: no kernel 5.4 in Debian's suites; there are: "),
        (["run", "--nic", "mlx5", "true"], "'mlx5' is not one of"),
        (["shell"], "shell: no terminal; use: ./dev vm run COMMAND"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(argv: list[str], told: str) -> None:
    done = run(vm(*argv))
    assert done.returncode != 0
    assert told in done.stderr.splitlines()[-1]
    assert done.stdout == ""
