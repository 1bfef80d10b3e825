"""Looking on at a pipeline that runs: xdpipe tap."""

import json
import os
import pty
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hosts import (
    CLIENT4,
    EXAMPLES,
    HOST4,
    PATIENCE,
    PIPELINES,
    Bench,
    Running,
    crossing,
    echoes,
    until,
)

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark here")
TSHARK = ["tshark", "-n", "-T", "fields", "-E", "separator=|"]


def send(bench: Bench, datagrams: list[bytes], port: int = 7) -> None:
    """Send datagrams from one socket, so that one queue has them in order."""
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((CLIENT4, 5007))
        for data in datagrams:
            sock.sendto(data, (HOST4, port))


def fields(capture: Path, *names: str) -> list[list[str]]:
    """Return fields of each packet of a capture, as tshark reads it."""
    told = [word for name in names for word in ("-e", name)]
    done = subprocess.run(
        [*TSHARK, "-r", str(capture), *told], check=True, capture_output=True, text=True
    )
    return [line.split("|") for line in done.stdout.splitlines()]


@contextmanager
def tap(bench: Bench, running: Running, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Have a tap look on at the pipeline, until told or the block's end."""
    n_before = n_taps(running)
    popen = bench.host.popen(
        [sys.executable, "-P", "-m", "xdpipe", "tap", *args],
        env=bench.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: n_taps(running) > n_before or popen.poll() is not None, "it looks on")
        yield popen
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.communicate()


def n_taps(running: Running) -> int:
    status = running.status()
    return len(status["taps"]) if status else 0


def end(popen: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    popen.send_signal(signal.SIGINT)
    out, err = popen.communicate(timeout=30 * PATIENCE)
    assert popen.returncode == code, err
    return out, err


def in_capture(path: Path, n: int) -> None:
    """Wait until a capture that is being written has so many packets, of 200 bytes at the least."""
    until(lambda: path.exists() and path.stat().st_size > 200 * n, "the capture grows")


def test_a_capture_has_every_packet_with_verdict_stage_and_queue(
    bench: Bench, tmp_path: Path
) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    capture = tmp_path / "tap.pcapng"
    with tap(bench, running, "udp_echo", "-w", str(capture), "--json") as popen:
        sent = [f"{number:0100}".encode() for number in range(50)]
        send(bench, sent)
        until(lambda: running.wait_ready()["ledger"]["sent"] == 50, "they are echoed")
        out, _ = end(popen)
    assert json.loads(out) == {"file": str(capture), "packets": 50, "lost": 0, "ended": False}
    seen = fields(
        capture, "udp.payload", "frame.comment", "frame.interface_name", "frame.interface_queue",
        "frame.verdict.ebpf_xdp", "udp.srcport",
    )  # fmt: skip
    assert [bytes.fromhex(row[0]) for row in seen] == sent
    assert {row[1] for row in seen} == {"TX by default"}
    assert {row[5] for row in seen} == {"7"}  # as they leave: the addresses are swapped
    [(name, queue, action)] = {(row[2], row[3], row[4]) for row in seen}
    assert name == f"h0-q{queue}-out"
    assert action == "3"  # XDP_TX
    final = running.end()
    assert final["ledger"]["residual"] == 0
    assert final["ledger"]["sent"] == 50


def test_points_on_the_way_show_a_packet_before_and_behind_a_stage(
    bench: Bench, tmp_path: Path
) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    capture = tmp_path / "tap.pcapng"
    points = ("in", "OnlyEchoable", "SwapAddresses")
    asked = [word for point in points for word in ("--stage", point)]
    with tap(bench, running, "h0", "-w", str(capture), "--count", "6", *asked) as popen:
        send(bench, [b"good"])
        with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.bind((CLIENT4, 7))  # from one echo service to another
            sock.sendto(b"loop", (HOST4, 7))
        assert popen.wait(30 * PATIENCE) == 0
    seen = {
        (bytes.fromhex(payload), name.rpartition("-")[2]): (comment, port)
        for payload, name, comment, port in fields(
            capture, "udp.payload", "frame.interface_name", "frame.comment", "udp.srcport"
        )
    }
    assert seen == {
        (b"good", "in"): ("undecided", "5007"),
        (b"good", "OnlyEchoable"): ("undecided", "5007"),
        (b"good", "SwapAddresses"): ("undecided", "7"),
        (b"loop", "in"): ("undecided", "7"),
        (b"loop", "OnlyEchoable"): ("DROP by OnlyEchoable", "7"),
        (b"loop", "SwapAddresses"): ("DROP by OnlyEchoable", "7"),
    }
    done = subprocess.run(
        ["tcpdump", "-n", "-r", str(capture)], check=True, capture_output=True, text=True
    )
    assert done.stdout.count(" > ") == 6
    running.end()


def test_verdict_filter_and_snap_length_choose(bench: Bench, tmp_path: Path) -> None:
    running = bench.run(PIPELINES / "pass_even.py")
    capture = tmp_path / "tap.pcapng"
    wanted = ("--verdict", "drop", "--filter", "greater 200", "--snaplen", "60")
    with tap(bench, running, "pass_even", "-w", str(capture), *wanted) as popen:
        sizes = [9, 400, 400] * 6
        send(bench, [bytes([number]) + bytes(size) for number, size in enumerate(sizes)])
        until(lambda: running.wait_ready()["ledger"]["received"] >= len(sizes), "they came")
        _, told = end(popen)
    running.end()
    n = sum(number % 2 == 1 and size == 400 for number, size in enumerate(sizes))
    seen = fields(capture, "frame.len", "frame.cap_len", "frame.comment", "frame.encap_type")
    assert seen == [["443", "60", "DROP by DropOdd", "1"]] * n
    assert told.strip() == f"{n} packets, 0 lost"


def test_a_pipe_to_tshark_ends_when_tshark_has_had_enough(bench: Bench) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    with tap(bench, running, "udp_echo", "-w", "-") as popen:
        assert popen.stdout is not None
        with subprocess.Popen(
            [*TSHARK, "-l", "-r", "-", "-c", "3", "-e", "udp.payload", "-e", "frame.comment"],
            stdin=popen.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as tshark:  # fmt: skip
            popen.stdout.close()
            popen.stdout = None
            send(bench, [b"one", b"two", b"three"])
            out, _ = tshark.communicate(timeout=30 * PATIENCE)
        assert out.splitlines() == [
            f"{data.hex()}|TX by default" for data in (b"one", b"two", b"three")
        ]
        send(bench, [b"four"] * 20)  # which nobody reads
        assert popen.wait(30 * PATIENCE) == 0
    until(lambda: n_taps(running) == 0, "nobody looks on any more")
    running.end()


def test_lines_for_people_say_what_became_of_each(bench: Bench) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    with tap(bench, running, "udp_echo", "--count", "2") as popen:
        send(bench, [b"one", b"three"])
        out, err = popen.communicate(timeout=60 * PATIENCE)
    first, second = out.splitlines()
    assert "out TX by default: IP / UDP 10.1.0.1:echo > 10.1.0.2:5007 / Raw" in first
    assert second.endswith(", 47 bytes")
    assert err.strip() == "2 packets, 0 lost"
    running.end()


def test_lines_go_to_a_pipe_also_where_a_terminal_is_looked_at(bench: Bench) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    ours, theirs = pty.openpty()
    popen = bench.host.popen(
        [sys.executable, "-P", "-m", "xdpipe", "tap", "udp_echo", "--count", "1"],
        env=bench.env, text=True, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    until(lambda: n_taps(running), "it looks on")
    send(bench, [b"one"])
    out, _ = popen.communicate(timeout=60 * PATIENCE)
    assert out.endswith(" / Raw, 45 bytes\n")
    assert out.count("\n") == 1
    os.close(ours)
    running.end()


def test_it_has_no_privilege_when_it_looks_at_packets(bench: Bench, tmp_path: Path) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    capture = tmp_path / "tap.pcapng"
    with tap(bench, running, "udp_echo", "-w", str(capture)) as popen:
        until(lambda: capture.exists() and capture.stat().st_size, "it has begun")
        status = status_of(popen)
        assert f"Uid:\t{pwd.getpwnam('nobody').pw_uid}\t" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        send(bench, [b"one"])
        in_capture(capture, 1)
        end(popen)
    running.end()


def test_the_second_signal_ends_one_that_is_held_up(bench: Bench) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    with tap(bench, running, "udp_echo", "-w", "-") as popen:  # and nobody reads the pipe
        send(bench, [bytes(1000)] * 300)
        until(lambda: running.wait_ready()["taps"][0]["packets"] == 300, "they are copied")
        popen.send_signal(signal.SIGINT)
        until(lambda: not catches(popen, signal.SIGINT), "it has heard that")
        popen.send_signal(signal.SIGINT)
        assert popen.wait(30 * PATIENCE) == -signal.SIGINT
        assert popen.stdout is not None
        popen.stdout.close()
        popen.stdout = None
    until(lambda: n_taps(running) == 0, "nobody looks on any more")
    running.end()


def status_of(popen: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{popen.pid}/status").read_text()


def catches(popen: subprocess.Popen[str], number: int) -> bool:
    [line] = [line for line in status_of(popen).splitlines() if line.startswith("SigCgt:")]
    return bool(int(line.split()[1], 16) >> number - 1 & 1)


def test_what_finds_no_room_is_lost_and_told_in_the_capture(bench: Bench, tmp_path: Path) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    capture = tmp_path / "tap.pcapng"
    with tap(bench, running, "udp_echo", "-w", str(capture), "--buffer-mib", "1") as popen:
        echoes(bench, CLIENT4, HOST4, [100])
        n_before = running.wait_ready()["taps"][0]["packets"]
        os.kill(popen.pid, signal.SIGSTOP)
        while running.wait_ready()["taps"][0]["lost"] < 500:
            send(bench, [bytes(1400)] * 100)
        os.kill(popen.pid, signal.SIGCONT)
        until(lambda: running.wait_ready()["taps"][0]["packets"] > n_before, "it reads again")
        in_capture(capture, 600)
        send(bench, [b"by the same queue"])  # its block tells of those before
        sent = until(lambda: running.wait_ready()["ledger"]["received"], "all came")
        _, told = end(popen)
    final = running.end()
    assert final["ledger"]["residual"] == 0
    n, lost = (int(word.replace(",", "")) for word in told.split()[0:3:2])
    assert lost >= 500
    assert n + lost == sent == final["ledger"]["received"]
    info = subprocess.run(
        ["capinfos", "-MTc", str(capture)], check=True, capture_output=True, text=True
    )
    assert str(n) in info.stdout
    drops = fields(capture, "frame.drop_count")
    assert sum(int(row[0]) for row in drops if row[0]) == lost


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_reader_that_ends_leaves_nothing_in_worker_and_supervisor(
    bench: Bench, tmp_path: Path, number: int
) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    pids = [running.popen.pid, *(worker["pid"] for worker in running.wait_ready()["workers"])]
    running.status()  # opens what stays open

    def open_files() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    def mapped() -> list[int]:
        return [Path(f"/proc/{pid}/maps").read_text().count("xdpipe-blocks") for pid in pids]

    with tap(bench, running, "udp_echo", "-w", str(tmp_path / "first")) as popen:
        popen.kill()
    until(lambda: n_taps(running) == 0, "it is gone")
    until(lambda: mapped() == [0, 0, 0], "the rings are let go")
    before = open_files()
    for _ in range(3):
        with tap(bench, running, "udp_echo", "-w", str(tmp_path / "tap")) as popen:
            echoes(bench, CLIENT4, HOST4, [100])
            popen.send_signal(number)
            popen.wait(30 * PATIENCE)
        until(lambda: n_taps(running) == 0, "it is gone")
        until(lambda: mapped() == [0, 0, 0], "the rings are let go")
    # a question for the status may be open now or have been before, a leak would be of each tap
    until(lambda: all(map(int.__le__, open_files(), before)), "no descriptor is left")
    n = echoes(bench, CLIENT4, HOST4, [100])
    final = running.end()
    assert final["ledger"]["residual"] == 0
    assert final["ledger"]["sent"] == 4 * n


def test_the_next_worker_copies_as_the_killed_one_did(bench: Bench, tmp_path: Path) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    capture = tmp_path / "tap.pcapng"
    with tap(bench, running, "udp_echo", "-w", str(capture)) as popen:
        n = echoes(bench, CLIENT4, HOST4, [100], rounds=16)
        for worker in running.wait_ready()["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)

        def serving_again() -> bool:
            workers = running.wait_ready()["workers"]
            return all(w["restarts"] == 1 and w["state"] == "serving" for w in workers)

        until(serving_again, "other workers serve")
        n += echoes(bench, CLIENT4, HOST4, [100], rounds=16)
        end(popen)
    assert len(fields(capture, "frame.comment")) == n
    assert running.end()["ledger"]["residual"] == 0


def test_the_pipelines_end_is_the_captures_end(bench: Bench, tmp_path: Path) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    capture = tmp_path / "tap.pcapng"
    with tap(bench, running, "udp_echo", "-w", str(capture)) as popen:
        n = echoes(bench, CLIENT4, HOST4, [100])
        final = running.end()
        _, told = popen.communicate(timeout=30 * PATIENCE)
        assert popen.returncode == 0
    assert told.strip() == f"{n:,} packets, 0 lost; the pipeline has ended"
    assert final["ledger"]["residual"] == 0
    assert len(fields(capture, "frame.comment")) == n


def test_each_port_is_an_interface_of_the_capture(tmp_path: Path) -> None:
    capture = tmp_path / "tap.pcapng"
    with crossing(tmp_path) as bench:
        running = bench.run(EXAMPLES / "inline_filter.py")
        args = ("inline_filter", "-w", str(capture), "--filter", "icmp", "--count", "10")
        with tap(bench, running, *args) as popen:
            bench.reach(HOST4, n=5)
            assert popen.wait(30 * PATIENCE) == 0
        running.end()
    seen = fields(capture, "icmp.type", "frame.interface_name", "frame.comment")
    names = {icmp: name.partition("-")[0] for icmp, name, _ in seen}
    assert names == {"8": "m0", "0": "m1"}  # requests come by the inside, replies by the outside
    assert {comment for _, _, comment in seen} == {"FORWARD by default"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nobody"], "nobody: no such pipeline runs; see: xdpipe status"),
        (["udp_echo", "--stage", "Nowhere"],
         "no stage Nowhere; there are: in, Headers, OnlyEchoable, SwapAddresses, out"),
        (["udp_echo", "--filter", "and and"], 'filter "and and": '),
        (["udp_echo", "-w", "/nowhere/file"], "/nowhere/file: No such file or directory"),
        (["udp_echo", "-w", "/dev/full", "--count", "1"], "/dev/full: No space left on device"),
        (["udp_echo", "--json"], "--json: what was captured goes to a file; add -w FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_one_clear_line(bench: Bench, args: list[str], told: str) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    done = bench.xdpipe("tap", *args)
    assert done.returncode == 1
    assert done.stderr.startswith(f"xdpipe: {told}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert n_taps(running) == 0
    running.end()
