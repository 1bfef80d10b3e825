"""`xdpipe replay` as a user runs it, counted by a raw socket that knows nothing of xdpipe."""

import json
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hosts import KERNEL, SO_RCVBUFFORCE, Bench, pps, until, veth_bench
from traffic import numbered_flows
from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_program import PASS, Program
from xdpipe.capture import CaptureReader, CaptureWriter
from xdpipe.link import Link

ENGINES = ["xdp", "live", "socket"]
MODES = {"xdp": "copy", "live": "live frames", "socket": "packet socket"}


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "flows.pcap"
    numbered_flows(path, 500, 20, dport=9)
    return path


@contextmanager
def taking_frames(bench: Bench) -> Iterator[Bench]:
    """Give the host a native XDP program, without which a veth takes no live frames."""
    with (
        Program.load(PASS, "pass") as program,
        bench.host.call(lambda: XdpLink(program, Link.find("h0").index, "h0", "native")),
    ):
        yield bench


@pytest.fixture
def receiver(bench: Bench) -> Iterator[Bench]:
    """A host that takes what any engine sends."""
    with taking_frames(bench):
        yield bench


def replaying(bench: Bench, capture: Path, *args: str) -> subprocess.Popen[str]:
    """Start it, not to its end."""
    popen: subprocess.Popen[str] = bench.client.popen(
        [sys.executable, "-P", "-m", "xdpipe", "replay", str(capture), "--dev", "c0", "--json",
         *args],
        stdout=-1, stderr=-1, text=True, env=bench.env,
    )  # fmt: skip
    return popen


def in_order(packets: list[bytes], n_flows: int, rounds: int) -> None:
    """Check that each flow's packets are numbered in order, round after round."""
    for flow in range(n_flows):
        numbers = [p[46:50] for p in packets if struct.unpack(">I", p[42:46])[0] == flow]
        each = len(numbers) // rounds
        assert numbers == [struct.pack(">I", i) for i in range(each)] * rounds


@pytest.mark.parametrize("engine", ENGINES)
def test_every_packet_arrives_byte_for_byte_and_in_order_per_flow(
    receiver: Bench, capture: Path, engine: str
) -> None:
    with receiver.raw_socket() as sock, CaptureReader(capture) as reader:
        result = receiver.replay(capture, "--engine", engine, "--loop", "2", "--pps", pps(20_000))
        assert (result["engine"], result["mode"]) == (engine, MODES[engine])
        assert (result["read"], result["sent"], result["refused"]) == (500, 1000, 0)
        packets = [sock.recv(2000) for _ in range(1000)]
        original = [packet.data for packet in reader]
    assert packets == original * 2
    assert result["bytes"] == sum(map(len, packets))
    in_order(packets, 20, 2)


def test_flows_are_dealt_out_to_queues_and_stay_in_order(bench: Bench, capture: Path) -> None:
    with bench.raw_socket() as sock, CaptureReader(capture) as reader:
        result = bench.replay(capture, "--queues", "0-1", "--loop", "3", "--pps", "20000")
        assert (result["engine"], result["read"], result["sent"]) == ("xdp", 500, 1500)
        packets = [sock.recv(2000) for _ in range(1500)]
        assert sorted(packets) == sorted([packet.data for packet in reader] * 3)
    in_order(packets, 20, 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_does_not_fit_in_memory_is_laid_while_it_is_sent(
    receiver: Bench, tmp_path: Path, engine: str
) -> None:
    """Three rounds of 42 MB; 32 or 64 MiB is what an engine has."""
    path = tmp_path / "large.pcap"
    n, size = 60_000, 700 if engine != "live" else 1300
    with CaptureWriter(path) as writer:
        for i in range(n):
            head = bytes.fromhex("020000000001 020000000002 88b5".replace(" ", ""))
            writer.write(1000 * i, (head + struct.pack(">I", i)).ljust(size, b"x"))

    def arrived() -> int:
        shown = receiver.host.run(
            ["ip", "-json", "-s", "link", "show", "h0"], capture_output=True, text=True, check=True
        )
        return int(json.loads(shown.stdout)[0]["stats64"]["rx"]["packets"])

    before = arrived()
    result = receiver.replay(path, "--engine", engine, "--loop", "3", "--pps", "300000")
    assert (result["read"], result["sent"], result["refused"]) == (n, 3 * n, 0)
    assert result["bytes"] == 3 * n * size
    until(lambda: arrived() - before >= 3 * n, "all of them arrive")
    assert arrived() - before < 3 * n + 50  # beside what the hosts say to each other


def test_live_frames_of_another_namespace_are_not_counted(
    receiver: Bench, capture: Path, tmp_path: Path
) -> None:
    """The kernel tells of all links at once, and numbers begin anew in each namespace."""
    with veth_bench(tmp_path / "other") as other, taking_frames(other):
        numbers = [bench.client.call(lambda: Link.find("c0").index) for bench in (receiver, other)]
        assert numbers[0] == numbers[1]
        with other.raw_socket() as sock:
            beside = replaying(other, capture, "--engine", "live", "--loop", "0", "--pps", "20000")
            sock.recv(2000)
            result = receiver.replay(capture, "--engine", "live", "--loop", "4", "--pps", "2000")
            beside.send_signal(signal.SIGINT)
            out, err = beside.communicate(timeout=30)
    assert (result["sent"], result["refused"]) == (2000, 0)
    assert beside.returncode == 0, err
    assert json.loads(out)["refused"] == 0


@pytest.mark.alone
def test_it_is_not_faster_than_it_was_asked_to_be(bench: Bench, capture: Path) -> None:
    result = bench.replay(capture, "--loop", "4", "--pps", "2000")
    assert result["sent"] == 2000
    assert result["pps"] < 2000 * 1.05
    result = bench.replay(capture, "--loop", "4", "--mbps", "1")
    assert result["mbps"] < 1.05


@pytest.mark.alone
def test_without_a_pace_it_takes_as_long_as_the_record(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "slow.pcap"
    with CaptureWriter(path) as writer:
        for ms in (0, 100, 700, 800):
            writer.write(ms * 1_000_000 + 10**18, bytes(60))
    result = bench.replay(path)
    assert 0.8 <= result["seconds"] < 2.0
    result = bench.replay(path, "--speed", "4")
    assert 0.2 <= result["seconds"] < 0.8
    assert set(result["late_us"]) == {"p50", "p99", "max"}


@pytest.mark.alone
def test_a_duration_ends_what_has_no_end(bench: Bench, capture: Path) -> None:
    result = bench.replay(capture, "--loop", "0", "--duration", "0.5", "--pps", "10000")
    assert result["interrupted"] is True
    assert 4000 < result["sent"] <= 10000 * result["seconds"] + 100
    assert 0.5 <= result["seconds"] < 2.0


def test_packets_go_into_the_stack_as_if_they_had_come_in(bench: Bench, capture: Path) -> None:
    """A UDP socket of the client gets what its interface seems to have received."""
    with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        sock.settimeout(10)
        sock.bind(("0.0.0.0", 9))
        bench.client.run(["ip", "address", "add", "10.1.0.1/32", "dev", "c0"])
        bench.client.run(["sysctl", "-qw", "net.ipv4.conf.c0.rp_filter=0",
                          "net.ipv4.conf.all.rp_filter=0"])  # fmt: skip
        bench.client.run(["ip", "link", "set", "c0", "address", "02:00:00:00:00:01"])
        result = bench.replay(capture, "--into-stack", "--pps", "20000")
        assert (result["mode"], result["sent"]) == ("into the stack", 500)
        assert len([sock.recv(2000) for _ in range(500)]) == 500


@pytest.mark.parametrize("engine", ENGINES)
def test_packets_longer_than_the_link_takes_are_left_out_and_counted(
    receiver: Bench, tmp_path: Path, engine: str
) -> None:
    path = tmp_path / "mixed.pcap"
    numbered_flows(path, 10, 2, dport=9)
    with path.open("ab") as file:
        file.write(struct.pack("<IIII", 0, 0, 3000, 3000) + bytes(3000))
    result = receiver.replay(path, "--engine", engine)
    assert (result["read"], result["too_long"], result["sent"]) == (11, 1, 10)


def test_a_truncated_capture_is_sent_as_far_as_it_goes(bench: Bench, capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-10])
    result = bench.replay(capture)
    assert result["sent"] == 499
    assert result["truncated"].startswith("after packet 499, at byte ")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_link_that_goes_down_ends_it_with_one_line(
    receiver: Bench, capture: Path, engine: str
) -> None:
    popen = replaying(receiver, capture, "--engine", engine, "--pps", "200", "--loop", "100")
    with receiver.raw_socket() as sock:
        sock.recv(2000)
        receiver.client.run(["ip", "link", "set", "c0", "down"])
    out, err = popen.communicate(timeout=30)
    assert popen.returncode == 1
    assert out == ""
    assert re.fullmatch(r"xdpipe: c0: (Network is down|is down), after \d+ of 50000 packets\n", err)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_with_an_honest_count(receiver: Bench, capture: Path, engine: str) -> None:
    with receiver.raw_socket() as sock:
        popen = replaying(receiver, capture, "--engine", engine, "--pps", "1000", "--loop", "0")
        for _ in range(100):
            sock.recv(2000)
        popen.send_signal(signal.SIGINT)
        result = json.loads(popen.communicate(timeout=30)[0])
        sock.setblocking(False)
        n = 100

        def all_came() -> bool:
            nonlocal n
            try:
                while sock.recv(2000):
                    n += 1
            except BlockingIOError:
                pass
            return n >= result["sent"]

        until(all_came, "what was counted as sent has come")
    assert result["interrupted"] is True
    assert n == result["sent"]


def test_live_frames_that_a_full_ring_turns_away_are_not_counted_as_sent(
    receiver: Bench, capture: Path
) -> None:
    """The raw socket at the other end makes it slow; what the link said it took has come."""
    with receiver.raw_socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 28)
        result = receiver.replay(capture, "--engine", "live", "--top-speed", "--loop", "200")
        assert result["sent"] + result["refused"] == 100_000
        sock.settimeout(1)
        n = 0
        while True:
            try:
                sock.recv(2000)
            except TimeoutError:
                break
            n += 1
    assert n == result["sent"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--pps", "5", "--speed", "2"], "--speed and --pps: only one says how fast"),
        pytest.param(
            ["--engine", "live"],
            "c0: this veth takes no live frames",
            marks=pytest.mark.skipif(KERNEL < (6, 3), reason="no kernel before 6.3 tells that"),
        ),
        (["--engine", "socket", "--queues", "0-1"], "--queues is for the engine xdp"),
        (["--engine", "live", "--mode", "copy"], "--mode copy is for the engine xdp"),
        (["--engine", "xdp", "--into-stack"], "--into-stack takes the engine live, not xdp"),
        (["--mode", "zerocopy"], "c0 (veth) has no zero copy"),
        (["--queues", "7"], "bind c0 queue 7: no such queue"),
    ],
)
def test_what_cannot_be_is_told(bench: Bench, capture: Path, args: list[str], told: str) -> None:
    done = bench.xdpipe("replay", str(capture), "--dev", "c0", *args, where=bench.client)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(KERNEL >= (6, 3), reason="this kernel tells which link takes live frames")
def test_live_frames_that_a_veth_takes_not_are_counted(bench: Bench, capture: Path) -> None:
    result = bench.replay(capture, "--engine", "live")
    assert (result["sent"], result["refused"]) == (0, 500)


def test_where_nothing_is_left_to_send_it_says_why(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "long.pcap"
    with CaptureWriter(path):
        pass
    done = bench.xdpipe("replay", str(path), "--dev", "c0", where=bench.client)
    assert done.returncode == 1
    assert done.stderr == f"xdpipe: {path}: no packets to send: there are none\n"
    with CaptureWriter(path) as writer:
        writer.write(0, bytes(3000))
    done = bench.xdpipe("replay", str(path), "--dev", "c0", where=bench.client)
    assert done.returncode == 1
    assert (
        f"{path}: no packets to send: of 1, 0 are left out by the edits, 1 are longer"
        in done.stderr
    )
