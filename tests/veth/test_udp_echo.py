"""examples/udp_echo.py against a socket program that knows nothing of xdpipe."""

import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from hosts import CLIENT4, CLIENT6, EXAMPLES, HOST4, HOST6, Bench, echoes, vlan_switch

SIZES = [0, 1, 2, 3, 17, 18, 19, 512, 1000, 1471, 1472]


@pytest.mark.parametrize(
    ("local", "remote", "longest"),
    [(CLIENT4, HOST4, 1472), (CLIENT6, HOST6, 1452)],
)
def test_every_datagram_comes_back_byte_for_byte(
    bench: Bench, local: str, remote: str, longest: int
) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    sizes = [min(size, longest) for size in SIZES]
    n = echoes(bench, local, remote, sizes)
    final = running.end()
    ledger = final["ledger"]
    assert ledger["verdicts"]["TX"] == ledger["sent"] == n
    assert sum(ledger["refused"].values()) == 0
    assert ledger["residual"] == 0


@pytest.mark.parametrize(
    ("local", "remote"),
    [pytest.param(CLIENT4, HOST4, marks=pytest.mark.kernel), (CLIENT6, HOST6)],
)
def test_generic_mode_serves_as_well(bench: Bench, local: str, remote: str) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py", "--attach", "generic")
    n = echoes(bench, local, remote, SIZES[:-2])
    final = running.end()
    assert final["attach"] == "generic"
    assert [worker["attach"] for worker in final["workers"]] == ["generic", "generic"]
    assert final["ledger"]["sent"] == n
    assert final["ledger"]["residual"] == 0


def test_a_queue_that_is_not_served_stays_with_the_kernel(bench: Bench) -> None:
    """Only queue 1 is served; what comes by queue 0 reaches a server on the kernel's own socket."""
    running = bench.run(EXAMPLES / "udp_echo.py", "--queues", "1")
    new_socket = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # noqa: E731
    by_kernel = by_worker = 0
    with bench.host.call(new_socket) as server:
        server.bind((HOST4, 7))
        for _ in range(64):
            with bench.client.call(new_socket) as sock:
                sock.connect((HOST4, 7))
                sock.send(b"?")
                readable, _, _ = select.select([sock, server], [], [], 5)
                assert len(readable) == 1
                assert readable[0].recv(10) == b"?"
                by_kernel += readable[0] is server
                by_worker += readable[0] is sock
    ledger = running.end()["ledger"]
    assert by_kernel > 0 < by_worker
    assert (ledger["to_kernel"]["no_socket"], ledger["sent"]) == (by_kernel, by_worker)
    assert ledger["residual"] == 0


@pytest.mark.kernel
def test_another_worker_serves_after_one_was_killed(bench: Bench) -> None:
    """By the same socket where the kernel lets another process map its rings, else by a new one."""
    running = bench.run(EXAMPLES / "udp_echo.py")
    assert running.popen.stderr is not None
    n = echoes(bench, CLIENT4, HOST4, SIZES)
    n += echoes(bench, CLIENT4, HOST4, [100], rounds=16)
    status = running.status()
    assert status is not None
    os.kill(status["workers"][0]["pid"], signal.SIGKILL)
    assert "queue 0: its worker" in running.popen.stderr.readline()
    assert "queue 0: served again" in running.popen.stderr.readline()
    n += echoes(bench, CLIENT4, HOST4, [100], rounds=16)
    final = running.end()
    assert final["ledger"]["residual"] == 0
    assert final["ledger"]["sent"] == n
    for worker in final["workers"]:
        assert worker["packets"] > 0
        assert worker["frames"]["fill"] == worker["n_frames"]  # no frame leaked


@pytest.fixture
def behind_a_vlan(bench: Bench) -> Iterator[Bench]:
    """Return the bench with a VLAN switch at the client's end: 10.7.0.2 and fd07::2 on VLAN 42."""
    with vlan_switch(bench.client, 42, "10.7.0.2/24", "fd07::2/64"):
        yield bench


@pytest.mark.parametrize(("local", "remote"), [("10.7.0.2", "10.7.0.1"), ("fd07::2", "fd07::1")])
def test_every_datagram_comes_back_through_a_vlan(
    behind_a_vlan: Bench, local: str, remote: str
) -> None:
    running = behind_a_vlan.run(EXAMPLES / "udp_echo.py")
    n = echoes(behind_a_vlan, local, remote, [0, 1, 2, 100, 999, 1400])
    final = running.end()
    assert final["ledger"]["sent"] == n
    assert final["ledger"]["residual"] == 0
    assert final["stages"][0]["counters"]["vlan"] >= n


def test_echo_does_not_answer_an_echo_port(bench: Bench) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((CLIENT4, 7))
        sock.sendto(b"ping-pong", (HOST4, 7))
        echoes(bench, CLIENT4, HOST4, [9])  # its answer shows that the one before had its turn
    final = running.end()
    assert final["stages"][1]["counters"]["loop"] == 1
    assert final["ledger"]["verdicts"]["DROP"] == 1
