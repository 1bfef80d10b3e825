"""`xdpipe craft --dev` as a user runs it: what it makes arrives, and the kernel takes it."""

import json
import socket

from hosts import CLIENT_MAC, HOST_MAC, SO_RCVBUFFORCE, Bench


def test_crafted_packets_arrive_and_a_socket_gets_their_payload(bench: Bench) -> None:
    """The kernel checks addresses, lengths and both checksums before a datagram is anybody's."""
    sock = bench.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    sock.bind(("10.1.0.1", 9))
    sock.settimeout(10)
    template = f'Ether(src="{CLIENT_MAC}", dst="{HOST_MAC}")/IP(dst="10.1.0.1")/UDP(dport=9)/"abc"'
    done = bench.xdpipe(
        "craft", template, "--vary", "IP.src=10.1.0.2-10.1.0.9", "--vary", "UDP.sport=2000-2024",
        "--size", "64,600", "--count", "400", "--pps", "20000", "--dev", "c0", "--json",
        where=bench.client,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["read"], told["sent"], told["refused"]) == (400, 400, 0)
    assert told["pps"] < 20_000 * 1.05
    with sock:
        got = [sock.recvfrom(2000) for _ in range(400)]
    assert {data[:3] for data, _ in got} == {b"abc"}
    assert sorted(len(data) for data, _ in got) == [18] * 200 + [554] * 200
    assert len({sender for _, sender in got}) == 200
    assert {data[3:].strip(b"\0") for data, _ in got} == {b""}


def test_a_link_that_is_down_is_a_line(bench: Bench) -> None:
    done = bench.xdpipe("craft", "IP()/UDP()", "--dev", "nothing", where=bench.client)
    assert done.returncode == 1
    assert done.stderr.startswith("xdpipe: nothing")
