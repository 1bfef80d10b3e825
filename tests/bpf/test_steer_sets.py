"""What the program makes of packets whose addresses are in sets, by BPF_PROG_TEST_RUN."""

import ipaddress
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from xdpipe import DropSet, PassSet, Steering, TakeSet
from xdpipe.guard import Guard
from xdpipe.set_command import parse
from xdpipe.set_map import SetMap
from xdpipe.sets import KeySet
from xdpipe.steering import SteerProgram

XDP_DROP, XDP_PASS = 1, 2
ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")


@contextmanager
def program_with(
    declared: dict[str, KeySet], entries: dict[str, list[str]], guard: Guard | None = None
) -> Iterator[SteerProgram]:
    maps = {name: SetMap(name, each) for name, each in declared.items()}
    for name, texts in entries.items():
        maps[name].add([parse(text) for text in texts])
    steering = Steering("udp", sets=declared)
    given = {name: each.map for name, each in maps.items()}
    try:
        with SteerProgram(steering, guard, 1, set_maps=given) as program:
            yield program
    finally:
        for each in maps.values():
            each.close()


def udp(src: str, *between: Packet, dst: str = "") -> bytes:
    ip = IPv6(src=src, dst=dst or "::9") if ":" in src else IP(src=src, dst=dst or "9.9.9.9")
    packet = ETHER
    for each in between:
        packet = packet / each
    return bytes(packet / ip / UDP() / (b"x" * 20))


@pytest.mark.parametrize(
    ("packet", "dropped"),
    [
        (udp("10.1.2.3"), True),
        (udp("10.2.0.1"), False),
        (udp("2001:db8::7"), True),
        (udp("2001:db9::7"), False),
        (udp("::ffff:10.1.2.3"), True),  # as the columns have it, so they are the same
        (bytes(ETHER / IPv6(src="2001:db8::1") / IPv6ExtHdrHopByHop() / UDP()), False),
        (bytes(ETHER / IP(src="10.1.2.3") / TCP()), False),  # the filter takes neither of these
        (bytes(ETHER / ARP(psrc="10.1.2.3")), False),
        (udp("10.1.2.3")[:30], False),
    ],
)
def test_prefixes_of_both_families(packet: bytes, dropped: bool) -> None:
    declared: dict[str, KeySet] = {"blocked": DropSet(prefixes=True)}
    entries = {"blocked": ["10.1.0.0/16", "2001:db8::/32"]}
    with program_with(declared, entries) as program:
        assert (program.run(packet) == XDP_DROP) == dropped
        counters = program.counters()
        assert counters.set_dropped == dropped
        assert counters.seen == sum(counters.to_kernel.values()) + counters.set_dropped


def test_tagged_packets_have_addresses_as_well() -> None:
    declared: dict[str, KeySet] = {"blocked": DropSet()}
    maps = {"blocked": SetMap("blocked", declared["blocked"])}
    maps["blocked"].add([parse("10.1.2.3")])
    steering = Steering("vlan and vlan and udp", sets=declared)
    with SteerProgram(steering, None, 1, set_maps={"blocked": maps["blocked"].map}) as program:
        assert program.run(udp("10.1.2.3", Dot1Q(vlan=1), Dot1Q(vlan=2))) == XDP_DROP
        assert program.run(udp("10.1.2.4", Dot1Q(vlan=1), Dot1Q(vlan=2))) == XDP_PASS
    maps["blocked"].close()


def test_the_guard_comes_before_any_set() -> None:
    declared: dict[str, KeySet] = {"blocked": DropSet(prefixes=True)}
    with program_with(declared, {"blocked": ["0.0.0.0/0"]}, Guard()) as program:
        dhcp = bytes(ETHER / IP(src="10.1.2.3") / UDP(dport=68) / (b"x" * 20))
        assert program.run(dhcp) == XDP_PASS
        assert program.run(udp("10.1.2.3")) == XDP_DROP


def test_sets_are_looked_in_in_their_order_and_count_what_they_decide() -> None:
    declared: dict[str, KeySet] = {
        "late": TakeSet(match="dst"),
        "trusted": PassSet(),
        "blocked": DropSet(prefixes=True),
    }
    entries = {"late": ["9.9.9.9"], "trusted": ["10.0.0.1"], "blocked": ["10.0.0.0/8"]}
    with program_with(declared, entries) as program:
        assert program.run(udp("10.0.0.1")) == XDP_PASS
        assert program.run(udp("10.0.0.2")) == XDP_DROP
        tcp = ETHER / IP(src="10.0.0.2", dst="9.9.9.9") / TCP()
        assert program.run(bytes(tcp)) == XDP_DROP  # taken, and so dropped
        tcp[IP].dst = "9.9.9.8"
        assert program.run(bytes(tcp)) == XDP_PASS
        assert program.set_hits() == {"late": 1, "trusted": 1, "blocked": 2}
        assert program.counters().to_kernel["set_passed"] == 1


def test_an_entry_whose_time_is_over_is_none() -> None:
    maps = {"blocked": SetMap("blocked", DropSet())}
    maps["blocked"].add([parse("10.0.0.1")], ttl_s=1e-9)
    maps["blocked"].add([parse("10.0.0.2")], ttl_s=100)
    steering = Steering("udp", sets={"blocked": DropSet()})
    with SteerProgram(steering, None, 1, set_maps={"blocked": maps["blocked"].map}) as program:
        assert program.run(udp("10.0.0.1")) == XDP_PASS
        assert program.run(udp("10.0.0.2")) == XDP_DROP
    maps["blocked"].close()


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_map_holds_what_was_put_in(prefixes: bool) -> None:
    rng = random.Random(5)
    known: dict[tuple[int, bytes], None] = {}
    with_all = SetMap("all", DropSet(prefixes=prefixes))
    for _ in range(3000):
        address = ipaddress.IPv6Address(rng.getrandbits(128))
        length = rng.randrange(129) if prefixes else 128
        network = ipaddress.ip_network((address, length), strict=False)
        known[length, network.network_address.packed] = None
    entries = list(known)
    assert with_all.add(entries) == len(entries)
    assert with_all.add(entries[:10]) == 10  # once more
    assert sorted(entry for entry, _ in with_all.entries()) == sorted(entries)
    gone = entries[::3]
    assert with_all.delete([*gone, (128, b"\1" * 16), *gone[:5]]) == len(gone)
    left = sorted(set(entries) - set(gone))
    assert sorted(entry for entry, _ in with_all.entries()) == left
    assert with_all.flush() == len(left)
    assert with_all.entries() == []
    with_all.close()
