"""When packets left, as the kernel tells it in copy mode."""

import os
import signal
import socket
import time
from typing import Any

import pytest

from hosts import CLIENT4, HOST4, KERNEL, PATIENCE, PIPELINES, Bench, until

N = 50


def ask(bench: Bench, first: int) -> tuple[int, int]:
    """Send N numbered datagrams one after the other; return CLOCK_TAI before and after."""
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((CLIENT4, 5007))  # so all of them come by one queue
        sock.connect((HOST4, 7))
        sock.settimeout(5 * PATIENCE)
        for number in range(first, first + N):
            sock.send(number.to_bytes(4, "big"))
            assert sock.recv(100) == number.to_bytes(4, "big")
    return before, time.clock_gettime_ns(time.CLOCK_TAI)


def told(final: dict[str, Any]) -> tuple[dict[str, int], list[int], list[int]]:
    """Return the stage's counters, and of the one queue that the flow came by, tags and times."""
    [stay] = [stage for stage in final["stages"] if stage["name"] == "Stay"]
    assert stay["errors"] == 0
    reports = [report for report in stay["reports"] if report["tags"]] or stay["reports"][:1]
    assert len(reports) == 1
    return stay["counters"], reports[0]["tags"], reports[0]["sent_ns"]


@pytest.mark.kernel
def test_each_packet_is_told_by_its_tag_with_the_time_it_left(bench: Bench) -> None:
    running = bench.run(PIPELINES / "tx_times.py")
    before, after = ask(bench, 1000)
    final = running.end()
    known = KERNEL >= (6, 11)
    assert [worker["tx_times"] for worker in final["workers"]] == [known] * 2
    counters, tags, times = told(final)
    n = N if known else 0
    assert counters == {"asked": n, "told": n, "untold": 0}
    assert tags == list(range(1000, 1000 + n))
    assert times == sorted(times)
    assert all(before < time_ns < after for time_ns in times)


def test_after_a_worker_was_killed_the_next_one_tells_of_its_own_packets(bench: Bench) -> None:
    running = bench.run(PIPELINES / "tx_times.py")
    ask(bench, 0)
    workers = running.wait_ready()["workers"]
    [served] = [worker for worker in workers if worker["packets"]]
    os.kill(served["pid"], signal.SIGKILL)

    def served_again() -> bool:
        now = running.wait_ready()["workers"][served["queue"]]
        return bool(now["restarts"] == 1 and now["state"] == "serving")

    until(served_again, "another worker serves")
    ask(bench, 5000)
    final = running.end()
    assert final["ledger"]["residual"] == 0
    _, tags, _ = told(final)
    assert tags == (list(range(5000, 5000 + N)) if KERNEL >= (6, 11) else [])
