"""The stages that rewrite, over every packet of the captures.

Scapy computes all checksums of the outer headers anew, before and after: a packet whose checksums
were right has right ones still. Our own sums, over all packets, say that what was wrong is wrong by
as much. tshark says the same of a checksum before and after. The columns are what Headers says of
the packets then, and no other byte has changed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, _ICMPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from test_headers_scapy import EXTENSIONS, ethernet_packets

from rewritten import bytes_of, check_columns, parsed
from tshark import dissect
from xdpipe.batch import FLAGS, Batch
from xdpipe.capture import CaptureWriter
from xdpipe.stages import (
    DecrementTtl,
    FitMtu,
    FixChecksums,
    MapAddresses,
    SetAddresses,
    SetVlan,
    SwapAddresses,
)

SRC, DST = ("11.0.0.0/8", "fd11::/64"), ("12.255.0.0/16", "fd12:ffff::/96")
"""Networks: packets of different hosts stay packets of different hosts, as tshark likes them."""

STAGES: dict[str, Callable[[], Any]] = {
    "addresses": lambda: SetAddresses(src=SRC, dst=DST),
    "all addresses and ports": lambda: SetAddresses(
        "02:00:00:00:00:01", b"\x02\0\0\0\0\x02", ("10.0.255.255", "fd00:0:ffff::1"),
        ("192.0.2.0", "2001:db8::ffff"), 0, 65535,
    ),
    "maps": lambda: MapAddresses(
        ip=[("10.0.0.0/8", "172.16.0.0/12"), ("0.0.0.0/0", "198.18.0.0/15"), ("::/0", "fd13::/48")],
        port=[(range(1024), range(1024, 2048)), (range(40000, 65536), 7)],
    ),
    "ttl": lambda: DecrementTtl(expired=None),
    "swap": SwapAddresses,
    "vlan": lambda: SetVlan(vid=4094, pcp=7),
    "push": lambda: SetVlan(5, pcp=3, push=True),
    "pop": lambda: SetVlan(pop=True),
}  # fmt: skip
STATUS = ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status",
          "icmpv6.checksum.status", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst")  # fmt: skip
CHECKED = [word for name in ("ip", "tcp", "udp") for word in ("-o", f"{name}.check_checksum:TRUE")]


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    packets = ethernet_packets(captures)
    assert len(packets) > 10_000
    return packets


def rewritten(packets: list[bytes], *names: str) -> Iterator[tuple[Batch, Batch]]:
    """Yield batches before and after stages."""
    stages = [STAGES[name]() for name in names]
    for first in range(0, len(packets), 128):
        before, after = (parsed(packets[first : first + 128]) for _ in range(2))
        for stage in stages:
            stage.process(after)
        yield before, after


def anew(packet: bytes) -> bytes | None:
    """Return the packet with the checksums of its outer headers computed by scapy; None: it cannot.

    Also None where it has no IP.
    """
    whole: Packet = Ether(packet)
    ip = whole.getlayer(IP) or whole.getlayer(IPv6)
    if ip is None:
        return None
    if isinstance(ip, IP):
        ip.delfieldval("chksum")
    upper = ip.payload
    while isinstance(upper, EXTENSIONS):
        upper = upper.payload
    if isinstance(upper, TCP | _ICMPv6) or (isinstance(upper, UDP) and upper.chksum != 0):
        upper.delfieldval("cksum" if isinstance(upper, _ICMPv6) else "chksum")
    try:
        return raw(whole)
    except Exception:  # what scapy has taken apart it cannot always put together
        return None


@pytest.mark.parametrize(
    "names", [("all addresses and ports", "ttl"), ("swap",), ("maps",)], ids=" ".join
)
def test_what_scapy_calls_right_it_calls_right_afterwards(
    packets: list[bytes], names: tuple[str, ...]
) -> None:
    n_right = 0
    for before, after in rewritten(packets, *names):
        fine = before.malformed == 0
        for i in np.flatnonzero(fine).tolist():
            packet = bytes(before.packet(i))
            if anew(packet) != packet:
                continue
            n_right += 1
            changed = bytes(after.packet(i))
            assert anew(changed) == changed, packet.hex()
    assert n_right > 10_000


@pytest.mark.parametrize("mtu", [None, 300, 68])
def test_scapy_calls_right_what_was_fixed(packets: list[bytes], mtu: int | None) -> None:
    """But for packets with options, which may have part of their route before them."""
    n_changed = 0
    for first in range(0, len(packets), 128):
        batch = parsed(packets[first : first + 128])
        if mtu is not None:
            FitMtu(mtu, truncate=True).process(batch)
            check_columns(batch)
        FixChecksums().process(batch)
        fine = (batch.malformed == 0) & (batch.ip_version != 0) & ~batch.has("IP_OPTIONS")
        for i in np.flatnonzero(fine & ~batch.has("FRAGMENT")).tolist():
            packet = bytes(batch.packet(i))
            n_changed += packet != packets[first + i]
            end = int(batch.payload[i] + batch.payload_len[i])
            rebuilt = anew(packet)
            if rebuilt is not None and len(rebuilt) == len(packet):
                assert rebuilt[:end] == packet[:end], packets[first + i].hex()
    assert n_changed > (500 if mtu is None else 3000)


def ones_sum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) & 1)
    return int(np.frombuffer(padded, ">u2").sum(dtype=np.uint64))


def sums(batch: Batch, i: int) -> tuple[int, ...]:
    """Return the sums that the checksums of a packet make up for, modulo 0xffff; 0: right."""
    packet = bytes(batch.packet(i))
    l3, l4, flags = int(batch.l3[i]), int(batch.l4[i]), int(batch.flags[i])
    found = []
    addresses = ones_sum(packet[l3 + 12 : l3 + 20])
    if batch.ip_version[i] == 4:
        found.append(ones_sum(packet[l3 : l3 + (packet[l3] & 15) * 4]))
    else:
        addresses = ones_sum(packet[l3 + 8 : l3 + 40])
    with_pseudo = flags & (FLAGS["TCP"] | FLAGS["UDP"] | FLAGS["ICMP6"])
    if with_pseudo | flags & FLAGS["ICMP"]:
        end = int(batch.payload[i] + batch.payload_len[i])
        segment = packet[l4:end]
        pseudo = addresses + len(segment) + int(batch.ip_proto[i]) if with_pseudo else 0
        if not (flags & FLAGS["UDP"] and segment[6:8] == b"\0\0"):
            found.append(ones_sum(segment) + pseudo)
    return tuple(each % 0xFFFF for each in found)


@pytest.mark.parametrize("name", STAGES)
def test_what_was_wrong_is_wrong_by_as_much(packets: list[bytes], name: str) -> None:
    """But for packets with options, which may have part of their route before them."""
    compared: Counter[int] = Counter()
    for before, after in rewritten(packets, name):
        plain = (before.malformed == 0) & (before.ip_version != 0) & ~before.has("IP_OPTIONS")
        plain &= after.l3 < (1 << 30)
        for i in np.flatnonzero(plain).tolist():
            was = sums(before, i)
            assert sums(after, i) == was, bytes(before.packet(i)).hex()
            compared.update({len(was): 1, -1: any(was)})
    assert compared[1] > 1000
    assert compared[2] > 7000
    assert compared[-1] > 500  # wrong ones


def may_change(batch: Batch, i: int, name: str) -> set[int]:
    """Return the offsets in packet i where a stage may write."""
    l3, l4, flags = int(batch.l3[i]), int(batch.l4[i]), int(batch.flags[i])
    places: set[int] = set()
    version = int(batch.ip_version[i])
    if batch.malformed[i] or (version == 0 and name in ("ttl", "swap", "addresses")):
        return places
    checksum = range(10, 12) if version == 4 else range(0)
    if name == "ttl":
        return {l3 + (8 if version == 4 else 7), *(l3 + k for k in checksum)}
    if name != "addresses":
        places.update(range(12))
    if version:
        places.update(
            l3 + k for k in (*checksum, *(range(12, 20) if version == 4 else range(8, 40)))
        )
        size = {FLAGS["TCP"]: 16, FLAGS["UDP"]: 6, FLAGS["ICMP6"]: 2}.get(flags & 0x2C0)
        if size is not None:
            places.update((l4 + size, l4 + size + 1))
        if flags & (FLAGS["TCP"] | FLAGS["UDP"]):
            places.update(range(l4, l4 + 4))
    return places


@pytest.mark.parametrize("name", ["addresses", "all addresses and ports", "ttl", "swap"])
def test_no_other_byte_is_written(packets: list[bytes], name: str) -> None:
    n_changed = 0
    for before, after in rewritten(packets, name):
        for i, (was, is_) in enumerate(zip(bytes_of(before), bytes_of(after), strict=True)):
            if was == is_:
                continue
            assert len(was) == len(is_)
            differ = {k for k, (a, b) in enumerate(zip(was, is_, strict=True)) if a != b}
            assert differ <= may_change(before, i, name), was.hex()
            n_changed += 1
    assert n_changed > 10_000


@pytest.mark.parametrize("name", ["vlan", "push", "pop"])
def test_tags_are_what_changes(packets: list[bytes], name: str) -> None:
    n: Counter[str] = Counter()
    for before, after in rewritten(packets, name):
        for i, (was, is_) in enumerate(zip(bytes_of(before), bytes_of(after), strict=True)):
            tagged, fine = int(before.n_vlans[i]), not before.malformed[i]
            if fine and name == "vlan" and tagged:
                expected = was[:14] + bytes([was[14] & 0x10 | 0xEF, 0xFE]) + was[16:]
            elif fine and name == "push" and tagged < 2:
                expected = was[:12] + b"\x81\x00\x60\x05" + was[12:]
            elif fine and name == "pop" and tagged:
                expected = was[:12] + was[16:]
            else:
                expected = was
            assert is_ == expected
            n["changed" if is_ != was else "same"] += 1
    assert n["changed"] > {"vlan": 300, "push": 11_000, "pop": 300}[name], n
    assert n["same"] > 500, n


@pytest.mark.parametrize("name", STAGES)
def test_the_columns_say_what_the_packets_say(packets: list[bytes], name: str) -> None:
    for before, after in rewritten(packets, name):
        third = np.isin(before.eth_type, (0x8100, 0x88A8)) & (before.malformed == 0)
        check_columns(after, ~third if name == "pop" else None)


def test_tshark_says_the_same_of_every_checksum(packets: list[bytes], tmp_path: Path) -> None:
    """Ports stay, since tshark dissects by them."""
    said = []
    for names in ((), ("addresses", "ttl")):
        path = tmp_path / "packets.pcap"
        with CaptureWriter(path) as writer:
            for _, after in rewritten(packets, *names):
                for k, packet in enumerate(bytes_of(after)):
                    writer.write(k, packet)
        said.append(dissect(path, *CHECKED, fields=STATUS))
    before, after = said
    assert len(before) == len(after) == len(packets)
    statuses: Counter[str] = Counter()
    n_new = 0
    for packet, was, now in zip(packets, before, after, strict=True):
        for field in STATUS[:4]:
            assert was[field] == now[field], (field, packet.hex())
            statuses.update(f"{field} {status}" for status in was[field])
        n_new += any(was[field] != now[field] for field in STATUS[4:])
    assert n_new > 10_000
    for name in ("ip", "tcp", "udp", "icmpv6"):
        assert statuses[f"{name}.checksum.status 1"] > 50, statuses  # good
    assert statuses["tcp.checksum.status 0"] > 50, statuses  # and bad
