"""Packets that go across with other addresses, ports, TTL and tags: the kernels take every one.

A kernel throws away what has a wrong checksum and counts it; of a TCP session not a byte may be
missing. Client and far end leave checksums to their links, or do not, and so does the host between.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import KERNEL, PATIENCE, PIPELINES, Crossing, crossing, vlan_switch
from programs import iperf3
from xdpipe.netns import Namespace

FAR = {4: "192.0.2.1", 6: "fd02::1"}
IPERF_S = float(os.environ.get("XDPIPE_IPERF_S", "1"))
ROUTER = PIPELINES / "router.py"


def ip(namespace: Namespace, *commands: str) -> None:
    for command in commands:
        namespace.run(["ip", *command.split()])


def make_networks(bench: Crossing) -> None:
    """Give client and far end a network each, and the router's addresses in it."""
    ip(
        bench.client,
        "neighbour add 10.1.0.254 lladdr 02:00:00:00:01:01 dev c0",
        "neighbour add fd01::fe lladdr 02:00:00:00:01:01 dev c0",
        "route add 192.0.2.0/24 via 10.1.0.254",
        "route add fd02::/64 via fd01::fe",
    )
    ip(
        bench.far,
        "address add 192.0.2.1/24 dev f0",
        "address add fd02::1/64 dev f0 nodad",
        "neighbour add 192.0.2.254 lladdr 02:00:00:00:01:02 dev f0",
        "neighbour add fd02::ffff lladdr 02:00:00:00:01:02 dev f0",
    )


def n_refused(namespace: Namespace) -> int:
    """Return how many packets the kernel threw away for a checksum or an IP header."""
    n = 0
    lines = namespace.run(["cat", "/proc/net/snmp"], capture_output=True, text=True).stdout
    pairs = [line.split() for line in lines.splitlines()]
    for names, values in zip(pairs[::2], pairs[1::2], strict=True):
        told = dict(zip(names[1:], values[1:], strict=True))
        n += int(told.get("InCsumErrors", 0)) + int(told.get("InHdrErrors", 0))
    lines = namespace.run(["cat", "/proc/net/snmp6"], capture_output=True, text=True).stdout
    for name, value in (line.split() for line in lines.splitlines()):
        if name.endswith(("InCsumErrors", "InHdrErrors")):
            n += int(value)
    return n


def exchange(bench: Crossing, address: str) -> int:
    """Have datagrams echoed, fragmented ones as well; return how many."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sizes = (0, 1, 2, 99, 1400, 3001, 9000)
    with (
        bench.far.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as far,
        bench.client.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as ours,
    ):
        far.bind((address, 5000))
        far.settimeout(5 * PATIENCE)
        ours.settimeout(5 * PATIENCE)
        ours.connect((address, 5000))
        for size in sizes:
            data = os.urandom(size)
            ours.send(data)
            got, sender = far.recvfrom(65535)
            assert got == data
            assert sender[0] in ("192.0.2.254", "fd02::ffff")
            far.sendto(got, sender)
            assert ours.recv(65535) == data
    return len(sizes)


def stream(
    bench: Crossing, address: str, port: int, real_port: int, known_as: str | None = None
) -> None:
    """Run a TCP session in either direction, each with a server of its own."""
    for reverse in ([], ["-R"]):
        end = iperf3(
            bench,
            address,
            "-t",
            str(IPERF_S),
            *reverse,
            port=real_port,
            at=(known_as or address, port),
        )
        assert end["sum_received"]["bytes"] > 1e6 * IPERF_S


@pytest.mark.parametrize(
    ("offloads", "host_offloads"),
    [(False, False), (True, False), (True, True)],
    ids=["none", "ends", "all"],
)
def test_a_router_with_other_addresses_outside(
    tmp_path: Path, offloads: bool, host_offloads: bool
) -> None:
    with crossing(tmp_path, offloads=offloads) as bench:
        make_networks(bench)
        if host_offloads:
            for dev in ("m0", "m1"):
                bench.host.run(["ethtool", "-K", dev, "tx", "on"])
        running = bench.run(ROUTER)
        for address in FAR.values():
            for size in ("56", "3000"):
                assert bench.reach(address, "-s", size, n=5).count("ttl=63") == 5
            exchange(bench, address)
            stream(bench, address, 8000, 9000)
        expired = ["ping", "-c", "5", "-i", "0.02", "-W", "1", "-t", "1", FAR[4]]
        assert bench.client.run(expired, check=False, capture_output=True).returncode == 1
        final = running.end()
        assert n_refused(bench.client) == n_refused(bench.far) == 0
        assert final["ledger"]["residual"] == 0
        counters = {stage["name"]: stage["counters"] for stage in final["stages"]}
        assert counters["DecrementTtl"]["expired"] == 5
        assert counters["See"]["not"] == 0
        assert counters["See"]["rewritten"] == counters["DecrementTtl"]["decremented"] > 1000
        for stage in ("SetAddresses", "SetAddresses#2", "SetAddresses#3", "SetAddresses#4"):
            assert counters[stage]["left_alone"] == counters[stage]["partly"] == 0
            assert counters[stage]["set"] > 0
        n_partial = counters["Headers"]["partial_checksum"]
        assert (n_partial > 100) == offloads


def test_jumbo_packets_in_several_frames(tmp_path: Path) -> None:
    if KERNEL < (6, 6):
        pytest.skip("packets in several frames take Linux 6.6")
    with crossing(tmp_path, mtu=9000) as bench:
        make_networks(bench)
        running = bench.run(ROUTER)
        bench.reach(FAR[4], "-M", "do", "-s", "8972")
        bench.reach(FAR[6], "-s", "8900")
        for address in FAR.values():
            exchange(bench, address)
        assert n_refused(bench.client) == n_refused(bench.far) == 0
        assert running.end()["ledger"]["residual"] == 0


@pytest.fixture
def tagged(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crossing]:
    """Return a client behind a VLAN switch, in VLAN 5, in one network with the far end."""
    with crossing(tmp_path, offloads=request.param) as bench:
        ip(
            bench.far,
            "address add 10.7.0.1/24 dev f0",
            "address add fd07::1/64 dev f0 nodad",
            "neighbour add 10.7.0.2 lladdr 02:00:00:00:00:02 dev f0",
            "neighbour add fd07::2 lladdr 02:00:00:00:00:02 dev f0",
        )
        # what the switch sends is whole, and its packets are no longer than a cable takes
        bench.client.run(["ethtool", "-K", "c0", "gro", "off", "tx", "off", "rxvlan", "off"])
        with vlan_switch(bench.client, 5, "10.7.0.2/24", "fd07::2/64"):
            yield bench


@pytest.mark.parametrize("tagged", [False, True], ids=["none", "far end"], indirect=True)
def test_tags_are_taken_out_and_put_in(tagged: Crossing) -> None:
    running = tagged.run(PIPELINES / "vlan.py")
    for address in ("10.7.0.1", "fd07::1"):
        tagged.reach(address)
        tagged.reach(address, "-s", "1400")
        tagged.reach(address, "-s", "3000")
    stream(tagged, "10.7.0.1", 5201, 5201)
    final = running.end()
    assert n_refused(tagged.client) == n_refused(tagged.far) == 0
    assert final["ledger"]["residual"] == 0
    pop, push, change = (stage["counters"] for stage in final["stages"][2:])
    assert pop["no_room"] == push["no_room"] == pop["left_alone"] == push["left_alone"] == 0
    assert pop["changed"] > 100
    assert push["changed"] == change["changed"] > 100
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker
