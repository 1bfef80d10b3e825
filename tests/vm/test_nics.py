"""The main job over emulated NICs, in zero copy and in what is left without it."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import (
    CLIENT4,
    CLIENT6,
    EXAMPLES,
    HOST4,
    HOST6,
    PIPELINES,
    Bench,
    await_carrier,
    echoes,
    until,
)
from traffic import numbered_flows
from xdpipe.link import Link

SIZES = [0, 1, 18, 512, 1471]
N_PACKETS, N_FLOWS = 10_000, 256


def modes(status: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(w["queue"], w["mode"], w["attach"]) for w in status["workers"]]


def check_books(final: dict[str, Any]) -> None:
    """Every packet is in the ledger, every frame in its place."""
    assert final["ledger"]["residual"] == 0, final["ledger"]
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker


@pytest.mark.parametrize(
    ("link", "options"),
    [
        ("virtio", ["--busy-poll"]),
        ("igb", ["--no-need-wakeup", "--huge-pages", "--frame-size", "3000"]),
    ],
    indirect=["link"],
)
def test_zero_copy_serves_with_the_sockets_other_settings(
    bench: Bench, huge_pages: None, options: list[str]
) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py", "--mode", "zerocopy", *options)
    n = echoes(bench, CLIENT4, HOST4, SIZES, rounds=4)
    final = running.end()
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    assert final["ledger"]["sent"] == n
    for worker in final["workers"]:
        assert (worker["busy_polls"] > 0) == ("--busy-poll" in options)
        assert worker["kernel"]["rx_invalid_descs"] == worker["kernel"]["tx_invalid_descs"] == 0
    check_books(final)


def test_flows_arrive_whole_and_in_order_in_zero_copy(bench: Bench, tmp_path: Path) -> None:
    capture = tmp_path / "flows.pcap"
    numbered_flows(capture, N_PACKETS, N_FLOWS, dport=9)
    running = bench.run(PIPELINES / "in_order.py", "--mode", "zerocopy")
    sent = bench.replay(capture, "--queues", "0-1", "--pps", "4000", timeout=120)
    assert (sent["sent"], sent["refused"]) == (N_PACKETS, 0)
    final = running.end()
    counters = final["stages"][1]["counters"]
    assert counters == {"in_order": N_PACKETS, "out_of_order": 0, "flows": N_FLOWS}
    assert all(worker["packets"] > N_PACKETS // 4 for worker in final["workers"])
    check_books(final)


@pytest.fixture
def name_server(bench: Bench) -> Iterator[None]:
    """Have dnsmasq answer on the host."""
    server = bench.host.popen(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root",
         "--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces",
         f"--listen-address={HOST4}", "--host-record=www.example.com,192.0.2.80"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield
    server.kill()
    server.wait()


def test_the_dns_guard_in_zero_copy_lets_a_real_name_server_answer(
    bench: Bench, name_server: None
) -> None:
    dig = ["dig", f"@{HOST4}", "+tries=2", "+time=5"]
    running = bench.run(EXAMPLES / "dns_guard.py", "--mode", "zerocopy")
    answers = [
        bench.client.run([*dig, "+short", "www.example.com"], capture_output=True, text=True)
        for _ in range(3)
    ]
    assert [answer.stdout for answer in answers] == ["192.0.2.80\n"] * 3
    # what the guard is there for: an ANY query gets no answer
    lost = bench.client.run(
        ["dig", f"@{HOST4}", "+tries=1", "+time=1", "+notcp", "ANY", "example.com"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert lost.returncode == 9  # no reply: dig(1)
    final = running.end()
    guard = final["stages"][1]["counters"]
    assert guard["any_query"] == final["ledger"]["verdicts"]["DROP"] == 1
    assert final["ledger"]["sent"] == guard["queries"] >= 3
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    check_books(final)


@pytest.mark.parametrize(
    ("link", "options", "attach"),
    [("igb", ["--mode", "copy"], "native"), ("virtio", ["--attach", "generic"], "generic")],
    indirect=["link"],
)
def test_without_zero_copy_the_same_is_served(
    bench: Bench, options: list[str], attach: str
) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py", *options)
    n = echoes(bench, CLIENT4, HOST4, SIZES, rounds=2)
    final = running.end()
    assert modes(final) == [(0, "copy", attach), (1, "copy", attach)]
    assert final["ledger"]["sent"] == n
    check_books(final)


def test_udp_echo_in_zero_copy_gives_back_every_byte_also_after_a_worker_was_killed(
    bench: Bench,
) -> None:
    """The driver holds frames of the dead worker's socket: its queue gets another socket."""
    running = bench.run(EXAMPLES / "udp_echo.py", "--mode", "zerocopy", "--attach", "native")
    assert modes(running.wait_ready()) == [(0, "zerocopy", "native"), (1, "zerocopy", "native")]
    n = echoes(bench, CLIENT4, HOST4, SIZES, rounds=2)
    n += echoes(bench, CLIENT6, HOST6, SIZES[:-1], rounds=2)
    n += echoes(bench, CLIENT4, HOST4, [100], rounds=32)  # flows enough for both queues
    status = running.wait_ready()
    assert status["ledger"]["verdicts"]["TX"] == status["ledger"]["sent"] == n
    before = [worker["packets"] for worker in status["workers"]]
    assert all(before), "one queue got nothing"
    os.kill(status["workers"][0]["pid"], signal.SIGKILL)

    def served_again() -> bool:
        status = running.status()
        return status is not None and [
            (worker["state"], worker["restarts"]) for worker in status["workers"]
        ] == [("serving", 1), ("serving", 0)]

    until(served_again, "another worker serves the queue", timeout_s=60)
    await_carrier(bench.host, "h0")
    n += echoes(bench, CLIENT4, HOST4, [100], rounds=32)
    final = running.end()
    assert final["ledger"]["sent"] == n
    assert final["workers"][0]["packets"] > before[0]
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    check_books(final)


def test_packets_taken_in_zero_copy_go_back_to_the_kernel(bench: Bench) -> None:
    """A TCP session and pings, all of whose packets are taken and given back."""
    running = bench.run(PIPELINES / "pass_all.py", "--mode", "zerocopy")
    data = os.urandom(1 << 20)
    listener = bench.host.call(lambda: socket.create_server((HOST4, 2000)))
    with listener, bench.client.call(lambda: socket.create_connection((HOST4, 2000))) as ours:
        ours.settimeout(60)
        theirs, _ = listener.accept()
        with theirs:
            sender = threading.Thread(target=ours.sendall, args=(data,))
            sender.start()
            assert theirs.recv(len(data), socket.MSG_WAITALL) == data
            sender.join()
    for address in (HOST4, HOST6):
        bench.reach(address, n=5)
    final = running.end()
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    assert ("may lose all packets that are sent" in final["stderr"]) == (
        final["driver"] == "virtio_net"  # which the VM's kernels have as a module
    )
    assert final["ledger"]["received"] == final["ledger"]["passed"] > 500
    check_books(final)


def test_zero_copy_that_the_driver_has_not_is_one_clear_line(copy_bench: Bench) -> None:
    done = copy_bench.xdpipe("run", str(EXAMPLES / "udp_echo.py"), "--dev", "h0",
                             "--mode", "zerocopy", "--duration", "1")  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "xdpipe: bind h0 queue 0: h0 (vmxnet3) has no zero copy; use --mode auto or copy\n"
    )
    assert copy_bench.host.call(lambda: Link.find("h0").xdp_program_id) is None


def test_a_driver_without_zero_copy_is_served_in_copy_mode(copy_bench: Bench) -> None:
    running = copy_bench.run(EXAMPLES / "udp_echo.py")
    n = echoes(copy_bench, CLIENT4, HOST4, SIZES, rounds=2)
    final = running.end()
    assert {mode for _, mode, _ in modes(final)} == {"copy"}
    assert final["ledger"]["sent"] == n
    check_books(final)


@pytest.mark.parametrize("link", ["igb"], indirect=True)
def test_generic_attach_with_zero_copy_demanded_is_one_clear_line(bench: Bench) -> None:
    done = bench.xdpipe("run", str(EXAMPLES / "udp_echo.py"), "--dev", "h0",
                        "--mode", "zerocopy", "--attach", "generic", "--json")  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "xdpipe: h0: zero copy needs the program in native mode, and it is attached in generic "
        "mode; use --mode auto or copy\n"
    )


@pytest.mark.parametrize("link", ["virtio"], indirect=True)
def test_jumbo_packets_come_in_copy_mode_where_zero_copy_has_one_frame_a_packet(
    bench: Bench,
) -> None:
    for namespace, name in ((bench.host, "h0"), (bench.client, "c0")):
        namespace.run(["ip", "link", "set", name, "mtu", "9000"])
    try:
        refused = bench.xdpipe("run", str(EXAMPLES / "udp_echo.py"), "--dev", "h0",
                               "--mode", "zerocopy")  # fmt: skip
        assert (refused.returncode, refused.stderr) == (
            1,
            "xdpipe: bind h0 queue 0: h0 (virtio_net) has no zero copy for packets in several "
            "frames (its MTU is 9000); use --mode auto or copy\n",
        )
        running = bench.run(EXAMPLES / "udp_echo.py")
        n = echoes(bench, CLIENT4, HOST4, [100, 4000, 8972], rounds=4)
        final = running.end()
    finally:
        for namespace, name in ((bench.host, "h0"), (bench.client, "c0")):
            namespace.run(["ip", "link", "set", name, "mtu", "1500"])
    assert {mode for _, mode, _ in modes(final)} == {"copy"}
    assert final["ledger"]["sent"] == n
    check_books(final)


@pytest.mark.parametrize("link", ["igb"], indirect=True)
def test_what_the_nic_tells_comes_along_in_zero_copy(bench: Bench) -> None:
    """QEMU's NICs tell neither hash nor time by themselves: what counts is that it is said so."""
    running = bench.run(PIPELINES / "nic_told.py", "--mode", "zerocopy")
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for _ in range(20):
            sock.sendto(b"x", (HOST4, 9))
    until(lambda: (running.status() or {})["ledger"]["received"] == 20, "they are received")
    final = running.end()
    counted = final["stages"][1]["counters"]
    assert final["hints"] is True
    assert counted["packets"] == counted["untold_is_0"] == counted["one_hash_a_flow"] == 20
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    check_books(final)
