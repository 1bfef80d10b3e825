"""The guard keeps what libpcap's filters for the same would take, on every packet of the captures.

Where the guard reads further than those filters can say (tags, extension headers), or gives up
(truncated headers), the packets are left out by the filters below.
"""

import socket
from collections import Counter
from pathlib import Path

import pytest

from xdpipe.bpf import BpfError, require_privilege
from xdpipe.capture import CaptureReader
from xdpipe.filter import Filter
from xdpipe.guard import Guard
from xdpipe.steering import Steering, SteerProgram

AF_XDP = 44
SHORTEST, LONGEST = 14, 3520

KINDS = {
    "guard_link": Filter("ether[0:4] = 0x0180c200 and ether[4] = 0 and ether[5] < 16"),
    "guard_arp": Filter("arp"),
    "guard_nd": Filter("ip6[6] = 58 and (ip6[40] >= 130 and ip6[40] <= 137 or ip6[40] = 143)"),
    "guard_mtu": Filter(
        "(icmp[icmptype] = icmp-unreach and icmp[icmpcode] = 4) or (ip6[6] = 58 and ip6[40] = 2)"
    ),
    "guard_dhcp": Filter("(ip and udp dst port 68) or (ip6 and udp dst port 546)"),
    "guard_ssh": Filter("tcp port 22"),
}
# Behind tags, or IPv6 extension headers other than a first fragment's: no filter of one line.
BEHIND = Filter(
    "ether proto 0x8100 or ether proto 0x88a8 or (ip6 and (ip6[6] = 0 or ip6[6] = 43 or "
    "ip6[6] = 44 or ip6[6] = 51 or ip6[6] = 60 or ip6[6] = 135 or ip6[6] = 139 or ip6[6] = 140))"
)


def test_guard_keeps_what_filters_for_the_same_would_take(captures: Path) -> None:
    try:
        require_privilege()
    except BpfError as error:
        pytest.skip(f"no privilege to load eBPF programs: {error}")
    ways: Counter[tuple[str, str]] = Counter()
    with (
        SteerProgram(Steering(""), Guard(), 1) as program,
        socket.socket(AF_XDP, socket.SOCK_RAW) as xsk,
    ):
        program.take(0, xsk.fileno())
        before = program.counters()
        for path in sorted(captures.rglob("*")):
            if not path.is_file() or path.name == "LICENSE-zeek":
                continue
            with CaptureReader(path) as reader:
                if reader.link_type != "EN10MB":
                    continue
                for captured in reader:
                    packet = captured.data[:LONGEST]
                    if len(packet) < SHORTEST or BEHIND.matches(packet):
                        continue
                    expected = next(
                        (kind for kind, rule in KINDS.items() if rule.matches(packet)), "redirected"
                    )
                    program.run(packet)
                    after = program.counters()
                    moved = {**after.to_kernel, "redirected": after.redirected}
                    former = {**before.to_kernel, "redirected": before.redirected}
                    [way] = [name for name in moved if moved[name] != former[name]]
                    before = after
                    ways[expected, way] += 1
    assert {pair for pair in ways if pair[0] != pair[1]} <= {("redirected", "unparsed")}
    assert all(ways[kind, kind] > 0 for kind in KINDS)
    assert ways["redirected", "unparsed"] < ways.total() // 100
