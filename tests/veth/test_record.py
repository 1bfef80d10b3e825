"""The stage Record in a pipeline that runs: files, and who may be killed meanwhile."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import CLIENT4, HOST4, PATIENCE, Bench, Running, until
from xdpipe.capture import CaptureReader

PIPELINE = """
from xdpipe import TX, Pipeline, Steering
from xdpipe.stages import Headers, Record, SwapAddresses

pipeline = Pipeline(
    Steering("udp dst port 7"),
    [Headers(), Record({directory!r}{options}), SwapAddresses()],
    default=TX,
)
"""


def pipeline(tmp_path: Path, directory: Path, options: str = "") -> Path:
    file = tmp_path / "rec.py"
    file.write_text(PIPELINE.format(directory=str(directory), options=options))
    return file


class Sender:
    """Numbered datagrams from two sockets, one for each queue, as far as they are echoed."""

    def __init__(self, bench: Bench) -> None:
        self.n = 0
        self.sent: Counter[int] = Counter()
        self.socks = [self._socket(bench, port) for port in range(5000, 5008)]

    def _socket(self, bench: Bench, port: int) -> socket.socket:
        sock = bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((CLIENT4, port))
        sock.connect((HOST4, 7))
        return sock

    def send(self, n: int, size: int = 500) -> None:
        for _ in range(n):
            try:
                self.socks[self.n % len(self.socks)].send(self.n.to_bytes(8, "big") + bytes(size))
            except ConnectionRefusedError:  # of one before: the kernel had the queue
                continue
            self.n += 1

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


@pytest.fixture
def sender(bench: Bench) -> Iterator[Sender]:
    sender = Sender(bench)
    yield sender
    sender.close()


def recorded(directory: Path) -> list[int]:
    """Return the numbers of the datagrams in all files, each of which is a whole one."""
    numbers = []
    for path in directory.glob("*.pcapng"):
        reader = CaptureReader(path)
        numbers += [int.from_bytes(packet.data[42:50], "big") for packet in reader]
        assert reader.truncated is None
        reader.close()
    return sorted(numbers)


def sums(final: dict[str, Any]) -> dict[str, int]:
    [stage] = [stage for stage in final["stages"] if stage["name"] == "Record"]
    rings = final["recordings"]
    return stage["counters"] | {
        "written": sum(ring["packets"] for ring in rings),
        "waiting": sum(ring["waiting"] for ring in rings),
        "ring_lost": sum(ring["lost"] for ring in rings),
    }


def recorder_of(running: Running) -> int:
    pids = {ring["pid"] for ring in running.wait_ready()["recordings"]}
    assert len(pids) == 1
    return int(pids.pop())


def test_what_comes_by_is_in_files_of_each_queue(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    running = bench.run(pipeline(tmp_path, directory, ", comments=True"))
    sender.send(400)
    pid = recorder_of(running)
    status = Path(f"/proc/{pid}/status").read_text()
    nobody = pwd.getpwnam("nobody")
    assert f"Uid:\t{nobody.pw_uid}" in status
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    final = running.end()
    assert final["stderr"] == ""
    assert sums(final) == {
        "recorded": 400, "lost": 0, "written": 400, "waiting": 0, "ring_lost": 0,
    }  # fmt: skip
    assert recorded(directory) == list(range(400))
    assert not Path(f"/proc/{pid}").exists()
    files = sorted(directory.iterdir())
    assert [file.name[:18] for file in files] == ["rec-h0-Record-q0-2", "rec-h0-Record-q1-2"]
    assert {file.stat().st_uid for file in [directory, *files]} == {nobody.pw_uid}
    if shutil.which("tshark") is None:
        return  # as in the VM; what follows is the same on every kernel
    done = subprocess.run(
        ["tshark", "-n", "-r", str(files[0]), "-c", "1", "-T", "fields", "-E", "separator=|",
         "-e", "frame.interface_name", "-e", "frame.comment"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "h0-q0-Record|undecided\n"


def test_killed_recorders_and_workers_leave_each_packet_written_once(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    running = bench.run(pipeline(tmp_path, directory, ", file_mib=1"))
    for number in range(4):
        pid = recorder_of(running)
        before = sums(running.wait_ready())["written"]
        sender.send(1000)
        until(lambda n=before: sums(running.wait_ready())["written"] > n, "it writes")
        sender.send(200)
        os.kill(pid, signal.SIGKILL)
        sender.send(1000)
        until(lambda pid=pid: recorder_of(running) not in (pid, None), "another one writes")
        if number == 2:
            worker = running.wait_ready()["workers"][0]
            os.kill(worker["pid"], signal.SIGKILL)
            sender.send(100)
            until(
                lambda: (
                    running.wait_ready()["workers"][0]["restarts"] == 1
                    and running.wait_ready()["workers"][0]["state"] == "serving"
                ),
                "another worker serves",
            )
    sender.send(100)
    until(lambda: not sums(running.wait_ready())["waiting"], "all is written")
    final = running.end()
    told = sums(final)
    assert final["ledger"]["residual"] == 0
    assert told["lost"] == told["ring_lost"] == told["waiting"] == 0
    numbers = recorded(directory)
    assert len(numbers) == len(set(numbers)) == told["written"]
    # a worker that is killed between ring and counter has recorded what it did not count
    assert 0 <= told["written"] - told["recorded"] <= 512
    assert told["written"] >= 9000 - 512
    assert final["stderr"].count("another one goes on where it was") == 4


def test_a_killed_supervisor_leaves_what_was_copied_written(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    running = bench.run(pipeline(tmp_path, directory))
    pid = recorder_of(running)
    sender.send(200)
    until(lambda: sums(running.wait_ready())["recorded"] == 200, "all came by")
    os.kill(running.popen.pid, signal.SIGKILL)
    running.popen.communicate()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the recorder ends by itself")
    assert recorded(directory) == list(range(200))
    assert bench.xdpipe("down", "h0").returncode == 0


def test_a_full_disk_holds_up_nobody_and_is_told(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "none", str(directory)],
                   check=True)  # fmt: skip
    try:
        running = bench.run(pipeline(tmp_path, directory, ", buffer_mib=1"))
        while sums(running.wait_ready())["lost"] < 100:
            sender.send(500)
        sender.send(300)
        until(lambda: running.wait_ready()["ledger"]["sent"] == sender.n, "it serves on")
        final = running.end()
        told = sums(final)
        numbers = recorded(directory)
        assert final["ledger"]["residual"] == 0
        assert "captures: No space left on device; once the buffer is full" in final["stderr"]
        assert len(numbers) == told["written"] > 300
        assert told["recorded"] == told["written"] + told["waiting"]
        assert told["recorded"] + told["lost"] == final["ledger"]["received"] == sender.n
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_directory_that_may_not_be_written_is_one_clear_line(
    bench: Bench, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    directory.mkdir(mode=0o755)
    done = bench.xdpipe("run", str(pipeline(tmp_path, directory)), "--dev", "h0")
    assert done.returncode == 1
    assert done.stderr == (
        f"xdpipe: {directory}: user nobody may not write there; chown nobody {directory}, "
        "or name another with --user\n"
    )
    (tmp_path / "file").touch()
    done = bench.xdpipe("run", str(pipeline(tmp_path, tmp_path / "file")), "--dev", "h0")
    assert (done.returncode, done.stderr) == (1, f"xdpipe: {tmp_path}/file: File exists\n")
    link = bench.host.run(["ip", "link", "show", "h0"], capture_output=True, text=True)
    assert "xdp" not in link.stdout


def test_a_recorder_that_stands_still_costs_copies_not_packets(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    running = bench.run(pipeline(tmp_path, directory, ", buffer_mib=1"))
    pid = recorder_of(running)
    os.kill(pid, signal.SIGSTOP)
    while sums(running.wait_ready())["lost"] < 100:
        sender.send(500)
    os.kill(pid, signal.SIGCONT)
    until(lambda: not sums(running.wait_ready())["waiting"], "it goes on", 30 * PATIENCE)
    final = running.end()
    told = sums(final)
    assert final["ledger"]["residual"] == 0
    assert final["ledger"]["sent"] == sender.n == told["recorded"] + told["lost"]
    assert len(recorded(directory)) == told["recorded"] == told["written"]
