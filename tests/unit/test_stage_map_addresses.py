"""MapAddresses: addresses and ports become what a list says, checksums and columns follow."""

from typing import Any

import numpy as np
import pytest
from made_packets import KINDS, MALFORMED, NEW, WAS, fragments4, fragments6, partial
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Dot3, Ether
from test_multi_buffer import cut, in_frames

from guard_page import GuardedBatch
from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, MapAddresses
from xdpipe.verdict import DROP

PAIRS = {key: (WAS[key], NEW[key]) for key in WAS}
NO_IP = {"ARP"}
NO_PORTS = {
    "ARP", "IPv4 ICMP", "IPv4, another protocol", "IPv4 later fragment", "IPv6 ICMPv6",
    "IPv6 later fragment",
}  # fmt: skip


def stage_for(*keys: str) -> MapAddresses:
    """Return the stage that maps what WAS has by these keys to what NEW has."""
    chosen = {
        name: [PAIRS[key] for key in keys if key.rstrip("46") in ends]
        for name, ends in (
            ("ip", ("src", "dst")), ("mac", ("eth_src", "eth_dst")), ("port", ("sport", "dport")),
        )
    }  # fmt: skip
    return MapAddresses(**chosen)


def after(*keys: str) -> dict[str, Any]:
    return WAS | {key: NEW[key] for key in keys}


def made(kind: str, v: dict[str, Any]) -> bytes:
    """Return a packet of a kind; the addresses within ARP are those around it."""
    if kind == "ARP":
        ether = Ether(src=v["eth_src"], dst=v["eth_dst"])
        return raw(
            ether / ARP(hwsrc=v["eth_src"], hwdst=v["eth_dst"], psrc=v["src4"], pdst=v["dst4"])
        )
    return raw(KINDS[kind](v))


SUBSETS = [
    ("src4",), ("dst4",), ("src6",), ("dst6",), ("eth_src",), ("eth_dst",), ("sport",), ("dport",),
    ("src4", "dst6"), ("src4", "dst4", "src6", "dst6"), ("sport", "dport"),
    ("src4", "src6", "dport", "eth_dst"), tuple(WAS),
]  # fmt: skip


@pytest.mark.parametrize("keys", SUBSETS, ids=" ".join)
def test_it_is_as_if_the_packet_had_been_made_so(keys: tuple[str, ...]) -> None:
    batch = parsed(made(kind, WAS) for kind in KINDS)
    stage = stage_for(*keys)
    stage.process(batch)
    expected = {kind: made(kind, after(*keys)) for kind in KINDS}
    for kind, packet in zip(KINDS, bytes_of(batch), strict=True):
        assert packet == expected[kind], kind
    check_columns(batch)
    n_mapped = sum(expected[kind] != made(kind, WAS) for kind in KINDS)
    assert counts(stage) == {
        "mapped": n_mapped, "unmatched": len(KINDS) - n_mapped, "left_alone": 0,
    }  # fmt: skip


@pytest.mark.parametrize("end", ["src", "dst"])
def test_source_and_destination_are_alike(end: str) -> None:
    """What comes back along a flow is mapped back to where it came from."""
    other = {"src": "dst", "dst": "src"}[end]
    swapped = {f"{end}{v}": WAS[f"{other}{v}"] for v in "46"}
    was = WAS | swapped | {"sport": WAS["dport"], "dport": WAS["sport"]}
    batch = parsed([made("IPv4 UDP", was), made("IPv6 TCP", was)])
    stage_for("src4", "src6", "sport").process(batch)
    new = was | {
        key: NEW[f"src{key[-1]}"] for key in was if was[key] in (WAS["src4"], WAS["src6"])
    } | {"dport": NEW["sport"]}  # fmt: skip
    assert bytes_of(batch) == [made("IPv4 UDP", new), made("IPv6 TCP", new)]
    check_columns(batch)


@pytest.mark.parametrize(
    ("pair", "was", "becomes"),
    [
        (("10.0.0.0/8", "192.168.0.0/16"), "10.7.8.9", "192.168.8.9"),
        (("192.168.0.0/16", "10.0.0.0/8"), "192.168.8.9", "10.0.8.9"),
        (("10.0.0.0/8", "11.0.0.0/8"), "10.7.8.9", "11.7.8.9"),
        (("10.0.0.0/8", "11.0.0.0/8"), "11.7.8.9", "11.7.8.9"),
        (("10.7.8.8/30", "10.7.8.4/30"), "10.7.8.9", "10.7.8.5"),
        (("10.0.0.0/8", "192.0.2.7"), "10.7.8.9", "192.0.2.7"),
        (("10.7.8.9", "192.0.2.0/24"), "10.7.8.9", "192.0.2.0"),
        (("0.0.0.0/0", "198.18.0.0/15"), "10.7.8.9", "198.19.8.9"),
        (("255.255.255.255", "10.0.0.255"), "255.255.255.255", "10.0.0.255"),
        (("2001:db8::/32", "fd00::/64"), "2001:db8:1:2:3::9", "fd00::3:0:0:9"),
        (("fd00::/64", "2001:db8::/32"), "fd00::3:0:0:9", "2001:db8::3:0:0:9"),
        (("::/0", "fd00::1"), "2001:db8:1:2:3::9", "fd00::1"),
        (("2001:db8:0:0:8000::/65", "fd00::/65"), "2001:db8::ffff:0:0:9", "fd00::7fff:0:0:9"),
    ],
)  # fmt: skip
def test_of_two_networks_the_host_of_the_narrower_stays(
    pair: tuple[str, str], was: str, becomes: str
) -> None:
    version = "6" if ":" in was else "4"
    keys = (f"src{version}", f"dst{version}")
    kind = f"IPv{version} UDP"
    batch = parsed([made(kind, WAS | dict.fromkeys(keys, was))])
    MapAddresses(ip=[pair]).process(batch)
    assert bytes_of(batch) == [made(kind, WAS | dict.fromkeys(keys, becomes))]
    check_columns(batch)


def test_the_first_pair_that_fits_counts() -> None:
    stage = MapAddresses(
        ip=[("192.0.2.1", "10.0.0.1"), ("192.0.2.0/24", "10.9.9.0/24"), ("10.0.0.1", "1.1.1.1")],
        port=[(1000, 1), (range(900, 1100), 2), (1, 3)],
        mac=[("02:00:00:00:00:02", "02:00:00:00:00:aa"), ("02:00:00:00:00:02", bytes(6))],
    )
    batch = parsed([made("IPv4 UDP", WAS), made("IPv4 UDP", WAS | {"src4": "192.0.2.9"})])
    stage.process(batch)
    common = {"sport": 1, "eth_src": "02:00:00:00:00:aa"}
    assert bytes_of(batch) == [
        made("IPv4 UDP", WAS | common | {"src4": address}) for address in ("10.0.0.1", "10.9.9.9")
    ]


@pytest.mark.parametrize(
    ("pair", "becomes"),
    [
        ((range(8000, 8010), range(9000, 9010)), {7999: 7999, 8000: 9000, 8009: 9009, 8010: 8010}),
        ((range(0, 1024), 9), {0: 9, 1023: 9, 1024: 1024}),
        ((range(0, 65536), range(0, 65536)), {0: 0, 65535: 65535}),
        ((65535, 0), {65535: 0, 0: 0}),
        ((range(80, 81), range(81, 82)), {79: 79, 80: 81, 81: 81}),
    ],
)
def test_ports_keep_their_place_in_a_range(pair: tuple[Any, Any], becomes: dict[int, int]) -> None:
    batch = parsed([made("IPv6 TCP", WAS | {"sport": port, "dport": port}) for port in becomes])
    MapAddresses(port=[pair]).process(batch)
    assert bytes_of(batch) == [
        made("IPv6 TCP", WAS | {"sport": port, "dport": port}) for port in becomes.values()
    ]
    check_columns(batch)


def test_arp_is_mapped_wherever_ethernet_has_it() -> None:
    def arp(v: dict[str, Any]) -> list[bytes]:
        ether = {"src": v["eth_src"], "dst": v["eth_dst"]}
        inner = ARP(op=2, hwsrc=v["eth_src"], hwdst=v["eth_dst"], psrc=v["src4"], pdst=v["dst4"])
        tag = Dot1Q(vlan=5)
        return [
            raw(packet)
            for packet in (
                Ether(**ether) / inner,
                Ether(**ether) / tag / inner / (b"\xff" * 18),
                Ether(**ether) / tag / tag / inner,
                Dot3(**ether) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x806) / inner,
            )
        ]

    keys = ("src4", "dst4", "eth_src", "eth_dst")
    batch = parsed(arp(WAS))
    assert batch.has("ARP").all()
    stage_for(*keys).process(batch)
    assert bytes_of(batch) == arp(after(*keys))
    check_columns(batch)


@pytest.mark.parametrize("change", [{"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 5}, {"plen": 3}])
def test_arp_of_anything_but_ipv4_over_ethernet_stays(change: dict[str, int]) -> None:
    fields = {"hwtype": 1, "ptype": 0x800, "hwlen": 6, "plen": 4} | change
    head = b"".join(fields[name].to_bytes(size, "big") for name, size in
                    (("hwtype", 2), ("ptype", 2), ("hwlen", 1), ("plen", 1)))  # fmt: skip
    packet = raw(Ether(src="06:00:00:00:00:01", dst="06:00:00:00:00:02", type=0x806)) + head
    packet += b"\0\1" + bytes.fromhex("020000000002c0000201") * 2
    batch = parsed([packet])
    stage = stage_for(*WAS)
    stage.process(batch)
    assert bytes_of(batch) == [packet]
    assert counts(stage) == {"mapped": 0, "unmatched": 1, "left_alone": 0}


def test_all_fragments_of_a_datagram_go_together() -> None:
    for pieces, keys in ((fragments4, ("src4", "dst4")), (fragments6, ("src6", "dst6"))):
        batch = parsed(map(raw, pieces(WAS)))
        stage_for(*keys).process(batch)
        assert bytes_of(batch) == [raw(packet) for packet in pieces(after(*keys))]
        assert len(set(batch.flow_hash.tolist())) == 1


def test_the_packet_within_an_icmp_error_stays_as_it_is() -> None:
    def error(v: dict[str, Any]) -> bytes:
        inner = IPerror(src=WAS["dst4"], dst=WAS["src4"]) / UDPerror(sport=53, dport=1000) / b"12"
        ether = Ether(src=v["eth_src"], dst=v["eth_dst"])
        return raw(ether / IP(src=v["src4"], dst=v["dst4"]) / ICMP(type=3, code=3) / inner)

    batch = parsed([error(WAS)])
    stage_for(*WAS).process(batch)
    assert bytes_of(batch) == [error(after(*WAS))]


def test_of_a_packet_that_was_cut_the_headers_addresses_are_mapped() -> None:
    keys = ("src4", "dst4", "src6", "dst6", "eth_src", "eth_dst")
    cuts = [("IPv4 TCP", 60), ("IPv4 UDP", 40), ("IPv4 options", 50), ("IPv6 UDP", 60),
            ("IPv6 options", 55)]  # fmt: skip
    batch = parsed(made(kind, WAS)[:n] for kind, n in cuts)
    assert (batch.malformed != 0).all()
    stage = stage_for(*WAS)
    stage.process(batch)
    expected = [made(kind, after(*keys))[:n] for kind, n in cuts]
    for (kind, n), packet, mapped in zip(cuts, expected, bytes_of(batch), strict=True):
        header = 34 if "4" in kind else 54
        whole = made(kind, WAS)[:n]
        assert mapped == packet[:header] + whole[header:], kind
    assert counts(stage) == {"mapped": len(cuts), "unmatched": 0, "left_alone": 0}
    check_columns(batch)


def test_a_header_that_goes_on_in_a_second_frame_is_left_alone() -> None:
    for kind, at in (("IPv6 UDP", 54), ("IPv4 TCP", 40)):
        whole = made(kind, WAS)
        batch = in_frames([cut(whole, at)])
        Headers().process(batch)
        stage = stage_for(*WAS)
        stage.process(batch)
        assert bytes_of(batch) == [whole]
        assert counts(stage) == {"mapped": 0, "unmatched": 0, "left_alone": 1}


def test_only_undecided_packets_with_the_mark() -> None:
    packet = made("IPv4 UDP", WAS)
    batch = parsed([packet] * 4)
    batch.drop(np.array([True, False, False, False]))
    batch.mark[:] = [7, 7, 0, 8]
    stage = MapAddresses(ip=[PAIRS["src4"]], only=7)
    stage.process(batch)
    assert [got != packet for got in bytes_of(batch)] == [False, True, False, False]
    assert counts(stage) == {"mapped": 1, "unmatched": 0, "left_alone": 0}


def test_a_dropped_packet_is_not_looked_at() -> None:
    batch = parsed([b"", b"x"])
    batch.verdict[:] = DROP
    stage = stage_for(*WAS)
    stage.process(batch)
    assert sum(counts(stage).values()) == 0


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_packet_is_one_of_those_that_are_counted(kind: str) -> None:
    batch = GuardedBatch(1).load([MALFORMED[kind]])
    Headers().process(batch)
    stage = stage_for(*WAS)
    stage.process(batch)
    counter = {"nothing": "left_alone", "no Ethernet header": "unmatched"}.get(kind, "mapped")
    none = {"mapped": 0, "unmatched": 0, "left_alone": 0}
    assert counts(stage) == none | {counter: 1}
    check_columns(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_or_written_beyond_a_packet(kind: str) -> None:
    """Cut anywhere: at a page that nobody may touch, or where another frame begins."""
    whole = made(kind, WAS)
    guarded, headers, stage = GuardedBatch(1), Headers(), stage_for(*WAS)
    for n in range(len(whole) + 1):
        batch = guarded.load([whole[:n]])
        headers.process(batch)
        stage.process(batch)
        check_columns(batch)
    for at in range(1, min(len(whole), 140)):
        several = in_frames([cut(whole, at)])
        start, queue = int(several.addr[0]), several.queue  # type: ignore[attr-defined]
        queue.memory[start + at : start + at + 200] = b"\xa5" * 200
        before = bytes(queue.memory[start - 200 : start])
        headers.process(several)
        stage.process(several)
        assert queue.memory[start + at : start + at + 200] == b"\xa5" * 200
        assert queue.memory[start - 200 : start] == before


def test_a_checksum_that_the_link_was_to_fill_in_is_right_once_it_is() -> None:
    kinds = ["IPv4 TCP", "IPv4 UDP", "IPv6 TCP", "IPv6 UDP", "VLAN"]
    batch = parsed((partial(KINDS[kind](WAS)) for kind in kinds), partial=True)
    stage_for(*WAS).process(batch)
    lib.xp_fill_checksums(batch.c)
    assert bytes_of(batch) == [made(kind, after(*WAS)) for kind in kinds]


def test_what_was_wrong_stays_wrong_by_as_much() -> None:
    packet = Ether(made("IPv4 UDP", WAS))
    right = packet[UDP].chksum
    packet[UDP].chksum = right ^ 0x0F00
    batch = parsed([raw(packet)])
    stage_for(*WAS).process(batch)
    now, then = (int(batch.u16(batch.l4 + 6)[0]),
                 Ether(made("IPv4 UDP", after(*WAS)))[UDP].chksum)  # fmt: skip
    assert (now - then - ((right ^ 0x0F00) - right)) % 0xFFFF == 0
    assert now != then


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "MapAddresses: nothing to map"),
        ({"ip": ["10.0.0.0/8"]}, "ip: '10.0.0.0/8': write a pair, (from, to)"),
        ({"ip": [("10.0.0.0/8", "fd00::/8")]}, "10.0.0.0/8 and fd00::/8: both IPv4, or both IPv6"),
        ({"ip": [("10.0.0.1/8", "11.0.0.0/8")]}, "has host bits set"),
        ({"ip": [("10.0.0.0/8", 7)]}, "ip: 7: an IPv4 or IPv6 address, or a network"),
        ({"ip": [("10.0.0.1", "10.0.0.2")] * 65}, "65 ipv4; 64 are the most"),
        ({"mac": [("02:00:00:00:00:01", "x")]}, "mac='x': write a MAC address"),
        ({"port": [(80, 65536)]}, "port: 65536: a port, 0 to 65535"),
        ({"port": [(True, 80)]}, "port: True: a port"),
        ({"port": [(range(80, 80), 80)]}, "port: range(80, 80): a port"),
        ({"port": [(range(1, 9, 2), 80)]}, "a range of them by ones"),
        ({"port": [(range(1, 4), range(1, 3))]}, "3 ports and 2: as many, or a single one"),
        ({"port": [(1, range(1, 3))]}, "1 ports and 2"),
        ({"port": [(1, 2)], "only": -1}, "only=-1: a mark"),
    ],
)
def test_what_cannot_be_mapped_is_one_clear_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(XdpipeError) as raised:
        MapAddresses(**given)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
