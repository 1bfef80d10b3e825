"""The steering program's verdict is libpcap's own, on every packet of the captures.

The XDP program is loaded as in production, without the guard, and run by BPF_PROG_TEST_RUN. That
shows a program 3520 bytes of a packet at the most (xdpipe/bpf_program.py) and takes none below 14.
So longer packets are cut to 3520 for both sides, and libpcap is asked about the cut packet as if it
had never been longer: an XDP program has no other length than that of the bytes it sees.
"""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdpipe.bpf import BpfError, require_privilege
from xdpipe.bpf_program import XDP_PASS, XDP_REDIRECT
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.steering import Steering, SteerProgram

AF_XDP = 44
SHORTEST, LONGEST = 14, 3520

FILTERS = [
    "",
    "greater 100000",  # nothing
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "igmp or pim or vrrp or ah or esp",
    "sctp",
    "ip proto 47 or ip6 proto 47 or ip proto 4 or ip proto 41",
    "port 53",
    "udp dst port 53",
    "tcp src port 80",
    "udp portrange 1-1023",
    "not tcp portrange 1024-65535",
    "sctp port 36412 or udp port 2152",
    "host 192.168.1.1",
    "src host 127.0.0.1 or dst host 127.0.0.1",
    "net 10.0.0.0/8",
    "src net 192.168.0.0/16 and not dst net 192.168.0.0/16",
    "ip6 host ::1 or ip6 net fe80::/10 or ip6 net 2001::/16",
    "ether host ff:ff:ff:ff:ff:ff",
    "ether broadcast or ether multicast",
    "ip multicast or ip6 multicast",
    "ether proto 0x88cc or ether proto 0x8863",
    "ether[0] & 1 = 0 and ether[12:2] > 0x600",
    "vlan",
    "vlan and udp",
    "vlan 100 or (vlan and vlan and ip)",
    "not vlan",
    "mpls",
    "mpls and mpls 16 or mpls",
    "pppoes",
    "pppoes and ip",
    "pppoed",
    "llc or stp or isis or ipx or aarp",
    "geneve",
    "less 64",
    "greater 1000",
    "len % 2 = 1",
    "len / 100 >= 3 and len - 14 < 600",
    "ip[2:2] > 576",
    "ip[6:2] & 0x1fff != 0 or ip[6] & 0x20 != 0",
    "ip[8] < 64 and ip[9] ^ 17 = 0",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not tcp[tcpflags] & tcp-ack != 0",
    "tcp[13] = 0x18 or tcp[13] = 0x10",
    "tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
    "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
    "udp[8:4] & 0xffff8000 != 0 and udp[4:2] > 20",
    "ip[2:2] % ip[8] > 3",
    "ip[4:2] / ip[8] * 3 - 7 > 100",
    "ip[8] << 3 | ip[9] > 200 and ip[4:2] >> ip[9] = 0",
    "ip[0] & 0xf > 5 or ip6[6] = 0 or ip6[6] = 44",
    "icmp[icmptype] = icmp-echo or icmp[icmptype] = icmp-unreach",
    "icmp6[icmp6type] = icmp6-neighborsolicit or icmp6[0] = 143",
    "ip6[40] = 0x3a or ip6[6:1] = 17 and ip6[42:2] = 53",
    "ip protochain 17",
    "ip6 protochain 58",
    "ether[100:4] > 0x80000000",
    "ether[ether[14] * 2:2] < ether[20:2]",
    "(tcp and (port 80 or port 443) and not (src net 10.0.0.0/8 or dst net 10.0.0.0/8)) or "
    "(udp and (port 53 or port 67 or port 68) and (less 300 or not host 8.8.8.8)) or "
    "(vlan and (arp or (ip6 and not icmp6)))",
    " or ".join(f"port {n}" for n in range(20, 90, 3)),
]


@pytest.fixture(scope="module")
def privileged() -> None:
    try:
        require_privilege()
    except BpfError as error:
        pytest.skip(f"no privilege to load eBPF programs: {error}")


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    """Return each different packet of the Ethernet captures once, cut to what can be run."""
    found: dict[bytes, None] = {}
    n_captures = 0
    for path in sorted(captures.rglob("*")):
        if not path.is_file() or path.name == "LICENSE-zeek":
            continue
        with CaptureReader(path) as reader:
            if reader.link_type == "EN10MB":
                n_captures += 1
                for packet in reader:
                    found[packet.data[:LONGEST]] = None
    assert n_captures >= 400
    return [packet for packet in found if len(packet) >= SHORTEST]


@pytest.fixture(scope="module")
def xsk() -> Iterator[socket.socket]:
    with socket.socket(AF_XDP, socket.SOCK_RAW) as xsk:
        yield xsk


def disagreements(
    expression: str, packets: list[bytes], xsk: socket.socket
) -> tuple[int, list[str]]:
    """Return how many packets libpcap takes, and those in hex where the program says otherwise."""
    by_libpcap = Filter(expression)
    verdicts = {True: XDP_REDIRECT, False: XDP_PASS}
    taken = 0
    wrong = []
    with SteerProgram(Steering(expression), None, 1) as program:
        program.take(0, xsk.fileno())
        for packet in packets:
            matches = by_libpcap.matches(packet)
            taken += matches
            if program.run(packet) != verdicts[matches]:
                wrong.append(packet.hex())
        counters = program.counters()
    if not wrong:
        assert counters.seen == len(packets)
        assert counters.redirected == taken
        assert counters.to_kernel["not_matched"] == len(packets) - taken
    return taken, wrong


@pytest.mark.parametrize("expression", FILTERS)
def test_program_agrees_with_libpcap_on_every_packet(
    expression: str, packets: list[bytes], xsk: socket.socket, privileged: None
) -> None:
    _, wrong = disagreements(expression, packets, xsk)
    assert wrong == []


def test_filters_take_some_packets_and_leave_some(packets: list[bytes]) -> None:
    taken = {expression: sum(map(Filter(expression).matches, packets)) for expression in FILTERS}
    assert {e for e, n in taken.items() if n == 0} <= {
        "greater 100000", "pppoes and ip", "llc or stp or isis or ipx or aarp",
    }  # fmt: skip
    assert {e for e, n in taken.items() if n == len(packets)} == {""}


def mutated(packets: list[bytes], n: int, seed: int) -> list[bytes]:
    """Return packets with some bytes changed, and cut or made longer by chance."""
    chance = random.Random(seed)
    made = []
    for packet in chance.choices(packets, k=n):
        bytes_ = bytearray(packet)
        for _ in range(chance.randint(0, 6)):
            bytes_[chance.randrange(min(len(bytes_), 80))] = chance.choice(
                (0, 1, 6, 17, 44, 53, 58, 0x45, 0x60, 0x81, 0xFF, chance.randrange(256))
            )
        if chance.random() < 0.5:
            del bytes_[chance.randint(SHORTEST, max(SHORTEST, min(len(bytes_), 100))) :]
        elif chance.random() < 0.1:
            bytes_.extend(chance.randbytes(chance.randint(1, 200)))
        made.append(bytes(bytes_[:LONGEST]))
    return made


@pytest.mark.parametrize(
    "expression",
    [
        "udp dst port 53",
        "vlan and tcp[((tcp[12:1] & 0xf0) >> 2):4] > 0x47455420 or ip6[6] = 44",
        "ip6 protochain 58 or ip protochain 6",
        "ip[2:2] % ip[8] > 3 or ip[4:2] / ip[8] > 100 or ip[8] >> ip[9] > 0",
        "ether[ether[14] * 2:2] < ether[ether[15]:2]",
        "portrange 50-100 and not net 10.0.0.0/8 and not greater 500",
    ],
)
def test_program_agrees_with_libpcap_on_mutated_packets(
    expression: str, packets: list[bytes], xsk: socket.socket, privileged: None
) -> None:
    taken, wrong = disagreements(expression, mutated(packets, 20_000, seed=1), xsk)
    assert wrong == []
    assert taken > 0


def test_missing_libpcap_would_be_told() -> None:
    from xdpipe import libpcap

    names, libpcap._NAMES = libpcap._NAMES, ("libpcap.so.none",)
    try:
        with pytest.raises(XdpipeError, match=r"apt-get install libpcap0\.8"):
            libpcap._open()
    finally:
        libpcap._NAMES = names
