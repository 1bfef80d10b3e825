"""FlowMeter against nfstream (n_dissections=0) over all captures: every flow's packets and bytes.

All packets of the Ethernet captures lie in one file, a capture long after the other, so that
nfstream starts once; their times are whole milliseconds, which is all that it knows. DIFFERENCES
has which packets are left out, and why: without them, every flow is the same. An entry that no
packet needs is an error.
"""

import importlib.util
import json
import mmap
import socket
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from xdpipe.batch import FLAGS, Batch
from xdpipe.capture import CaptureReader
from xdpipe.chain import Chain
from xdpipe.errors import XdpipeError
from xdpipe.stages import FlowMeter, Headers

if importlib.util.find_spec("nfstream") is None:
    pytest.skip("nfstream is not installed: pip install nfstream", allow_module_level=True)

MS = 1_000_000
APART_MS = 10_000_000
"""Between two captures: longer than any timeout here."""
TIMEOUTS = [(60, 300), (1, 3), (15, 1800)]
"""Idle and active, in seconds."""

NFSTREAM = """
import json, sys
from nfstream import NFStreamer

streamer = NFStreamer(
    source=sys.argv[1], idle_timeout=int(sys.argv[2]), active_timeout=int(sys.argv[3]),
    n_dissections=0, accounting_mode=1, statistical_analysis=False, n_meters=1,
    decode_tunnels=False,
)
for f in streamer:
    print(json.dumps([
        f.src_ip, f.src_port, f.dst_ip, f.dst_port, f.protocol, f.vlan_id,
        f.src2dst_packets, f.src2dst_bytes, f.dst2src_packets, f.dst2src_bytes,
        f.bidirectional_first_seen_ms, f.bidirectional_last_seen_ms,
    ]))
"""


class Packet(NamedTuple):
    """A packet of all captures, with what Headers says of it."""

    time_ms: int
    data: bytes
    wire_len: int
    capture: int
    late: bool
    """A packet of its capture that came before it has a later time."""
    columns: dict[str, Any]

    def has(self, flag: str) -> bool:
        return bool(self.columns["flags"] & FLAGS[flag])


class Flow(NamedTuple):
    """What is compared of a flow."""

    src: tuple[str, int]
    dst: tuple[str, int]
    proto: int
    vlan: int
    there: tuple[int, int]
    """Packets and bytes."""
    back: tuple[int, int]
    first_ms: int
    last_ms: int

    @property
    def either_way(self) -> "Flow":
        """The same whoever sent first."""
        if self.src <= self.dst:
            return self
        return self._replace(src=self.dst, dst=self.src, there=self.back, back=self.there)


QUESTIONS = {(4, 8): 0, (4, 13): 14, (4, 17): 18, (6, 128): 129, (6, 133): 134, (6, 135): 136}


def icmp_kind(packet: Packet) -> tuple[Any, ...]:
    """Return what xdpipe tells ICMP flows of two hosts apart by: what is asked, and by whom."""
    c = packet.columns
    version, kind, code = c["ip_version"], c["icmp_type"], c["icmp_code"]
    answers = {(v, answer): question for (v, question), answer in QUESTIONS.items()}
    if (version, kind) in QUESTIONS:
        return version, kind, code, tuple(c["src"])
    if (version, kind) in answers:
        return version, answers[version, kind], code, tuple(c["dst"])
    return version, kind, code, None


def is_icmp(packet: Packet) -> bool:
    return packet.has("ICMP") or packet.has("ICMP6")


DIFFERENCES: dict[str, tuple[str, Callable[[Packet], bool]]] = {
    "malformed": (
        "what is cut short (by a snap length, say) or contradicts itself, xdpipe counts and does "
        "not meter; nfstream meters what begins with an IPv4 header",
        lambda packet: packet.columns["malformed"] != 0,
    ),
    "link layers": (
        "where Headers finds no IP, xdpipe meters nothing; nfstream looks behind MPLS and PPPoE, "
        "and takes for IP what has a 4 or 6 where its version would be, whatever the EtherType",
        lambda packet: packet.columns["ip_version"] == 0,
    ),
    "later fragments": (
        "xdpipe meters them, as flows without ports; nfstream leaves them out",
        lambda packet: packet.has("LATER_FRAGMENT"),
    ),
    "second VLAN tag": (
        "xdpipe tells flows apart by the outer VLAN id, nfstream by the inner",
        lambda packet: packet.columns["n_vlans"] > 1,
    ),
    "out of order": (
        "a packet's time is its own, as the first and last of a flow too; nfstream gives what "
        "comes out of order the latest time that it has seen",
        lambda packet: packet.late,
    ),
    "IP in IP": (
        "xdpipe meters the outer packet, unless Decap comes before; nfstream the inner one",
        lambda packet: packet.columns["ip_proto"] in (4, 41),
    ),
}
"""Packets that the two see differently."""
ICMP_TYPES = (
    "xdpipe tells ICMP flows apart by type and code, as NetFlow v9 does; of nfstream's all of two "
    "hosts are one"
)
DIRECTION = (
    "what goes on after the active timeout keeps its direction; nfstream takes who sends next for "
    "the initiator"
)
TCP_ENDS = "TCP ends a flow, by RST or FIN of both; nfstream's go on for as long as timeouts let"


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[Packet]:
    found: list[tuple[int, bytes, int, int, bool]] = []
    start = 1_000_000_000_000
    for number, path in enumerate(sorted(p for p in captures.rglob("*") if p.is_file())):
        try:
            with CaptureReader(path) as reader:
                reader.require_ethernet()
                one = [(p.time_ns // MS, p.data, p.wire_len) for p in reader]
        except XdpipeError:
            continue  # another link type, or the licence
        if not one:
            continue
        times = [time for time, _, _ in one]
        latest = accumulate(times, max)
        found += [
            (start + time - min(times), data, n, number, time < before)
            for (time, data, n), before in zip(one, latest, strict=True)
        ]
        start += max(times) - min(times) + APART_MS
    names = ("malformed", "ip_version", "n_vlans", "ip_proto", "flags", "icmp_type", "icmp_code",
             "src", "dst")  # fmt: skip
    batch, headers = Batch(mmap.mmap(-1, 16 << 20), 256), Headers()
    packets = []
    for first in range(0, len(found), 256):
        some = found[first : first + 256]
        batch.load([data for _, data, *_ in some])
        headers.process(batch)
        columns = {name: getattr(batch, name).tolist() for name in names}
        packets += [
            Packet(*each, {name: column[i] for name, column in columns.items()})
            for i, each in enumerate(some)
        ]
    assert len(packets) > 13_000
    return packets


def of_several_kinds(packets: Sequence[Packet]) -> set[int]:
    """Return which packets are ICMP between hosts that have ICMP of several kinds: places."""
    kinds: defaultdict[Any, set[Any]] = defaultdict(set)
    places: defaultdict[Any, list[int]] = defaultdict(list)
    for place, packet in enumerate(packets):
        if is_icmp(packet):
            hosts = frozenset((tuple(packet.columns["src"]), tuple(packet.columns["dst"])))
            key = packet.capture, hosts
            kinds[key].add(icmp_kind(packet))
            places[key].append(place)
    return {place for key, where in places.items() if len(kinds[key]) > 1 for place in where}


@pytest.fixture(scope="module")
def plain(packets: list[Packet]) -> list[Packet]:
    """Return the packets that no difference leaves out."""
    several = of_several_kinds(packets)
    plain = [
        packet
        for place, packet in enumerate(packets)
        if place not in several and not any(left(packet) for _, left in DIFFERENCES.values())
    ]
    assert len(plain) > 11_900
    return plain


def nfstream(packets: Sequence[Packet], idle_s: int, active_s: int, path: Path) -> Counter[Flow]:
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for p in packets:
            times = p.time_ms // 1000, p.time_ms % 1000 * 1000
            file.write(struct.pack("<IIII", *times, len(p.data), p.wire_len) + p.data)
    done = subprocess.run(
        [sys.executable, "-c", NFSTREAM, str(path), str(idle_s), str(active_s)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    flows: Counter[Flow] = Counter()
    for line in done.stdout.splitlines():
        src, sport, dst, dport, proto, vlan, n, size, n_back, size_back, *times = json.loads(line)
        there, back = (n, size), (n_back, size_back)
        flows[Flow((src, sport), (dst, dport), proto, vlan, there, back, *times)] += 1
    return flows


def _address(raw: np.ndarray, version: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, raw.tobytes()[12:])
    return socket.inet_ntop(socket.AF_INET6, raw.tobytes())


def _flow(r: np.void) -> Flow:
    """Return a record in nfstream's terms."""
    version, proto = int(r["ip_version"]), int(r["proto"])
    ports = (0, 0) if proto in (1, 58) else (int(r["sport"]), int(r["dport"]))
    there, back = zip(r["packets"].tolist(), r["bytes"].tolist(), strict=True)
    seen = [w for w in (0, 1) if r["packets"][w]]
    first, last = min(r["first_ns"][seen]) // MS, max(r["last_ns"][seen]) // MS
    ends = [
        (_address(r[end], version), port) for end, port in zip(("src", "dst"), ports, strict=True)
    ]
    return Flow(ends[0], ends[1], proto, int(r["vlan"]), there, back, int(first), int(last))


def xdpipe(packets: Sequence[Packet], idle_s: float, active_s: float, **more: Any) -> Counter[Flow]:
    stage = FlowMeter(idle_s=idle_s, active_s=active_s, **more)
    batch = Batch(mmap.mmap(-1, 16 << 20), 256)
    chain = Chain([Headers(), stage], batch)
    flows: Counter[Flow] = Counter()
    for first in range(0, len(packets), 256):
        some = packets[first : first + 256]
        batch.load([packet.data for packet in some])
        with batch._unlocked():
            times = [packet.time_ms * MS for packet in some]
            batch._columns["time_ns"][: len(some)] = times
        chain.run()
        flows.update(map(_flow, stage.take()))
    for records in stage.finish():
        flows.update(map(_flow, records))
    assert chain.read_counts()[1]["counters"]["no_room_packets"] == 0
    return flows


@pytest.mark.parametrize(("idle_s", "active_s"), TIMEOUTS)
def test_every_flow_is_nfstreams(
    plain: list[Packet], idle_s: int, active_s: int, tmp_path: Path
) -> None:
    theirs = nfstream(plain, idle_s, active_s, tmp_path / "all.pcap")
    ours = xdpipe(plain, idle_s, active_s, linger_s=None)
    assert sum(ours.values()) == sum(theirs.values()) > 1000
    assert sum(n * (f.there[0] + f.back[0]) for f, n in ours.items()) == len(plain)
    left_theirs, left_ours = theirs - ours, ours - theirs
    if (idle_s, active_s) == (1, 3):
        assert left_ours, f"not needed: {DIRECTION}"
    else:
        assert not left_ours
    assert Counter(f.either_way for f in left_theirs.elements()) == Counter(
        f.either_way for f in left_ours.elements()
    )


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_needed(
    packets: list[Packet], plain: list[Packet], name: str, tmp_path: Path
) -> None:
    reason, differs = DIFFERENCES[name]
    captures = {packet.capture for packet in packets if differs(packet)}
    known = set(map(id, plain))
    those = [p for p in packets if p.capture in captures and (id(p) in known or differs(p))]
    theirs = nfstream(those, 60, 300, tmp_path / "some.pcap")
    assert xdpipe(those, 60, 300, linger_s=None) != theirs, f"not needed: {reason}"


def test_icmp_of_several_kinds_is_several_flows_with_as_many_packets(
    packets: list[Packet], tmp_path: Path
) -> None:
    several = of_several_kinds(packets)
    those = [
        packet
        for place, packet in enumerate(packets)
        if place in several and not packet.has("IP_OPTIONS") and not packet.late
    ]
    theirs = nfstream(those, 60, 300, tmp_path / "icmp.pcap")
    ours = xdpipe(those, 60, 300)
    assert sum(ours.values()) > sum(theirs.values()), f"not needed: {ICMP_TYPES}"
    assert totals(ours) == totals(theirs)


def totals(flows: Counter[Flow]) -> dict[Any, tuple[int, ...]]:
    """Return packets and bytes of each direction of what has the same ends, over all flows."""
    sums: defaultdict[Any, list[int]] = defaultdict(lambda: [0] * 4)
    for flow, n in flows.items():
        each = flow.either_way
        for place, value in enumerate((*each.there, *each.back)):
            sums[each.src, each.dst, each.proto, each.vlan][place] += n * value
    return {key: tuple(values) for key, values in sums.items()}


def test_where_tcp_ends_flows_there_are_more_with_as_many_packets(
    plain: list[Packet], tmp_path: Path
) -> None:
    theirs = nfstream(plain, 60, 300, tmp_path / "all.pcap")
    ours = xdpipe(plain, 60, 300)
    assert sum(ours.values()) > sum(theirs.values()), f"not needed: {TCP_ENDS}"
    assert totals(ours) == totals(theirs)
    tcp = {f for f in (theirs - ours) + (ours - theirs) if f.proto != socket.IPPROTO_TCP}
    assert not tcp
