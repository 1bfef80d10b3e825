"""FlowMeter in a pipeline that runs: its records are what came by, whoever is killed meanwhile."""

import csv
import json
import os
import pwd
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_record import Sender

from hosts import CLIENT4, CLIENT_MAC, HOST4, HOST_MAC, Bench, Crossing, Running, crossing, until

PIPELINE = """
from xdpipe import PASS, TX, Pipeline, Steering
from xdpipe.stages import FlowMeter, Headers, SwapAddresses

pipeline = Pipeline(
    Steering({filter!r}),
    [Headers(), FlowMeter({path!r}{options}){swap}],
    default={default},
)
"""
ECHO = {"filter": "udp dst port 7", "swap": ", SwapAddresses()", "default": "TX"}


def pipeline(tmp_path: Path, path: Path, options: str = "", **more: str) -> Path:
    file = tmp_path / "meter.py"
    given = {**ECHO, **more}
    file.write_text(PIPELINE.format(path=str(path), options=options, **given))
    return file


@pytest.fixture
def sender(bench: Bench) -> Iterator[Sender]:
    sender = Sender(bench)
    yield sender
    sender.close()


def records(directory: Path) -> list[dict[str, Any]]:
    """Return the records of all files; none may be incomplete."""
    assert not list(directory.glob("*.part")) and not list(directory.glob("*.tmp"))
    found = []
    for path in sorted(directory.glob("*.ndjson")):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return found


def sums(final: dict[str, Any]) -> dict[str, int]:
    [stage] = [stage for stage in final["stages"] if stage["name"] == "FlowMeter"]
    rings = final["recordings"]
    return stage["counters"] | {
        "written": sum(ring["packets"] for ring in rings),
        "waiting": sum(ring["waiting"] for ring in rings),
        "ring_lost": sum(ring["lost"] for ring in rings),
    }


def writer_of(running: Running) -> int:
    pids = {ring["pid"] for ring in running.wait_ready()["recordings"]}
    assert len(pids) == 1
    return int(pids.pop())


def serves_again(running: Running, queue: int) -> bool:
    worker = running.wait_ready()["workers"][queue]
    return worker["restarts"] == 1 and worker["state"] == "serving"


def n_packets(rows: list[dict[str, Any]]) -> int:
    return sum(int(row["packetDeltaCount"]) + int(row["reversePacketDeltaCount"]) for row in rows)


def n_bytes(rows: list[dict[str, Any]]) -> int:
    return sum(int(row["octetDeltaCount"]) + int(row["reverseOctetDeltaCount"]) for row in rows)


def test_records_are_what_came_by(bench: Bench, sender: Sender, tmp_path: Path) -> None:
    directory = tmp_path / "flows"
    running = bench.run(pipeline(tmp_path, directory))
    pid = writer_of(running)
    status = Path(f"/proc/{pid}/status").read_text()
    nobody = pwd.getpwnam("nobody")
    assert f"Uid:\t{nobody.pw_uid}" in status
    assert "CapEff:\t0000000000000000" in status
    sender.send(400)
    until(lambda: sums(running.wait_ready())["metered"] == 400, "all came by")
    final = running.end()
    assert final["stderr"] == ""
    assert final["ledger"]["residual"] == 0
    rows = records(directory)
    assert n_packets(rows) == final["ledger"]["received"] == 400
    assert n_bytes(rows) == sum(w["bytes"] for w in final["workers"]) - 14 * 400
    assert {row["flowEndReason"] for row in rows} == {4}
    assert sorted(row["sourceTransportPort"] for row in rows) == list(range(5000, 5008))
    told = sums(final)
    assert (told["flows"], told["exported"], told["written"], told["waiting"]) == (8, 0, 8, 0)
    assert [r["reports"][0]["flows_max"] for r in final["stages"] if r["reports"]] == [65536]
    assert not Path(f"/proc/{pid}").exists()
    names = sorted(path.name[:21] for path in directory.iterdir())
    assert names == ["meter-h0-FlowMeter-q0", "meter-h0-FlowMeter-q1"]
    assert {path.stat().st_uid for path in directory.iterdir()} == {nobody.pw_uid}


def test_idle_flows_are_written_while_no_packet_comes(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "flows"
    running = bench.run(pipeline(tmp_path, directory / "f.csv", ", idle_s=0.5, file_s=1"))
    sender.send(80)
    until(lambda: sums(running.wait_ready())["written"] == 8, "all flows are told")

    def complete() -> list[dict[str, str]]:
        return [
            row
            for path in directory.glob("f-h0-q?-*.csv")
            for row in csv.DictReader(path.read_text().splitlines())
        ]

    until(lambda: n_packets(complete()) == 80, "files are complete by time")
    rows = complete()
    assert {row["flowEndReason"] for row in rows} == {"1"}
    final = running.end()
    assert sums(final)["idle"] == 8
    assert final["stages"][1]["reports"][0]["flows"] == 0


def test_killed_writers_and_workers_leave_each_record_written_once(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "flows"
    running = bench.run(pipeline(tmp_path, directory, ", idle_s=0.2"))
    for number in range(3):
        pid = writer_of(running)
        before = sums(running.wait_ready())["written"]
        sender.send(500)
        until(lambda n=before: sums(running.wait_ready())["written"] > n, "it writes")
        os.kill(pid, signal.SIGKILL)
        sender.send(500)
        until(lambda pid=pid: writer_of(running) not in (pid, None), "another one writes")
        for queue in (0, 1) if number == 1 else ():
            os.kill(running.wait_ready()["workers"][queue]["pid"], signal.SIGKILL)
            sender.send(50)
            until(lambda q=queue: serves_again(running, q), "another worker serves")
    sender.send(100)
    until(lambda: not sums(running.wait_ready())["waiting"], "all is written")
    final = running.end()
    told = sums(final)
    ledger = final["ledger"]
    assert ledger["residual"] == 0
    assert told["lost"] == told["ring_lost"] == told["waiting"] == 0
    rows = records(directory)
    assert len(rows) == told["written"]
    # what a killed worker had in hand it may have metered, or not
    in_doubt = ledger["verdicts"]["LOST_WITH_WORKER"]
    assert 0 <= ledger["received"] - n_packets(rows) <= in_doubt + told["other"]
    keys = Counter((row["sourceTransportPort"], row["flowStartNanoseconds"]) for row in rows)
    assert max(keys.values()) == 1
    assert final["stderr"].count("another one goes on where it was") == 3


def test_flows_outlive_their_worker(bench: Bench, sender: Sender, tmp_path: Path) -> None:
    directory = tmp_path / "flows"
    running = bench.run(pipeline(tmp_path, directory))
    sender.send(80)
    until(lambda: sums(running.wait_ready())["metered"] == 80, "all came by")
    for queue in (0, 1):
        os.kill(running.wait_ready()["workers"][queue]["pid"], signal.SIGKILL)
    for queue in (0, 1):
        until(lambda q=queue: serves_again(running, q), "another worker serves")
    reports = [report["flows"] for report in running.wait_ready()["stages"][1]["reports"]]
    assert sum(reports) == 8
    before = sender.n
    sender.send(80)
    until(lambda: sums(running.wait_ready())["metered"] == 80 + sender.n - before, "they came by")
    running.end()
    rows = records(directory)
    assert len(rows) == 8
    assert n_packets(rows) == sender.n


def test_a_killed_supervisor_leaves_every_flow_written(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "flows"
    running = bench.run(pipeline(tmp_path, directory))
    pid = writer_of(running)
    sender.send(200)
    until(lambda: sums(running.wait_ready())["metered"] == 200, "all came by")
    os.kill(running.popen.pid, signal.SIGKILL)
    running.popen.communicate()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the writer ends by itself")
    rows = records(directory)
    assert len(rows) == 8
    assert n_packets(rows) == 200
    assert bench.xdpipe("down", "h0").returncode == 0


def test_parquet_is_whole_after_a_kill(bench: Bench, sender: Sender, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="no pyarrow")
    directory = tmp_path / "flows"
    running = bench.run(pipeline(tmp_path, directory, ", format='parquet', idle_s=0.2"))
    sender.send(200)
    until(lambda: sums(running.wait_ready())["written"] == 8, "all flows are written")
    pid = writer_of(running)
    os.kill(pid, signal.SIGKILL)
    until(lambda: writer_of(running) not in (pid, None), "another one writes")
    sender.send(200)
    running.end()
    assert [path.suffix for path in directory.iterdir()] == [".parquet"] * 2
    rows = [row for path in directory.iterdir() for row in parquet.read_table(path).to_pylist()]
    assert n_packets(rows) == 400


def test_a_full_disk_holds_up_nobody_and_records_wait(
    bench: Bench, sender: Sender, tmp_path: Path
) -> None:
    directory = tmp_path / "flows"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0777", "none", str(directory)],
                   check=True)  # fmt: skip
    try:
        # with room for one flow, each packet of another one has a record written
        running = bench.run(pipeline(tmp_path, directory, ", n_flows=1, evict=True"))
        sender.send(2000)  # a queue has four of the eight flows at least: 350 kB of text or more
        assert running.popen.stderr is not None
        told = running.popen.stderr.readline()  # it has tried
        assert "flows: No space left on device; once the buffer is full, records of" in told
        until(lambda: sums(running.wait_ready())["waiting"], "records wait")
        sender.send(100)
        until(lambda: running.wait_ready()["ledger"]["sent"] == sender.n, "it serves on")
        subprocess.run(["mount", "-o", "remount,size=16m", str(directory)], check=True)
        until(lambda: not sums(running.wait_ready())["waiting"], "it goes on")
        final = running.end()
        assert "recorded again" in final["stderr"]
        rows = records(directory)
        assert n_packets(rows) == sums(final)["metered"] == sender.n
        assert {row["flowEndReason"] for row in rows} == {4, 5}
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_directory_that_cannot_be_is_one_clear_line(bench: Bench, tmp_path: Path) -> None:
    done = bench.xdpipe("run", str(pipeline(tmp_path, Path("/proc/none/flows"))), "--dev", "h0")
    assert done.returncode == 1
    assert done.stderr == "xdpipe: /proc/none/flows: No such file or directory\n"


def test_two_meters_may_not_write_the_same_files(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    file = pipeline(tmp_path, path)
    text = file.read_text()
    file.write_text(text.replace("[Headers(), ", f"[Headers(), FlowMeter({str(path)!r}), "))
    done = bench.xdpipe("run", str(file), "--dev", "h0")
    assert done.returncode == 1
    assert done.stderr == (
        f"xdpipe: {tmp_path}/flows-h0-q0: two stages would write files of that name\n"
    )


CROSSING = """
from xdpipe import FORWARD, Pipeline, Steering
from xdpipe.stages import FlowMeter, Headers

pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("tcp port 5201", guard=False),
    stages=[Headers(), FlowMeter({path!r})],
    default=FORWARD,
)
"""


def echo_tcp(bench: Crossing, n: int) -> None:
    """Have the client connect to far, send n bytes and read as many back; both sides close."""
    family = socket.AF_INET
    with (
        bench.far.call(lambda: socket.socket(family, socket.SOCK_STREAM)) as listener,
        bench.client.call(lambda: socket.socket(family, socket.SOCK_STREAM)) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST4, 5201))
        listener.listen()

        def serve() -> None:
            server, _ = listener.accept()
            with server:
                while data := server.recv(1 << 16):
                    server.sendall(data)

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            client.settimeout(30)
            client.connect((HOST4, 5201))
            for _ in range(n // 10_000):
                client.sendall(bytes(10_000))
                left = 10_000
                while left:
                    left -= len(client.recv(left))
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
            served.result(30)


def test_tcp_connections_are_what_crossed_the_host(tmp_path: Path) -> None:
    n_connections, n = 5, 1_000_000
    with crossing(tmp_path) as bench:
        for where, dev, address, mac in (
            (bench.client, "c0", HOST4, HOST_MAC), (bench.far, "f0", CLIENT4, CLIENT_MAC),
        ):  # fmt: skip
            where.run(["ip", "neigh", "add", address, "lladdr", mac, "dev", dev])
        file = tmp_path / "cross.py"
        file.write_text(CROSSING.format(path=str(tmp_path / "flows" / "f.ndjson")))
        running = bench.run(file)
        for _ in range(n_connections):
            echo_tcp(bench, n)
        final = running.end()
    rows = records(tmp_path / "flows")
    ledger = final["ledger"]
    assert ledger["residual"] == 0
    assert n_packets(rows) == ledger["received"] == sums(final)["metered"]
    assert n_bytes(rows) == sum(w["bytes"] for w in final["workers"]) - 14 * n_packets(rows)
    sent: Counter[str] = Counter()
    for row in rows:
        sent[row["sourceIPv4Address"]] += row["octetDeltaCount"] - 52 * row["packetDeltaCount"]
        sent[row["destinationIPv4Address"]] += (
            row["reverseOctetDeltaCount"] - 52 * row["reversePacketDeltaCount"]
        )
    # a SYN has 8 bytes of options more than all others, and what was lost is sent again
    for host in (CLIENT4, HOST4):
        assert n_connections * (n + 8) <= sent[host] <= 1.1 * n_connections * n
    ports = {(row["sourceTransportPort"] + row["destinationTransportPort"] - 5201) for row in rows}
    assert len(ports) == n_connections
    both = [row for row in rows if row["reversePacketDeltaCount"]]
    for row in both:  # its two directions came by the same queue
        assert row["destinationTransportPort"] == 5201
        assert row["flowEndReason"] == 3
        assert row["tcpControlBits"] & 0x13 == row["reverseTcpControlBits"] & 0x13 == 0x13
    assert len(rows) == len(both) + 2 * (n_connections - len(both))
