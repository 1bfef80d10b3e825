"""Edits of `xdpipe replay`: what arrives is what they say, seen by a socket of its own."""

from pathlib import Path

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from hosts import Bench
from xdpipe.capture import CaptureWriter

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def packet(i: int, size: int, src: str = "10.1.2.3", dport: int = 53) -> bytes:
    ip = IP(src=src, dst="192.0.2.9", id=i)
    return raw(Ether(**MACS) / ip / UDP(sport=1000 + i, dport=dport) / bytes(size))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Packets of two ports in turn; each fifth is longer than the link takes."""
    path = tmp_path / "mixed.pcap"
    with CaptureWriter(path) as writer:
        for i in range(100):
            writer.write(i * 1000, packet(i, 1600 if i % 5 == 0 else 50, dport=53 + i % 2))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))


EDITS = ("--filter", "port 53", "--map-ip", "10.0.0.0/8=172.16.0.0/16", "--map-port", "53=5353")


@pytest.mark.parametrize("engine", ["xdp", "socket"])
@pytest.mark.parametrize("truncate", [False, True])
def test_what_arrives_is_edited_in_every_round(
    bench: Bench, capture: Path, engine: str, truncate: bool
) -> None:
    expected = [
        packet(i, 1472 if i % 5 == 0 else 50, "172.16.2.3", 5353)
        for i in range(0, 100, 2)
        if truncate or i % 5
    ]
    more = ("--truncate",) if truncate else ()
    with bench.raw_socket() as sock:
        result = bench.replay(
            capture, *EDITS, *more, "--engine", engine, "--loop", "2", "--pps", "20000"
        )
        packets = [sock.recv(4000) for _ in range(2 * len(expected))]
    assert packets == expected * 2
    assert (result["read"], result["left_out"], result["too_long"], result["sent"]) == (
        100, 50, 50 - len(expected), 2 * len(expected),
    )  # fmt: skip


def test_a_users_function_is_called_once_for_all_rounds(
    bench: Bench, capture: Path, tmp_path: Path
) -> None:
    file, called = tmp_path / "odd.py", tmp_path / "called"
    file.write_text(
        "from scapy.layers.inet import IP, UDP\n\n"
        "def edit(packet):\n"
        f"    with open({str(called)!r}, 'a') as file:\n"
        "        file.write('x')\n"
        "    if packet[UDP].dport != 54 or packet[IP].len > 1500:\n"
        "        return None\n"
        "    packet[IP].src = '10.9.9.9'\n"
        "    del packet[IP].chksum, packet[UDP].chksum\n"
        "    return packet\n"
    )
    expected = [packet(i, 50, "10.9.9.9", 54) for i in range(1, 100, 2) if i % 5]
    for _ in range(2):
        with bench.raw_socket() as sock:
            result = bench.replay(capture, "--edit", str(file), "--loop", "3", "--pps", "20000")
            packets = [sock.recv(4000) for _ in range(3 * len(expected))]
        assert packets == expected * 3
        assert result["sent"] == 3 * len(expected)
    assert called.read_text() == "x" * 100


def test_a_function_that_raises_sends_nothing(bench: Bench, capture: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def edit(packet):\n    raise ValueError('no')\n")
    done = bench.xdpipe(
        "replay", str(capture), "--dev", "c0", "--edit", str(file), where=bench.client
    )
    assert done.returncode == 1
    assert done.stderr == f"xdpipe: {file}:2: ValueError: no (packet 1)\n"
