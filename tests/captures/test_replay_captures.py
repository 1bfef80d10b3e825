"""Every capture, replayed over a veth, arrives byte for byte and in order, by every engine."""

import shutil
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hosts import SO_RCVBUFFORCE
from xdpipe.batch import Batch
from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_program import PASS, XDP_HAS_FRAGS, Program
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd, veth_pair
from xdpipe.replay import ReplayOptions, replay
from xdpipe.traffic.capture_source import CaptureSource
from xdpipe.traffic.engine import EngineOptions
from xdpipe.traffic.engine_live import LONGEST as LIVE_LONGEST
from xdpipe.traffic.pace import Pace

SOL_PACKET, PACKET_AUXDATA = 263, 8  # linux/socket.h, linux/if_packet.h
TP_STATUS_VLAN_VALID = 1 << 4
AUXDATA = struct.Struct("=IIIHHHH")
MTU = 9000
PPS = 200_000


@contextmanager
def ends(*, program: bool) -> Iterator[tuple[Namespace, Link, socket.socket]]:
    """Make a veth pair; give where to send, by what, and a raw socket that sees what arrives."""
    host, client = Namespace(), Namespace()
    veth_pair(VethEnd("h0", host), VethEnd("c0", client), n_queues=1, mtu=MTU)
    for namespace, name in ((host, "h0"), (client, "c0")):
        namespace.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"])
    # else what comes through XDP waits for more of its flow, and others go before it
    host.run(["ethtool", "-K", "h0", "gro", "off"])
    sock = host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 28)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.bind(("h0", 3))
        sock.settimeout(2)
        with Program.load(PASS, "pass", flags=XDP_HAS_FRAGS) as passing:
            if program:
                with host.call(lambda: XdpLink(passing, Link.find("h0").index, "h0", "native")):
                    yield client, client.call(lambda: Link.find("c0")), sock
            else:
                yield client, client.call(lambda: Link.find("c0")), sock
    finally:
        sock.close()
        host.close()
        client.close()


def arrived(sock: socket.socket, n: int) -> list[bytes]:
    """Return n packets as they were on the wire, or those that come.

    The kernel takes the outer VLAN tag out, and tells it beside (man 7 packet, PACKET_AUXDATA).
    """
    packets = []
    for _ in range(n):
        try:
            data, beside, _, _ = sock.recvmsg(1 << 17, 256)
        except TimeoutError:
            break
        for level, kind, value in beside:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, tpid = AUXDATA.unpack(value)
                if status & TP_STATUS_VLAN_VALID:
                    data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
        packets.append(data)
    return packets


class AllCaptures:
    """The packets of all captures, one behind the other: a source."""

    n_packets: int | None = None

    def __init__(self, captures: Path) -> None:
        self.batch: Batch
        self.packets: list[bytes] = []
        self.paths = []
        for path in sorted(p for p in captures.rglob("*.pcap*") if p.is_file()):
            try:
                CaptureSource(path).close()
            except XdpipeError:
                continue  # no capture, or not of Ethernet: told in one line (test_replay.py)
            self.paths.append(path)
            with CaptureReader(path) as reader:
                self.packets += [packet.data for packet in reader]

    def __iter__(self) -> Iterator[Batch]:
        for path in self.paths:
            source = CaptureSource(path, batch_size=4096)
            for self.batch in source:
                yield self.batch
            source.close()

    def close(self) -> None:
        """There is nothing to close."""


def by_flow(packets: list[bytes]) -> dict[bytes, list[bytes]]:
    """Return packets by their Ethernet headers, in order.

    A raw socket gets those that no protocol of the kernel takes somewhat later than others
    (__netif_receive_skb_list_core), so that packets of different types may change places there.
    """
    flows = defaultdict(list)
    for data in packets:
        flows[data[:14]].append(data)
    return flows


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="no ethtool: install it")
@pytest.mark.parametrize("engine", ["xdp", "live", "socket"])
def test_every_capture_arrives_byte_for_byte_and_in_order(captures: Path, engine: str) -> None:
    options = ReplayOptions(Pace(pps=PPS), engine=EngineOptions(engine=engine))
    source = AllCaptures(captures)
    longest = LIVE_LONGEST if engine == "live" else MTU + 22
    kept = [data for data in source.packets if 14 <= len(data) <= longest]
    with ends(program=engine == "live") as (client, link, sock), client:
        result = replay(source, link, options)
        came = arrived(sock, len(kept))
    assert (result.read, result.left_out) == (len(source.packets), 0)
    assert result.too_short == sum(len(data) < 14 for data in source.packets) > 0
    assert result.too_long == sum(len(data) > longest for data in source.packets) > 0
    assert (result.sent, result.refused) == (len(kept), 0)
    assert by_flow(came) == by_flow(kept)
    assert len(source.paths) > 300
