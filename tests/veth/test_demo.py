"""`xdpipe demo` as a newcomer runs it, to its end and not to its end: nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import PATIENCE, until

DEMO = [sys.executable, "-P", "-m", "xdpipe", "demo"]


def family(pid: int) -> set[int]:
    """Return the pids of all descendants of a process."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        try:
            for thread in Path(f"/proc/{todo.pop()}/task").iterdir():
                children = [int(word) for word in (thread / "children").read_text().split()]
                found.update(children)
                todo += children
        except OSError:
            continue
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    before = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    links = sorted(os.listdir("/sys/class/net"))
    yield {**os.environ, "XDPIPE_RUN_DIR": str(tmp_path / "run")}
    after = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert after == before
    assert sorted(os.listdir("/sys/class/net")) == links
    assert not list((tmp_path / "run").glob("*/control.sock"))


def test_it_guards_a_name_server_and_accounts_for_every_packet(env: dict[str, str]) -> None:
    done = subprocess.run(
        [*DEMO, "--duration", str(3 * PATIENCE), "--json"],
        capture_output=True, text=True, env=env, timeout=60 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    final = json.loads(done.stdout)
    ledger = final["ledger"]
    assert ledger["residual"] == 0
    assert [worker["queue"] for worker in final["workers"]] == [0, 1]
    assert all(worker["packets"] > 0 for worker in final["workers"])
    guard = final["stages"][1]
    assert guard["errors"] == 0
    reasons = ("any_query", "unasked_response", "over_rate")
    dropped = sum(guard["counters"][reason] for reason in reasons)
    assert ledger["verdicts"]["DROP"] == dropped > 10_000
    assert ledger["verdicts"]["TX"] == ledger["sent"] == guard["counters"]["queries"] > 0
    demo = final["demo"]
    assert demo["honest_asked"] == demo["honest_answered"] > 3


def test_on_a_terminal_it_says_what_it_does_and_where_every_packet_went(
    env: dict[str, str],
) -> None:
    done = subprocess.run(
        [*DEMO, "--duration", "1"], capture_output=True, text=True, env=env, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for words in ("private network namespaces", "DnsGuard", "residual 0", "right answers"):
        assert words in said


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_interrupted_it_leaves_nothing_behind(
    env: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--duration", "60", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=env,
    )  # fmt: skip
    run_dir = tmp_path / "run"
    until(lambda: list(run_dir.glob("*/control.sock")), "the demo runs")
    until(lambda: len(family(demo.pid)) >= 4, "workers, name server and flood run")
    processes = family(demo.pid)
    demo.send_signal(number)
    out, err = demo.communicate(timeout=30)
    until(lambda: not any(running(pid) for pid in processes), "all its processes end")
    if number is signal.SIGKILL:
        for socket in run_dir.glob("*/control.sock"):
            socket.unlink()  # which the next start, or `xdpipe down`, would do
    else:
        assert demo.returncode == 0, err
        assert json.loads(out)["ledger"]["residual"] == 0
