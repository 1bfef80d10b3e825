"""Checksums that the kernel, or a NIC, is asked to fill in as packets leave."""

import random
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from hosts import CLIENT4, CLIENT6, HOST4, HOST6, KERNEL, PATIENCE, PIPELINES, Bench, until

WRITTEN = bytes.fromhex("c0ffee1112345678")
SIZES = (8, 9, 10, 11, 99, 1400, 1401)


def rewritten(bench: Bench, local: str, remote: str) -> int:
    """Ask with datagrams, check the answers, which the kernel gives only with a right checksum."""
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    rng = random.Random(3)
    with bench.client.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.bind((local, 0))
        sock.connect((remote, 7))
        sock.settimeout(5 * PATIENCE)
        for size in SIZES:
            data = rng.randbytes(size)
            sock.send(data)
            assert sock.recv(65535) == WRITTEN + data[8:]
    return len(SIZES)


@pytest.mark.parametrize("frame", [1500, 9000])
def test_the_kernel_computes_it_where_the_link_does_not(
    bench: Bench, tmp_path: Path, frame: int
) -> None:
    """The bench's links have no checksum offload, so on the wire all is as it is to be."""
    if frame > 1500 and KERNEL < (6, 6):
        pytest.skip("packets in several frames take Linux 6.6")
    for namespace, name in ((bench.host, "h0"), (bench.client, "c0")):
        namespace.run(["ip", "link", "set", name, "mtu", str(frame)])
    capture = tmp_path / "answers.pcap"
    with bench.client.popen(
        ["tcpdump", "--immediate-mode", "-U", "-i", "c0", "-w", str(capture), "udp src port 7"],
        stderr=subprocess.PIPE, text=True,
    ) as tcpdump:  # fmt: skip
        assert tcpdump.stderr is not None
        assert "listening" in tcpdump.stderr.readline()
        running = bench.run(PIPELINES / "rewrite.py")
        n = rewritten(bench, CLIENT4, HOST4) + rewritten(bench, CLIENT6, HOST6)
        until(lambda: len(rdpcap(str(capture))) >= n, "the answers are in the capture")
        tcpdump.send_signal(signal.SIGINT)
        tcpdump.communicate()
    final = running.end()
    wanted = "offload" if KERNEL >= (6, 11) else "worker"
    assert [worker["tx_checksum"] for worker in final["workers"]] == [wanted] * 2
    assert final["stages"][1]["counters"]["due"] == n
    assert final["ledger"]["residual"] == 0
    for packet in rdpcap(str(capture)):
        told = packet[UDP].chksum
        del packet[UDP].chksum
        assert Ether(bytes(packet))[UDP].chksum == told


def test_a_link_with_checksum_offload_is_left_to_do_it(bench: Bench) -> None:
    """A veth never computes it, and tells its peer that it need not be looked at."""
    bench.host.run(["ethtool", "-K", "h0", "tx", "on"])
    running = bench.run(PIPELINES / "rewrite.py")
    n = rewritten(bench, CLIENT4, HOST4) + rewritten(bench, CLIENT6, HOST6)
    final = running.end()
    assert final["stages"][1]["counters"]["due"] == n
    assert final["ledger"]["residual"] == 0
