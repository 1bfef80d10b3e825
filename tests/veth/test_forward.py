"""Packets that come by one port and go out of another."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import (
    CLIENT4,
    EXAMPLES,
    HOST4,
    HOST6,
    KERNEL,
    PATIENCE,
    PIPELINES,
    Crossing,
    crossing,
    until,
)
from programs import iperf3

CROSS = PIPELINES / "cross.py"
IPERF_S = float(os.environ.get("XDPIPE_IPERF_S", "1"))
"""Seconds of each direction and protocol; for a long run by hand."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Crossing]:
    with crossing(tmp_path) as bench:
        yield bench


def check_books(final: dict[str, Any]) -> None:
    ledger = final["ledger"]
    assert ledger["residual"] == 0, ledger
    assert ledger["forwarded"] == ledger["verdicts"]["FORWARD"] > 0
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker
    inside, outside = final["ports"]
    for one, other in ((inside, outside), (outside, inside)):
        assert one["verdicts"]["FORWARD"] == other["forwarded"]
        assert other["forwarded"] == other["sent"] + sum(other["refused"].values())


def promiscuity(bench: Crossing) -> list[int]:
    shown = bench.host.run(["ip", "-json", "-d", "link"], capture_output=True, text=True).stdout
    return [link["promiscuity"] for link in json.loads(shown) if link["ifname"] in ("m0", "m1")]


def test_two_hosts_see_each_other_through_it_and_only_through_it(bench: Crossing) -> None:
    assert " 100% packet loss" in bench.ping(HOST4, "-W", "1", n=2)
    bench.client.run(["ip", "neigh", "flush", "dev", "c0"])
    running = bench.run(CROSS)
    for address in (HOST4, HOST6):  # and ARP, and neighbour discovery
        bench.reach(address, "-s", "1400")
    bench.reach(HOST4, "-M", "do", "-s", "1472")
    assert promiscuity(bench) == [1, 1]  # or a NIC would not take what is for the other side
    status = running.status()
    assert status is not None
    final = running.end()
    assert promiscuity(bench) == [0, 0]
    check_books(final)
    assert [port["name"] for port in final["ports"]] == ["inside", "outside"]
    assert [port["dev"] for port in final["ports"]] == ["m0", "m1"]
    assert all(port["to_kernel"]["no_socket"] == 0 for port in status["ports"])
    assert " 100% packet loss" in bench.ping(HOST4, "-W", "1", n=2)


@pytest.mark.parametrize("offloads", [False, True])
def test_iperf3_in_both_directions(tmp_path: Path, offloads: bool) -> None:
    """Residual 0; and every byte of a TCP session, or it would end with an error."""
    with crossing(tmp_path, offloads=offloads) as bench:
        running = bench.run(CROSS)
        for reverse in ([], ["-R"]):
            end = iperf3(bench, HOST4, "-t", str(IPERF_S), *reverse)
            assert end["sum_received"]["bytes"] > 1e6 * IPERF_S
            udp = ["-u", "-b", "200M", "-l", "1400"]
            end = iperf3(bench, HOST4, "-t", str(IPERF_S), *udp, *reverse)
            assert end["sum"]["packets"] > 1000 * IPERF_S
        check_books(running.end())


def test_jumbo_packets_go_across_in_several_frames(tmp_path: Path) -> None:
    if KERNEL < (6, 6):
        pytest.skip("packets in several frames take Linux 6.6")
    with crossing(tmp_path, mtu=9000) as bench:
        running = bench.run(CROSS)
        bench.reach(HOST4, "-M", "do", "-s", "8972")
        bench.reach(HOST6, "-s", "8900")
        check_books(running.end())


def test_a_killed_worker_is_replaced_and_the_books_close(bench: Crossing) -> None:
    """Under a stream in both directions at once."""
    running = bench.run(CROSS, "--queues", "0-1")
    bench.reach(HOST4)
    with bench.client.popen(
        ["ping", "-f", "-q", "-s", "1000", HOST4], stdout=subprocess.DEVNULL
    ) as flood:
        try:
            for number, n_kills in (
                (0, 1),
                (1, 1),
                (0, 2),
                (1, 2),
            ):  # a third soon would be the last
                pid = running.wait_ready()["workers"][number]["pid"]
                os.kill(pid, signal.SIGKILL)

                def served_again(number: int = number, n_kills: int = n_kills) -> bool:
                    worker = running.wait_ready()["workers"][number]
                    return bool(worker["restarts"] == n_kills and worker["state"] == "serving")

                until(served_again, "another worker serves")
        finally:
            flood.send_signal(signal.SIGINT)
    bench.reach(HOST4)
    final = running.end()
    assert final["ledger"]["residual"] == 0, final["ledger"]
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker


def test_the_inline_filter_drops_exactly_what_it_says(bench: Crossing) -> None:
    running = bench.run(EXAMPLES / "inline_filter.py")
    bench.reach(HOST4)  # from inside: the answers come in
    bench.reach(HOST6)
    # a connection from inside works, none from outside
    listener = bench.far.call(lambda: socket.create_server((HOST4, 2000)))
    with listener, bench.client.call(lambda: socket.create_connection((HOST4, 2000))) as ours:
        theirs, _ = listener.accept()
        with theirs:
            ours.settimeout(5 * PATIENCE)
            ours.sendall(b"question")
            assert theirs.recv(100) == b"question"
            theirs.sendall(b"answer")
            assert ours.recv(100) == b"answer"
    listener = bench.client.call(lambda: socket.create_server((CLIENT4, 2000)))
    with listener, pytest.raises(TimeoutError):
        bench.far.call(lambda: socket.create_connection((CLIENT4, 2000), timeout=0.5))
    # UDP: an answer from port 53 comes in, 7 packets of something else do not
    with (
        bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ours,
        bench.far.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as dns,
        bench.far.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other,
    ):
        ours.settimeout(5 * PATIENCE)
        ours.bind((CLIENT4, 4000))
        dns.bind((HOST4, 53))
        other.bind((HOST4, 54))
        for number in range(7):
            other.sendto(b"%d" % number, (CLIENT4, 4000))
        dns.sendto(b"an answer", (CLIENT4, 4000))
        assert ours.recv(100) == b"an answer"
    status = running.status()
    assert status is not None
    final = running.end()
    check_books(final)
    counters = final["stages"][1]["counters"]
    n_syn = counters.pop("tcp_connect")
    assert 1 <= n_syn <= 3  # with its repetitions
    assert counters == {"malformed": 0, "udp_unasked": 7, "echo_request": 0, "fragment": 0}
    assert final["ledger"]["verdicts"]["DROP"] == 7 + n_syn


@pytest.mark.parametrize(
    ("devs", "told"),
    [
        (["m0"], "cross.py: say of each of its ports which interface it is: "
                 "--dev inside=DEV --dev outside=DEV"),
        (["inside=m0", "outsid=m1"], "--dev inside=DEV --dev outside=DEV"),
        (["inside=m0", "outside=m0"], "--dev outside=m0: m0 is a port already; name another"),
        (["m0", "m1"], "--dev m1: one port is m0 already; say PORT=DEV"),
        (["inside=m0", "outside=m7"], "m7: no such interface; there are: "),
    ],
)  # fmt: skip
def test_ports_and_interfaces_that_do_not_match_are_one_clear_line(
    bench: Crossing, devs: list[str], told: str
) -> None:
    words = [word for dev in devs for word in ("--dev", dev)]
    done = bench.xdpipe("run", str(CROSS), *words, "--duration", "1")
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pipeline_without_ports_takes_one_interface(bench: Crossing) -> None:
    devs = ("--dev", "inside=m0", "--dev", "outside=m1")
    done = bench.xdpipe("run", str(EXAMPLES / "udp_echo.py"), *devs, "--duration", "1")
    assert done.returncode == 1
    assert done.stderr.endswith("say of each of its ports which interface it is: --dev DEV\n")


def test_interfaces_with_different_queues_want_to_be_told(bench: Crossing) -> None:
    bench.host.run(["ethtool", "-L", "m1", "rx", "1", "tx", "1"])
    done = bench.xdpipe("run", str(CROSS), "--dev", "inside=m0", "--dev", "outside=m1")
    assert done.returncode == 1
    assert "m0 has 2 queues and m1 1; give them as many" in done.stderr


def test_status_and_down_know_it_by_each_of_its_interfaces(bench: Crossing) -> None:
    running = bench.run(CROSS)
    told = json.loads(bench.xdpipe("status", "--json").stdout)
    [entry] = told["pipelines"]
    assert (entry["dev"], entry["devs"]) == ("m0", ["m0", "m1"])
    again = bench.xdpipe("run", str(EXAMPLES / "udp_echo.py"), "--dev", "m1")
    assert again.returncode == 1
    assert "m1: the pipeline cross runs there" in again.stderr
    down = json.loads(bench.xdpipe("down", "m1", "--json").stdout)
    assert down == {"dev": "m1", "devs": ["m0", "m1"], "name": "cross", "was": "running"}
    running.end()
    assert not list(bench.run_dir.iterdir())


def test_one_that_was_killed_is_cleared_up_by_any_of_its_interfaces(bench: Crossing) -> None:
    running = bench.run(CROSS)
    running.popen.kill()
    running.popen.communicate()
    down = json.loads(bench.xdpipe("down", "m1", "--json").stdout)
    assert down["was"] == "dead"
    assert not list(bench.run_dir.iterdir())


def test_the_pipeline_ends_when_one_of_its_interfaces_is_gone(bench: Crossing) -> None:
    running = bench.run(CROSS)
    bench.host.run(["ip", "link", "del", "m1"])
    out, err = running.popen.communicate(timeout=20 * PATIENCE)
    assert running.popen.returncode == 1
    assert "m1 is gone" in err
    assert json.loads(out)["ledger"]["residual"] == 0
