"""examples/flood_guard.py: a UDP service is asked honestly while it is flooded."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import CLIENT4, EXAMPLES, HOST4, PATIENCE, Bench, until
from traffic import flood

PORT = 53
LIMIT, NEWCOMERS = 200, 2000  # of the example


@pytest.fixture
def service(bench: Bench) -> Iterator[None]:
    """Have the host answer what comes to the port."""
    sock = bench.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((HOST4, PORT))
    sock.settimeout(0.1)
    end = threading.Event()

    def answer() -> None:
        while not end.is_set():
            try:
                data, who = sock.recvfrom(2000)
                sock.sendto(data, who)
            except OSError:  # nothing to answer; or who asked is made up, and there is no route
                pass

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    end.set()
    thread.join()
    sock.close()


class Honest:
    """A client that asks some twenty times a second."""

    def __init__(self, bench: Bench) -> None:
        self.n_asked = self.n_answered = 0
        self._end = threading.Event()
        self._sock = bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._sock.bind((CLIENT4, 0))
        self._sock.connect((HOST4, PORT))
        self._sock.settimeout(1.0 * PATIENCE)
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._end.wait(0.05):
            data = b"%d" % self.n_asked
            self.n_asked += 1
            try:
                self._sock.send(data)
                while self._sock.recv(2000) != data:
                    pass
                self.n_answered += 1
            except OSError:
                pass

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self._sock.close()


@pytest.fixture
def honest(bench: Bench, service: None) -> Iterator[Honest]:
    honest = Honest(bench)
    yield honest
    honest.stop()


@pytest.mark.alone
@pytest.mark.parametrize("share", [1.0, 0.0], ids=["steady sources", "made-up sources"])
def test_honest_clients_are_served_all_along(
    bench: Bench, honest: Honest, tmp_path: Path, share: float
) -> None:
    capture = tmp_path / "flood.pcap"
    flood(capture, 60_000, 8, share, PORT)
    running = bench.run(EXAMPLES / "flood_guard.py", "--queues", "0-1")

    def known() -> bool:
        status = running.status()
        return status is not None and status["stages"][1]["counters"]["known"] > 5

    until(known, "the client is known")
    asked, answered = honest.n_asked, honest.n_answered
    bench.replay(capture, "--pps", "20000")
    assert honest.n_asked - asked > 10
    assert honest.n_answered - answered >= honest.n_asked - asked - 1  # one is on its way
    final = running.end()
    ledger, counters = final["ledger"], final["stages"][1]["counters"]
    assert ledger["residual"] == 0
    assert final["stages"][1]["errors"] == 0
    if share:
        [offenders] = final["sets"]
        assert offenders["entries"] == 8
        assert ledger["set_dropped"] > 50_000  # in the kernel, before they cost a frame
        assert counters["offending"] > 0
    else:
        assert ledger["set_dropped"] == 0
        seconds = 60_000 / 20_000 * PATIENCE
        assert counters["newcomers"] <= (seconds + 2) * NEWCOMERS * 2  # of two queues
        assert counters["too_many_newcomers"] > 60_000 - (seconds + 2) * NEWCOMERS * 2 - 1
        assert ledger["verdicts"]["DROP"] == counters["too_many_newcomers"]
