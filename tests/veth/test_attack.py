"""Workers that have gone bad, starts that race, reports that no message can carry."""

import signal
from pathlib import Path

import pytest

from hosts import EXAMPLES, Bench, until
from traffic import numbered_flows

HEAD = "import os, sys, time\nfrom xdpipe import *\n"


def stage(path: Path, body: str, rest: str = "") -> Path:
    """Write a pipeline of one stage, whose process() is `body`."""
    lines = f"class Bad(Stage):\n    def process(self, batch):\n        {body}\n{rest}"
    path.write_text(f"{HEAD}{lines}pipeline = Pipeline('udp dst port 9', [Bad()], default=TX)\n")
    return path


TRUNCATE = (
    "[os.ftruncate(fd, 0) for fd in range(3, 20) if os.path.lexists(f'/proc/self/fd/{fd}')"
    " and 'memfd' in os.readlink(f'/proc/self/fd/{fd}')]"
)


@pytest.mark.parametrize(
    "body",
    [
        "os.write(int(sys.argv[1]), b'garbage')",
        "os.write(int(sys.argv[1]), b'[\"hello\", 1]')",
        TRUNCATE,
    ],
    ids=["garbage", "wrong-shape", "truncated-memory"],
)
def test_a_worker_gone_bad_does_not_take_the_supervisor_with_it(
    bench: Bench, tmp_path: Path, body: str
) -> None:
    capture = tmp_path / "some.pcap"
    numbered_flows(capture, 100, 4, dport=9)
    running = bench.run(stage(tmp_path / "bad.py", body), "--queues", "0")
    bench.replay(capture)
    assert running.status() is not None
    running.end()  # which expects exit 0 and the ledger


def test_descriptors_that_a_worker_sends_are_closed(bench: Bench, tmp_path: Path) -> None:
    body = (
        "import socket; s = socket.socket(fileno=os.dup(int(sys.argv[1]))); "
        "socket.send_fds(s, [b'[\"x\", 1]'], [2] * 8)"
    )
    capture = tmp_path / "some.pcap"
    numbered_flows(capture, 200, 4, dport=9)
    running = bench.run(stage(tmp_path / "bad.py", body), "--queues", "0")
    fds = Path(f"/proc/{running.popen.pid}/fd")
    before = len(list(fds.iterdir()))
    bench.replay(capture, "--pps", "500")
    running.status()
    assert len(list(fds.iterdir())) <= before + 1
    running.end()


def test_of_several_starts_at_once_one_wins_and_keeps_its_directory(bench: Bench) -> None:
    starts = [bench.run(EXAMPLES / "udp_echo.py", ready=False) for _ in range(4)]
    until(lambda: sum(s.popen.poll() is None for s in starts) == 1, "all but one give up")
    [winner] = [start for start in starts if start.popen.poll() is None]
    for start in starts:
        if start is not winner:
            out, err = start.popen.communicate()
            assert (start.popen.returncode, out) == (1, "")
            assert "end it with: xdpipe down h0" in err
    status = winner.wait_ready()
    assert status["name"] == "udp_echo"
    assert winner.end()["ledger"]["residual"] == 0


def test_sigterm_to_all_processes_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    capture = tmp_path / "some.pcap"
    numbered_flows(capture, 2000, 4, dport=9)
    file = stage(tmp_path / "slow.py", "time.sleep(.02)")
    running = bench.run(file, "--queues", "0", "--batch", "64")
    bench.replay(capture)
    status = until(running.status, "a status")
    for worker in status["workers"]:
        bench.host.run(["kill", "-TERM", str(worker["pid"])])
    assert running.end(signal.SIGTERM)["ledger"]["verdicts"]["LOST_WITH_WORKER"] == 0


@pytest.mark.parametrize("report", ["{(1, 2): 3}", "{'x': {1: {2: (d := {})}}, (1,): d}"])
def test_a_report_that_json_cannot_hold_does_not_kill_the_worker(
    bench: Bench, tmp_path: Path, report: str
) -> None:
    rest = f"    def report(self):\n        return {report}\n"
    running = bench.run(stage(tmp_path / "odd.py", "pass", rest), "--queues", "0")
    running.status()
    final = running.end()
    assert final["workers"][0]["restarts"] == 0
    assert "Traceback" not in final["stderr"]
