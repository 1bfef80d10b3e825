"""What `xdpipe measure` reports agrees with a link that is known to lose, double, and hold."""

import importlib.util
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hosts import HOST4, PATIENCE, PIPELINES, Bench, Crossing, Running, crossing, pps, until
from stamped import RUN, Model, Stamp, stamped_capture, stamped_packet
from xdpipe.netns import Namespace

HELD_NS = 20_000_000


@contextmanager
def measuring(bench: Bench, where: Namespace, dev: str, *args: str) -> Iterator[Running]:
    """Run `xdpipe measure` there, with a directory of its own, from when it takes packets on."""
    run_dir = bench.run_dir.parent / "m"  # the path of a socket has 107 bytes
    popen = where.popen(
        [sys.executable, "-P", "-m", "xdpipe", "measure", "--dev", dev, "--json", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**bench.env, "XDPIPE_RUN_DIR": str(run_dir)},
    )  # fmt: skip
    running = Running(popen, run_dir)
    bench.started.append(running)
    running.wait_ready()
    yield running


def counters(running: Running) -> dict[str, int]:
    status = running.status()
    assert status is not None
    found: dict[str, int] = status["stages"][1]["counters"]
    return found


def n_stamped(running: Running) -> int:
    return sum(n for name, n in counters(running).items() if name not in ("bytes", "unstamped"))


def packet_socket(namespace: Namespace, dev: str) -> socket.socket:
    sock = namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    sock.bind((dev, 0))
    return sock


@pytest.fixture
def across(tmp_path: Path) -> Iterator[Crossing]:
    with crossing(tmp_path) as bench:
        yield bench


def test_losses_doubles_and_disorder_of_a_capture_are_told_exactly(
    bench: Bench, tmp_path: Path
) -> None:
    rng = random.Random(11)
    numbers = [n for n in range(20_000) if rng.random() > 0.01]
    numbers += rng.sample(numbers, 300)
    numbers.sort(key=lambda n: n + rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 7.5)))
    model = Model(1 << 15)
    for number in numbers:
        model.arrive(number)
    capture = stamped_capture(tmp_path / "stamped.pcap", [Stamp(n) for n in numbers])
    with measuring(bench, bench.host, "h0", "--sent", "20000") as running:
        bench.replay(capture, "--pps", "20000")
        until(lambda: n_stamped(running) == len(numbers), "all packets are counted")
        final = running.end()
    (told,) = final["runs"]
    outcome = Counter(model.outcomes)
    assert {name: n for name, n in final["counters"].items() if n and name != "bytes"} == outcome
    assert told["run"] == f"{RUN:#06x}"
    assert told["sent"] == 20_000
    assert told["received"] == len(model.arrived) == outcome["in_order"] + outcome["reordered"]
    assert told["lost"] == 20_000 - len(model.arrived)
    assert told["duplicates"] == outcome["duplicates"] == 300
    assert told["reordered"] == outcome["reordered"]
    assert told["reordered_extent_max"] == max(model.extents)
    assert told["received_bytes"] == 60 * told["received"]
    assert told["receiver_dropped"] == 0
    assert final["ledger"]["residual"] == 0


def test_the_share_that_a_link_loses_is_told(across: Crossing, tmp_path: Path) -> None:
    capture = stamped_capture(tmp_path / "stamped.pcap", [Stamp(n) for n in range(10_000)])
    with measuring(across, across.far, "f0") as running:
        link = across.run(PIPELINES / "lossy_link.py")
        across.replay(capture, "--pps", pps(20_000))
        until(lambda: n_stamped(running) == 9_000, "all packets are counted")
        final = running.end()
    (told,) = final["runs"]
    # numbers from 0 to 9999, of which neither the first nor the last is lost: gaps tell all
    assert (told["received"], told["lost"], told["lost_by"]) == (9_000, 1_000, "gaps")
    assert told["lost_share"] == 0.1
    assert (told["reordered"], told["duplicates"]) == (0, 0)
    assert link.end()["ledger"]["verdicts"]["DROP"] == 1_000


@pytest.mark.alone
def test_the_time_that_a_link_holds_packets_is_told(across: Crossing) -> None:
    n = 40
    with measuring(across, across.far, "f0") as running:
        link = across.run(PIPELINES / "slow_link.py")
        with packet_socket(across.client, "c0") as sock:
            for number in range(n):
                sock.send(stamped_packet(Stamp(number, time.time_ns())))
                # one at a time: what comes while one is held is held, too
                until(lambda sent=number + 1: n_stamped(running) == sent, "it is counted")
        final = running.end()
    assert link.end()["ledger"]["verdicts"]["FORWARD"] == n
    (told,) = final["runs"]
    latency = told["latency"]
    assert (told["received"], told["lost"], latency["packets"]) == (n, 0, n)
    held = [ns for percent, ns in latency["curve"] if percent > 75]
    others = [ns for percent, ns in latency["curve"] if percent <= 75 - 100 / n]
    assert min(held) >= HELD_NS * 0.999
    assert latency["p90"] < HELD_NS + 15_000_000 * PATIENCE
    assert max(others) < HELD_NS
    assert latency["min"] > 0


def test_two_streams_by_two_queues_add_up(bench: Bench, tmp_path: Path) -> None:
    """Each stream by a queue of its own, as two senders have it; and another run beside."""
    with measuring(bench, bench.host, "h0") as running:
        for stream in (0, 1):
            stamps = [Stamp(n, stream=stream) for n in range(3000) if n % 3 or stream]
            capture = stamped_capture(tmp_path / f"{stream}.pcap", stamps)
            bench.replay(capture, "--queues", str(stream), "--pps", "20000")
        later = stamped_capture(tmp_path / "later.pcap", [Stamp(5, run=7)])
        bench.replay(later)
        until(lambda: n_stamped(running) == 5001, "all packets are counted")
        final = running.end()
    latest, first = final["runs"]
    assert (latest["run"], latest["received"], latest["lost"]) == ("0x0007", 1, 0)
    assert (first["received"], first["lost"], first["reordered"]) == (5000, 999, 0)
    assert [stream["in_order"] for stream in first["streams"]] == [2000, 3000]


def test_it_ends_by_itself_when_no_more_come(bench: Bench, tmp_path: Path) -> None:
    capture = stamped_capture(tmp_path / "stamped.pcap", [Stamp(n) for n in range(100)])
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    plots = importlib.util.find_spec("matplotlib") is not None
    wanted = ["--report", str(page), "--png", str(picture)] if plots else []
    with measuring(bench, bench.host, "h0", "--idle", "0.3", *wanted) as running:
        bench.replay(capture)
        out, err = running.popen.communicate(timeout=30 * PATIENCE)
    assert running.popen.returncode == 0, err
    assert [run["received"] for run in json.loads(out)["runs"]] == [100]
    assert page.exists() == picture.exists() == plots


def test_what_has_no_stamp_goes_on_to_the_kernel(bench: Bench) -> None:
    with measuring(bench, bench.host, "h0") as running:
        bench.reach(HOST4)
        final = running.end()
    assert final["runs"] == []
    assert final["ledger"]["verdicts"]["DROP"] == 0


def test_a_filter_of_ones_own_and_a_run_are_looked_for(bench: Bench, tmp_path: Path) -> None:
    stamps = [Stamp(n, run=3 + n % 2) for n in range(100)]
    capture = stamped_capture(tmp_path / "stamped.pcap", stamps)
    with measuring(
        bench, bench.host, "h0", "--filter", "udp dst port 9", "--run", "0x4", "--sent", "60"
    ) as running:
        bench.replay(capture)
        until(lambda: n_stamped(running) == 100, "all packets are counted")
        final = running.end()
    assert final["counters"]["other_run"] == 50
    (told,) = final["runs"]
    assert (told["run"], told["received"], told["lost"]) == ("0x0004", 50, 10)


def test_netem_agrees(bench: Bench) -> None:
    """The kernel's own bad link, where it is there."""
    done = bench.client.run(
        ["tc", "qdisc", "add", "dev", "c0", "root", "netem", "delay", "20ms", "loss", "10%"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"this kernel has no netem: {done.stderr.strip()}")
    n = 2000

    def qdisc() -> dict[str, Any]:
        out = bench.client.run(
            ["tc", "-s", "-j", "qdisc", "show", "dev", "c0"], capture_output=True, text=True
        ).stdout
        found: dict[str, Any] = next(q for q in json.loads(out) if q["kind"] == "netem")
        return found

    with measuring(bench, bench.host, "h0", "--sent", str(n)) as running:
        before = qdisc()
        with packet_socket(bench.client, "c0") as sock:
            for number in range(n):
                sock.send(stamped_packet(Stamp(number, time.time_ns())))
        until(lambda: qdisc()["qlen"] == 0, "all packets have left")
        lost = qdisc()["drops"] - before["drops"]
        until(lambda: n_stamped(running) == n - lost, "all packets are counted")
        (told,) = running.end()["runs"]
    assert told["lost"] == lost > 0
    assert 20_000_000 <= told["latency"]["min"] <= told["latency"]["p50"] < 20_000_000 * 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dev", "h9"], "xdpipe: h9: no such interface; there are: lo, h0"),
        (["--dev", "h0", "--run", "65536"], "a number from 0 to 0xffff"),
        (["--dev", "h0", "--filter", "nonsense"], 'filter "nonsense"'),
        (["--dev", "h0", "--report", "no/such/report.html"], "no/such/report.html: there is no"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(bench: Bench, args: list[str], message: str) -> None:
    done = bench.xdpipe("measure", *args)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
