"""The ways a socket may work with its driver: each serves every datagram byte for byte."""

import os
import signal
from pathlib import Path

import pytest

from hosts import CLIENT4, EXAMPLES, HOST4, Bench, echoes, until
from xdpipe.busy_poll import SETTINGS
from xdpipe.netns import open_sysfs

SIZES = [0, 1, 18, 512, 1472]
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
ECHO = EXAMPLES / "udp_echo.py"


def settings(bench: Bench) -> dict[str, int]:
    def read(name: str) -> int:
        with os.fdopen(open_sysfs(f"class/net/h0/{name}", os.O_RDONLY)) as file:
            return int(file.read())

    return {name: bench.host.call(lambda name=name: read(name)) for name in SETTINGS}


@pytest.mark.parametrize(
    "options",
    [
        ["--no-need-wakeup"],
        ["--huge-pages"],
        ["--huge-pages", "--frame-size", "3000"],
        ["--frame-size", "4096"],
    ],
    ids=" ".join,
)
def test_every_datagram_comes_back(bench: Bench, huge_pages: None, options: list[str]) -> None:
    running = bench.run(ECHO, *options)
    n = echoes(bench, CLIENT4, HOST4, SIZES, rounds=8)
    final = running.end()
    assert final["ledger"]["sent"] == n
    assert final["ledger"]["residual"] == 0
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"]
        assert worker["kernel"]["rx_invalid_descs"] == worker["kernel"]["tx_invalid_descs"] == 0


def test_frames_of_any_size_go_round_and_round(bench: Bench, huge_pages: None) -> None:
    """More packets than frames, through a worker that dies: each frame comes back, whole."""
    running = bench.run(ECHO, "--huge-pages", "--frame-size", "3000")
    status = running.status()
    assert status is not None
    n_frames = status["workers"][0]["n_frames"]

    def received() -> int:
        status = running.status()
        assert status is not None
        return int(status["workers"][0]["packets"])

    while received() < n_frames:
        echoes(bench, CLIENT4, HOST4, [100] * 400, rounds=1)
    os.kill(status["workers"][0]["pid"], signal.SIGKILL)
    until(lambda: (running.status() or status)["workers"][0]["restarts"] == 1, "another worker")
    until(lambda: (running.status() or status)["workers"][0]["state"] == "serving", "it serves")
    more = received() + n_frames
    while received() < more:
        echoes(bench, CLIENT4, HOST4, [100] * 400, rounds=1)
    final = running.end()
    assert final["ledger"]["residual"] == 0
    assert sum(final["workers"][0]["frames"].values()) == n_frames


def test_busy_polling_puts_interrupts_off_for_as_long_as_it_runs(bench: Bench) -> None:
    before = settings(bench)
    assert before != SETTINGS
    running = bench.run(ECHO, "--busy-poll")
    assert settings(bench) == SETTINGS
    n = echoes(bench, CLIENT4, HOST4, SIZES, rounds=8)
    final = running.end()
    assert final["ledger"]["sent"] == n
    assert final["ledger"]["residual"] == 0
    assert all(worker["busy_polls"] > 0 for worker in final["workers"])
    assert settings(bench) == before


@pytest.mark.parametrize("cure", ["down", "run"])
def test_what_a_killed_supervisor_changed_is_put_back(bench: Bench, cure: str) -> None:
    before = settings(bench)
    running = bench.run(ECHO, "--busy-poll")
    running.popen.kill()
    running.popen.communicate()
    assert settings(bench) == SETTINGS
    if cure == "down":
        assert bench.xdpipe("down", "h0").returncode == 0
    else:
        bench.run(ECHO).end()
    assert settings(bench) == before


def test_a_frame_size_that_cannot_be_is_one_clear_line(bench: Bench) -> None:
    done = bench.xdpipe("run", str(ECHO), "--dev", "h0", "--frame-size", "3000")
    assert (done.returncode, done.stderr) == (
        1,
        "xdpipe: frame size 3000: other sizes than 2048 and 4096 need huge pages; "
        "add --huge-pages\n",
    )


def test_too_few_huge_pages_is_one_clear_line(bench: Bench, huge_pages_alone: None) -> None:
    before = HUGE_PAGES.read_text()
    HUGE_PAGES.write_text("0")
    try:
        done = bench.xdpipe("run", str(ECHO), "--dev", "h0", "--huge-pages")
    finally:
        HUGE_PAGES.write_text(before)
    assert (done.returncode, done.stderr) == (
        1,
        "xdpipe: no 4 huge pages of 2 MiB are free, as each queue takes; reserve more: "
        "sysctl vm.nr_hugepages=4 for one queue\n",
    )
