"""examples/one_to_one_nat.py: two hosts that know each other by other addresses than their own."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_router import ip, n_refused, stream

from hosts import CLIENT4, EXAMPLES, HOST4, PATIENCE, Crossing, crossing

FAR, CLIENT_OUTSIDE = "192.0.2.1", "192.0.2.2"
FAR_INSIDE = HOST4
"""The client has 10.1.0.2; the far end's own address is 192.0.2.1, and behind it is 203.0.113.1."""


@pytest.fixture(params=[False, True], ids=["none", "offloads"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crossing]:
    with crossing(tmp_path, offloads=request.param) as bench:
        ip(bench.client, f"route add 203.0.113.0/24 via {FAR_INSIDE}")
        ip(
            bench.far,
            f"address del {HOST4}/24 dev f0",
            f"address add {FAR}/24 dev f0",
            "link set lo up",
            "address add 203.0.113.1/32 dev lo",
        )
        yield bench


def refused(bench: Crossing, address: str) -> bool:
    """Whether the client is told that nobody listens: by a quoted packet that it knows again."""
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ours:
        ours.settimeout(5 * PATIENCE)
        ours.connect((address, 9))
        ours.send(b"is there anybody?")
        try:
            ours.recv(100)
        except ConnectionRefusedError:
            return True
    return False


def test_neighbours_and_those_behind_are_reached_from_either_side(bench: Crossing) -> None:
    running = bench.run(EXAMPLES / "one_to_one_nat.py")
    for address in (FAR_INSIDE, "203.0.113.1"):
        bench.reach(address)
        bench.reach(address, "-s", "4000")
        assert refused(bench, address)
    listener = bench.client.call(lambda: socket.create_server((CLIENT4, 2000)))
    with listener:
        listener.settimeout(5 * PATIENCE)
        with bench.far.call(lambda: socket.create_connection((CLIENT_OUTSIDE, 2000))) as theirs:
            ours, sender = listener.accept()
            with ours:
                assert sender[0] == FAR_INSIDE
                theirs.sendall(b"question")
                assert ours.recv(100) == b"question"
                ours.sendall(b"answer")
                assert theirs.recv(100) == b"answer"
    stream(bench, FAR, 5201, 5201, known_as=FAR_INSIDE)
    known = bench.client.run(["ip", "-json", "neighbour"], capture_output=True, text=True).stdout
    assert FAR_INSIDE in {entry["dst"] for entry in json.loads(known)}
    final = running.end()
    assert n_refused(bench.client) == n_refused(bench.far) == 0
    assert final["ledger"]["residual"] == 0
    counters = final["stages"][1]["counters"]
    assert counters["malformed"] == 0
    assert counters["arp"] >= 2
    assert counters["icmp_error"] == 2
    assert [stage["counters"]["set"] > 0 for stage in final["stages"][2:]] == [
        True, False, True, False, True, True,
    ]  # fmt: skip


def test_a_route_is_traced_through_it(bench: Crossing) -> None:
    """The router between says that a packet's time is up; the client knows its packet again."""
    bench.run(EXAMPLES / "one_to_one_nat.py")
    bench.far.run(["sysctl", "-q", "net.ipv4.ip_forward=1"])
    ip(bench.far, "route add 198.51.100.0/24 dev lo")
    ip(bench.client, f"route add 198.51.100.0/24 via {FAR_INSIDE}")
    told = bench.ping("198.51.100.9", "-t", "1", n=1)
    assert f"From {FAR_INSIDE} icmp_seq=1 Time to live exceeded" in told
