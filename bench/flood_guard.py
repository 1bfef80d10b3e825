"""A name server under a flood: without xdpipe, and with examples/flood_guard.py before it.

Twenty clients ask it honestly, each ten times a second, and are known when the flood begins: DNS
queries at top speed, from 64 hosts that stay or from made-up ones. What counts is the share of
honest queries that get an answer within a second, and the worker's time per packet of the flood,
with the set of offenders and without it. Sender on core 0, worker on core 1, with the name server.
"""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness
from running import PIPELINES, RunningPipeline

from xdpipe.netns import Namespace, VethEnd, veth_pair

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
from traffic import flood  # noqa: E402

SERVER, PORT, N_CLIENTS, ASK_S = "10.1.0.1", 53, 20, 0.1
NAME = b"\x03www\x07example\x03com\x00"
QUERY = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + NAME + b"\x00\x01\x00\x01"
N_FLOOD = 2_000_000  # so that no made-up source comes twice
FLOOD_PPS = 300_000  # what the link carries without loss: else honest packets are lost there
GUARD = ROOT / "examples" / "flood_guard.py"


class Clients:
    """Honest clients, one thread for all."""

    def __init__(self, namespace: Namespace) -> None:
        self.n_asked = self.n_answered = 0
        self._open: dict[tuple[int, bytes], float] = {}
        self._sockets = [namespace.call(self._make(n)) for n in range(N_CLIENTS)]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _make(self, number: int):  # type: ignore[no-untyped-def]
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((f"10.1.0.{100 + number}", 0))
            sock.connect((SERVER, PORT))
            sock.setblocking(False)
            return sock

        return make

    def _run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            now = time.monotonic()
            if now >= due:
                due += ASK_S
                for number, sock in enumerate(self._sockets):
                    self.n_asked += 1
                    key = self.n_asked % 65536
                    self._open[number, key.to_bytes(2, "big")] = now
                    with contextlib.suppress(OSError):  # not answered, then
                        sock.send(key.to_bytes(2, "big") + QUERY)
            for number, sock in enumerate(self._sockets):
                with contextlib.suppress(OSError):
                    while True:
                        asked = self._open.pop((number, sock.recv(2000)[:2]), None)
                        self.n_answered += asked is not None and time.monotonic() - asked < 1.0
            time.sleep(0.002)

    def begin(self) -> None:
        """Count from here on, and no answers to what was asked before."""
        self._open.clear()
        self.n_asked = self.n_answered = 0

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()


def measure(guard: Path | None, capture: Path, seconds: float) -> dict[str, float]:
    host, client = Namespace(), Namespace()
    addresses = [f"10.1.0.{n}/24" for n in (2, *range(100, 100 + N_CLIENTS))]
    veth_pair(
        VethEnd("h0", host, [f"{SERVER}/24"], mac="02:00:00:00:00:01", offloads=False),
        VethEnd("c0", client, addresses, mac="02:00:00:00:00:02", offloads=False),
        n_queues=1,
    )
    server = host.popen(
        ["taskset", "--cpu-list", "1", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
         "--user=root", "--group=root", "--pid-file=", "--no-resolv", "--no-hosts",
         "--bind-interfaces", f"--listen-address={SERVER}",
         "--host-record=www.example.com,192.0.2.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    running = None if guard is None else RunningPipeline(host, guard)
    if running is not None:
        running.wait_ready()
    clients = Clients(client)
    time.sleep(3)  # in which they become known
    clients.begin()
    before = None if running is None else running.status()
    replay = client.popen(
        ["taskset", "--cpu-list", "0", sys.executable, "-P", "-m", "xdpipe", "replay",
         str(capture), "--dev", "c0", "--loop", "1000000", "--pps", str(FLOOD_PPS), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    time.sleep(1 + seconds)
    replay.terminate()
    sent = json.loads(replay.communicate()[0])
    n_asked, n_answered = clients.n_asked, clients.n_answered
    busy_ns = 0.0
    if running is not None and before is not None:
        after = running.end()
        [was], [now] = before["workers"], after["workers"]
        busy_ns = now["busy_ns"] - was["busy_ns"]
        if after["ledger"]["residual"]:
            harness.fail(f"residual {after['ledger']['residual']}")
    clients.stop()
    server.kill()
    server.wait()
    host.close()
    client.close()
    return {
        "answered": n_answered / n_asked,
        "ns": busy_ns / sent["sent"],
        "pps": sent["sent"] / sent["seconds"],
    }


def main() -> None:
    given = harness.options(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as place:
        steady, made_up = Path(place, "steady.pcap"), Path(place, "made_up.pcap")
        flood(steady, N_FLOOD, 64, 1.0, PORT, b"\0\0" + QUERY)
        flood(made_up, N_FLOOD, 64, 0.0, PORT, b"\0\0" + QUERY)
        without_set = PIPELINES / "flood_guard_without_set.py"
        contestants = {
            "bare, steady": lambda: measure(None, steady, given.seconds),
            "guard, steady": lambda: measure(GUARD, steady, given.seconds),
            "no set, steady": lambda: measure(without_set, steady, given.seconds),
            "bare, made up": lambda: measure(None, made_up, given.seconds),
            "guard, made up": lambda: measure(GUARD, made_up, given.seconds),
        }
        results = harness.alternate(contestants, given.rounds, harness.Console(stderr=True))

    def of(name: str, key: str) -> list[float]:
        return harness.series(results[name], key)

    rows = [
        *(
            harness.compare(
                f"answered_{kind.replace(' ', '_')}", "share", of(f"guard, {kind}", "answered"),
                "no xdpipe", [max(share, 1e-3) for share in of(f"bare, {kind}", "answered")], "",
            )
            for kind in ("steady", "made up")
        ),
        harness.alone("answered_min", "share", [
            min(pair) for pair in zip(of("guard, steady", "answered"),
                                      of("guard, made up", "answered"), strict=True)
        ], "≥ 0.99"),
        harness.compare("worker_ns_steady", "ns/pkt", of("guard, steady", "ns"), "without the set",
                        of("no set, steady", "ns"), "≤ 0.05"),
        harness.alone("worker_ns_made_up", "ns/pkt", of("guard, made up", "ns")),
        harness.alone("flood", "pkt/s", of("guard, steady", "pps")),
    ]  # fmt: skip
    facts = {"driver": "veth", "mode": "copy, native XDP", "packet": "75 bytes", "queues": "1"}
    harness.report("flood_guard", rows, facts, given)


if __name__ == "__main__":
    main()
