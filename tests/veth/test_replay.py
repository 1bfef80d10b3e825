"""`xdpipe replay` as a user runs it, counted by a raw socket that knows nothing of xdpipe."""

import json
import socket
import struct
import sys
from pathlib import Path

import pytest

from hosts import SO_RCVBUFFORCE, Bench, until
from traffic import numbered_flows
from xdpipe.capture import CaptureReader


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "flows.pcap"
    numbered_flows(path, 500, 20, dport=9)
    return path


def received(bench: Bench) -> "socket.socket":
    """Return a socket that sees what comes in by the host's end."""
    sock = bench.host.call(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    )
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    sock.bind(("h0", 0x0800))
    sock.settimeout(10)
    return sock


def test_every_packet_arrives_byte_for_byte_and_in_order_per_flow(
    bench: Bench, capture: Path
) -> None:
    with received(bench) as sock, CaptureReader(capture) as reader:
        result = bench.replay(capture, "--queues", "0-1", "--loop", "2", "--pps", "20000")
        assert (result["read"], result["sent"], result["refused"]) == (500, 1000, 0)
        packets = [sock.recv(2000) for _ in range(1000)]
        original = [packet.data for packet in reader]
    assert sorted(packets) == sorted(original * 2)
    for flow in range(20):
        numbers = [p[46:50] for p in packets if struct.unpack(">I", p[42:46])[0] == flow]
        once = [struct.pack(">I", i) for i in range(25)]
        assert numbers == once + once


def test_it_is_not_faster_than_it_was_asked_to_be(bench: Bench, capture: Path) -> None:
    result = bench.replay(capture, "--loop", "4", "--pps", "2000")
    assert result["sent"] == 2000
    assert result["pps"] < 2000 * 1.05


def test_packets_longer_than_the_link_takes_are_left_out_and_counted(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.pcap"
    numbered_flows(path, 10, 2, dport=9)
    with path.open("ab") as file:
        file.write(struct.pack("<IIII", 0, 0, 3000, 3000) + bytes(3000))
    result = bench.replay(path)
    assert (result["read"], result["too_long"], result["sent"]) == (11, 1, 10)


def test_a_truncated_capture_is_sent_as_far_as_it_goes(bench: Bench, capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-10])
    result = bench.replay(capture)
    assert result["sent"] == 499
    assert result["truncated"].startswith("after packet 499, at byte ")


def test_a_link_that_goes_down_ends_it_with_one_line(bench: Bench, capture: Path) -> None:
    popen = bench.client.popen(
        [sys.executable, "-P", "-m", "xdpipe.cli", "replay", str(capture), "--dev",
         "c0", "--pps", "200", "--loop", "100", "--json"],
        stdout=-1, stderr=-1, text=True, env=bench.env,
    )  # fmt: skip
    with received(bench) as sock:
        sock.recv(2000)
        bench.client.run(["ip", "link", "set", "c0", "down"])
    out, err = popen.communicate(timeout=30)
    assert popen.returncode == 1
    assert out == ""
    assert "c0: takes no packets any more after" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_with_an_honest_count(bench: Bench, capture: Path) -> None:
    popen = bench.client.popen(
        [sys.executable, "-P", "-m", "xdpipe.cli", "replay", str(capture), "--dev",
         "c0", "--pps", "1000", "--loop", "1000", "--json"],
        stdout=-1, stderr=-1, text=True, env=bench.env,
    )  # fmt: skip
    with received(bench) as sock:
        for _ in range(100):
            sock.recv(2000)
        popen.send_signal(2)
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
