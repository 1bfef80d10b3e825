"""Packets that are taken and given back: the host's programs do not notice."""

import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hosts import (
    CLIENT4,
    HOST4,
    HOST6,
    KERNEL,
    PATIENCE,
    PIPELINES,
    SO_RCVBUFFORCE,
    Bench,
    until,
)

SIZE = 100 << 20 if PATIENCE == 1 else 4 << 20  # bytes
PASS_ALL = PIPELINES / "pass_all.py"


def check_books(final: dict[str, Any]) -> None:
    ledger = final["ledger"]
    assert ledger["residual"] == 0, ledger
    assert ledger["passed"] == ledger["verdicts"]["PASS"] > 0, ledger
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker


@pytest.fixture(params=[False, True], ids=["checksums filled", "checksums left to the link"])
def offloads(bench: Bench, request: pytest.FixtureRequest) -> bool:
    """Have the client's kernel leave checksums to the link, which leaves it at that, or not."""
    if request.param:
        for namespace, dev in ((bench.host, "h0"), (bench.client, "c0")):
            namespace.run(["ethtool", "-K", dev, "tx", "on", "tso", "on", "gso", "on"])
    return bool(request.param)


@pytest.mark.kernel
def test_ping_and_dns_and_a_rest_of_nothing(bench: Bench, tmp_path: Path) -> None:
    running = bench.run(PASS_ALL)
    for address in (HOST4, HOST6):
        bench.reach(address, "-s", "1400", n=20)
    with bench.host.popen(
        ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root",
         "--group=root", f"--pid-file={tmp_path}/pid", f"--listen-address={HOST4},{HOST6}",
         "--bind-interfaces", "--address=/example.com/192.0.2.1"],
        stderr=subprocess.DEVNULL,
    ) as dnsmasq:  # fmt: skip

        def ask(*options: str) -> str:
            done = bench.client.run(
                ["dig", "+short", "+tries=1", f"+time={5 * PATIENCE}", *options, "example.com"],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            return str(done.stdout.strip())

        until(lambda: ask(f"@{HOST4}") == "192.0.2.1", "an answer")
        assert ask(f"@{HOST6}") == ask(f"@{HOST4}", "+tcp") == "192.0.2.1"
        dnsmasq.kill()
    final = running.end()
    check_books(final)
    assert final["ledger"]["received"] == final["ledger"]["passed"]


class Files(BaseHTTPRequestHandler):
    """GET gives the file of the server, PUT the SHA-256 of what was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data: bytes = self.server.data  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self) -> None:
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            digest.update(piece)
            left -= len(piece)
        self.send_response(200)
        self.send_header("Content-Length", "64")
        self.end_headers()
        self.wfile.write(digest.hexdigest().encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_server(bench: Bench, data: bytes) -> Iterator[None]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6  # takes IPv4 as well

    server = bench.host.call(lambda: Server(("::", 8000), Files))
    server.data = data  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("address", [HOST4, f"[{HOST6}]"], ids=["IPv4", "IPv6"])
def test_curl_fetches_and_sends_byte_for_byte(
    bench: Bench, tmp_path: Path, offloads: bool, address: str
) -> None:
    data = os.urandom(SIZE)
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(data)
    with http_server(bench, data):
        running = bench.run(PASS_ALL)
        url = f"http://{address}:8000/"
        curl = ["curl", "-sS", "--max-time", str(60 * PATIENCE)]
        bench.client.run([*curl, "-o", str(got), url])
        assert got.read_bytes() == data
        answer = bench.client.run([*curl, "-T", str(sent), url], capture_output=True, text=True)
        assert answer.stdout == hashlib.sha256(data).hexdigest()
        final = running.end()
    check_books(final)
    counters = final["stages"][0]["counters"]
    # one in 65536 right checksums looks as if it were none yet
    assert counters["partial_checksum"] >= counters["tcp"] if offloads else (
        counters["partial_checksum"] < 50
    )  # fmt: skip


def test_a_session_lives_through_starts_and_stops(bench: Bench) -> None:
    listener = bench.host.call(lambda: socket.create_server((HOST4, 2000)))
    with listener, bench.client.call(lambda: socket.create_connection((HOST4, 2000))) as ours:
        theirs, _ = listener.accept()
        ours.settimeout(20 * PATIENCE)
        n = 0

        def exchange(seconds: float) -> None:
            nonlocal n
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                ours.sendall(n.to_bytes(8, "big"))
                assert theirs.recv(8, socket.MSG_WAITALL) == n.to_bytes(8, "big")
                theirs.sendall(b"x" * 100)
                assert len(ours.recv(100, socket.MSG_WAITALL)) == 100
                n += 1

        with theirs:
            passed = 0
            for _ in range(3):
                exchange(0.1)
                running = bench.run(PASS_ALL)
                exchange(0.3)
                stopping = threading.Thread(target=running.end)
                stopping.start()
                exchange(0.5)
                stopping.join()
                check_books(running.final)
                passed += running.final["ledger"]["passed"]
    assert n > 100
    assert passed > 100


def test_a_flow_stays_in_order_and_only_what_was_dropped_is_missing(bench: Bench) -> None:
    n, ahead = 20_000, 1000

    def has_received(n_packets: int) -> bool:
        status = running.status()
        return status is not None and status["ledger"]["received"] >= n_packets

    with (
        bench.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver,
        bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
    ):
        # a frame of the kernel's live mode is a page, so a packet counts for more than it is
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        receiver.bind((HOST4, 9000))
        running = bench.run(PIPELINES / "pass_even.py")
        for i in range(n):
            if i % ahead == 0:  # no more than the queue has frames for, however busy its core
                until(lambda i=i: has_received(i - ahead), "they are received")
            sender.sendto(bytes([i % 256]) + i.to_bytes(4, "big") + bytes(60), (HOST4, 9000))
        until(lambda: has_received(n), "all are received")
        final = running.end()
        assert final["stages"][1]["counters"]["odd"] == n // 2
        assert final["ledger"]["verdicts"]["DROP"] == n // 2
        check_books(final)
        receiver.settimeout(5 * PATIENCE)
        got = [int.from_bytes(receiver.recv(2048)[1:5], "big") for _ in range(n // 2)]
    assert got == list(range(0, n, 2))


def test_a_worker_killed_while_it_gives_back_closes_its_books(bench: Bench) -> None:
    running = bench.run(PASS_ALL)
    stop = threading.Event()

    def send() -> None:
        with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            while not stop.is_set():
                sender.sendto(bytes(200), (HOST4, 9))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for round_ in (1, 2):
            status = until(running.status, "its status")
            for worker in status["workers"]:
                os.kill(worker["pid"], signal.SIGKILL)

            def served(round_: int = round_) -> bool:
                now = running.status()
                return now is not None and all(
                    (w["state"], w["restarts"]) == ("serving", round_) for w in now["workers"]
                )

            until(served, "other workers serve")
    finally:
        stop.set()
        thread.join()
    final = running.end()
    ledger = final["ledger"]
    assert ledger["residual"] == 0, ledger
    assert ledger["passed"] + sum(ledger["pass_refused"].values()) == ledger["verdicts"]["PASS"] > 0


def test_packets_longer_than_the_kernels_frames_are_counted(bench: Bench) -> None:
    if KERNEL < (6, 6):
        pytest.skip("packets in several frames take Linux 6.6")
    for namespace, dev in ((bench.host, "h0"), (bench.client, "c0")):
        namespace.run(["ip", "link", "set", dev, "mtu", "9000"])
    running = bench.run(PASS_ALL)
    for size, arrives in ((3000, True), (3500, False), (8000, False)):
        told = bench.ping(HOST4, "-W", "1", "-s", str(size), n=3)
        assert (" 0% packet loss" in told) == arrives, told
    final = running.end()
    assert final["ledger"]["pass_refused"] == {"too_long": 6, "kernel": 0}
    assert "h0 has an MTU of 9000: packets of more than some 3400 bytes" in final["stderr"]
    assert final["ledger"]["residual"] == 0


def test_in_generic_mode_there_is_no_way_back_and_that_is_said(bench: Bench) -> None:
    done = bench.xdpipe("run", str(PASS_ALL), "--dev", "h0", "--attach", "generic")
    assert done.returncode == 1
    assert done.stderr == (
        "xdpipe: default=PASS: h0 runs the program in generic mode, in which packets that are "
        "given back to the kernel would meet it again\n"
    )
    running = bench.run(PIPELINES / "pass_even.py", "--attach", "generic")
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.bind((CLIENT4, 0))
        for i in range(10):
            sender.sendto(bytes([i]), (HOST4, 9))
    final = running.end()
    assert final["ledger"]["verdicts"]["DROP"] == 5
    assert final["ledger"]["pass_refused"] == {"too_long": 0, "kernel": 5}
    assert final["ledger"]["residual"] == 0
