"""Decap on crafted packets: every kind of tunnel, each way to be malformed, cuts, checksums."""

import struct
from ipaddress import ip_address
from random import Random
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP
from scapy.layers.inet import UDP as ScapyUDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from test_headers import BAD
from test_multi_buffer import Queue, cut, in_frames

from guard_page import GuardedBatch
from tunnels import (
    ARP,
    BRIDGED,
    FRAME,
    GENEVE_PORT,
    GRE,
    GTPU_PORT,
    INNER4,
    INNER6,
    IPV4,
    IPV6,
    MACS,
    TUNNELS,
    UDP,
    VXLAN_PORT,
    consistent,
    erspan1,
    erspan2,
    erspan3,
    eth,
    geneve,
    gre,
    gtpu,
    ip4,
    ip6,
    kind_of,
    mended,
    over_udp,
    udp,
    vxlan,
    whole,
)
from xdpipe import DROP
from xdpipe.batch import ABSENT, COLUMNS, FLAGS, MALFORMED, Batch
from xdpipe.chain import Chain, ChainError
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import Decap, Headers, SwapAddresses
from xdpipe.stages.decap import DECAP_MALFORMED
from xdpipe.stages.decap import TUNNELS as KINDS
from xdpipe.verdict import TX

Row = dict[str, Any]
NOTHING: Row = {
    "n_tunnels": 0, "tunnels": [0] * 4, "tunnel_id": [0] * 4, "inner": ABSENT, "outer_l3": ABSENT,
    "outer_src": [0] * 16, "outer_dst": [0] * 16, "decap_malformed": 0,
}  # fmt: skip
GUARDED = GuardedBatch(400)
OFFSETS = ("l3", "l4", "payload")
TUNNEL = FLAGS["TUNNEL"]


def rows_of(batch: Batch, *names: str) -> list[Row]:
    columns = {name: getattr(batch, name).tolist() for name in names}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(batch))]


def run(packets: list[bytes], decap: Decap | None = None) -> list[Row]:
    """Return what all columns say behind Headers and Decap; packets end at a guard page."""
    batch = GUARDED.load(packets)
    Headers().process(batch)
    (decap or Decap()).process(batch)
    return rows_of(batch, *Headers.provides, *Decap.provides)


def headers_of(inner: bytes, kind: int, at: int) -> Row:
    """Return what Headers says of a packet that begins with this, as if it lay at an offset."""
    frame = inner if kind == BRIDGED else eth(kind, inner)
    batch = Batch(bytearray(1 << 18), 1)
    batch.load([frame])
    Headers().process(batch)
    [row] = rows_of(batch, *Headers.provides)
    for name in OFFSETS:
        if row[name] != ABSENT:
            row[name] += at - (len(frame) - len(inner))
    return row | {"flags": row["flags"] | TUNNEL}


def of_headers(row: Row) -> Row:
    return {name: row[name] for name in Headers.provides}


def of_decap(row: Row) -> Row:
    return {name: row[name] for name in Decap.provides}


def counts_of(packets: list[bytes], decap: Decap) -> dict[str, int]:
    batch = Batch(bytearray(1 << 18), len(packets))
    chain = Chain([Headers(), decap], batch)
    batch.load(packets)
    chain.run()
    counters = chain.read_counts()[1]["counters"]
    return {name: n for name, n in counters.items() if n}


@pytest.mark.parametrize("name", TUNNELS)
def test_columns_speak_of_what_lies_within(name: str) -> None:
    _, kind, tunnel_id, inner = TUNNELS[name]
    packet = whole(name)
    [row] = run([packet])
    at = len(packet) - len(inner)
    assert of_headers(row) == headers_of(inner, kind_of(inner), at)
    outer = headers_of(packet, BRIDGED, 0)
    assert of_decap(row) == {
        "n_tunnels": 1, "tunnels": [KINDS[kind], 0, 0, 0], "tunnel_id": [tunnel_id, 0, 0, 0],
        "inner": at, "outer_l3": 14, "outer_src": outer["src"], "outer_dst": outer["dst"],
        "decap_malformed": 0,
    }  # fmt: skip
    source = ip_address(bytes(row["outer_src"]))
    assert source == ip_address("fd00::1" if " v6" in name else "::ffff:10.0.0.1")


@pytest.mark.parametrize("name", TUNNELS)
def test_padding_behind_the_tunnel_is_no_part_of_it(name: str) -> None:
    padded, plain = run([whole(name) + bytes(20), whole(name)])
    assert padded == plain


def test_every_kind_is_tried() -> None:
    assert {kind for _, kind, _, _ in TUNNELS.values()} == set(KINDS)


def test_no_tunnel_leaves_the_columns_as_they_were() -> None:
    packets = [
        eth(0x0800, INNER4),
        eth(0x86DD, INNER6),
        eth(0x0806, ARP),
        b"",
        eth(0x0800, INNER4)[:30],
    ]
    batch = Batch(bytearray(1 << 16), 8)
    batch.load(packets)
    Headers().process(batch)
    before = rows_of(batch, *Headers.provides)
    Decap().process(batch)
    assert rows_of(batch, *Headers.provides) == before
    assert rows_of(batch, *Decap.provides) == [NOTHING] * len(packets)


@pytest.mark.parametrize("name", TUNNELS)
def test_only_the_kinds_that_were_asked_for_are_entered(name: str) -> None:
    kind = TUNNELS[name][1]
    for other in KINDS:
        [row] = run([whole(name)], Decap(other.lower()))
        assert row["n_tunnels"] == (other == kind), other
        assert row["decap_malformed"] == 0
    rest = [other.lower() for other in KINDS if other != kind]
    [row] = run([whole(name)], Decap(*rest))
    assert of_decap(row) == NOTHING
    assert of_headers(row) == headers_of(whole(name), BRIDGED, 0) | {"flags": row["flags"]}
    assert not row["flags"] & TUNNEL


def test_udp_tunnels_are_told_by_their_destination_port() -> None:
    packets = [
        over_udp(port, body)
        for port in (VXLAN_PORT, GENEVE_PORT, GTPU_PORT, 1, 2, 3)
        for body in (vxlan(5, FRAME), geneve(5, BRIDGED, FRAME), gtpu(5, INNER4))
    ]
    packets += [ip4(UDP, udp(9, vxlan(5, FRAME), sport=VXLAN_PORT))]
    rows = run([eth(0x0800, packet) for packet in packets])
    assert [row["n_tunnels"] for row in rows] == [1, 0, 0, 0, 1, 0, 0, 0, 1, *[0] * 10]
    moved = Decap(vxlan_port=1, geneve_port=2, gtpu_port=3)
    rows = run([eth(0x0800, packet) for packet in packets], moved)
    assert [row["n_tunnels"] for row in rows] == [0] * 9 + [1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def nested(n: int) -> bytes:
    """Return IP with n tunnels, of changing kinds, outermost VXLAN; ids n, n - 1, ... 1."""
    packet = INNER4
    for k in range(1, n + 1):
        if (n - k) % 2:
            packet = ip4(GRE, gre(0x0800, packet, key=k), last=100 + k)
        else:
            packet = over_udp(VXLAN_PORT, vxlan(k, eth(0x0800, packet)), last=100 + k)
    return packet


@pytest.mark.parametrize("depth", range(1, 5))
@pytest.mark.parametrize("n", range(7))
def test_tunnels_are_entered_down_to_the_depth(n: int, depth: int) -> None:
    packet = eth(0x0800, nested(n))
    [row] = run([packet], Decap(depth=depth))
    entered = min(n, depth)
    kinds = [KINDS["GRE" if k % 2 else "VXLAN"] for k in range(entered)]
    assert row["n_tunnels"] == entered
    assert row["tunnels"] == [*kinds, 0, 0, 0, 0][:4]
    assert row["tunnel_id"] == [*range(n, n - entered, -1), 0, 0, 0, 0][:4]
    last = 7 if n <= depth else 100 + n - depth
    assert row["src"][-4:] == [10, 0, 0, last]
    if n:
        assert row["outer_src"][-4:] == [10, 0, 0, 100 + n]
        assert (row["outer_l3"], row["l3"]) == (14, row["inner"] + (0 if kinds[-1] == 3 else 14))
    counted = counts_of([packet], Decap(depth=depth))
    assert counted.get("deeper", 0) == (n > depth)
    assert counted.get("decapsulated", 0) == (n > 0)
    assert counted.get("vxlan", 0) + counted.get("gre", 0) == entered


def test_the_depth_is_4_unless_told_otherwise() -> None:
    assert [run([eth(0x0800, nested(n))])[0]["n_tunnels"] for n in (4, 5)] == [4, 4]


@pytest.mark.parametrize("name", TUNNELS)
def test_tags_and_labels_before_the_tunnel_do_not_matter(name: str) -> None:
    kind = b"\x86\xdd" if " v6" in name else b"\x08\x00"
    ip = TUNNELS[name][0]
    before = {
        4: b"\x81\x00\x00\x07" + kind,
        12: b"\x88\xa8\x00\x07\x81\x00\x00\x08\x88\x47" + struct.pack(">I", 0x11140),
    }
    [plain] = run([eth(0x0800 if kind[0] == 8 else 0x86DD, ip)])
    for shift, tags in before.items():
        [row] = run([MACS + tags + ip])
        expected = dict(plain)
        for column in (*OFFSETS, "inner", "outer_l3"):
            if plain[column] != ABSENT:
                expected[column] += shift
        assert row == expected


def test_the_flow_hash_is_that_of_the_inner_flow() -> None:
    there = ip4(UDP, udp(53, b"question", sport=5), last=7)
    back = bytearray(ip4(UDP, udp(5, b"answer", sport=53), last=7))
    back[12:16], back[16:20] = back[16:20], back[12:16]
    rows = run([
        eth(0x0800, there), eth(0x0800, bytes(back)),
        eth(0x0800, ip4(GRE, gre(0x0800, there))),
        eth(0x0800, over_udp(VXLAN_PORT, vxlan(3, eth(0x0800, bytes(back))), last=77)),
    ])  # fmt: skip
    assert len({row["flow_hash"] for row in rows}) == 1


# What is no tunnel that Decap looks into, and is not malformed either
NOT_ENTERED = {
    "gre version 1": ip4(GRE, gre(0x880B, INNER4, key=1, flags=1)),
    "gre version 1 with a known protocol": ip4(GRE, gre(0x0800, INNER4, flags=1)),
    "gre of another protocol": ip4(GRE, gre(0x8870, INNER4, flags=0x4000)),
    "gre keepalive": ip4(GRE, gre(0, b"")),
    "erspan III of a reserved frame type": ip4(GRE, erspan3(5, FRAME, frame_type=1)),
    "erspan III of another": ip4(GRE, erspan3(5, FRAME, frame_type=16)),
    "erspan III of no IP": ip4(GRE, erspan3(5, bytes(20), frame_type=2)),
    "erspan III of nothing": ip4(GRE, erspan3(5, b"", frame_type=2)),
    "geneve control": over_udp(GENEVE_PORT, geneve(5, BRIDGED, FRAME, flags=0x80)),
    "geneve of another protocol": over_udp(GENEVE_PORT, geneve(5, 0x894F, FRAME)),
    "gtpu echo request": over_udp(GTPU_PORT, gtpu(0, b"", sequence=1, message=1)),
    "gtpu end marker": over_udp(GTPU_PORT, gtpu(5, b"", message=254)),
    "gtpu of no IP": over_udp(GTPU_PORT, gtpu(5, FRAME)),
    "gtpu of nothing": over_udp(GTPU_PORT, gtpu(5, b"")),
    "first fragment": ip4(GRE, gre(0x0800, INNER4), fragment=0x2000),
    "later fragment": ip4(IPV4, INNER4, fragment=5),
    "ipv6 first fragment": ip6(44, struct.pack(">BBHI", IPV4, 0, 1, 7) + INNER4),
    "another protocol": ip4(50, INNER4),
}


@pytest.mark.parametrize("name", NOT_ENTERED)
def test_what_is_not_entered_keeps_the_outer_columns(name: str) -> None:
    packet = eth(0x86DD if name.startswith("ipv6") else 0x0800, NOT_ENTERED[name])
    [row] = run([packet])
    assert of_decap(row) == NOTHING
    outer = headers_of(packet, BRIDGED, 0)
    assert of_headers(row) == outer | {"flags": outer["flags"] & ~TUNNEL}
    assert row["malformed"] == 0
    assert counts_of([packet], Decap()) == {}


def test_an_atomic_fragment_is_entered() -> None:
    packet = ip6(44, struct.pack(">BBHI", IPV4, 0, 0, 7) + INNER4)
    [row] = run([eth(0x86DD, packet)])
    assert (row["n_tunnels"], row["l4_dport"]) == (1, 53)


def gtpu_extension(first_bytes: bytes) -> bytes:
    """Return GTP-U that announces an extension header, which begins so."""
    body = struct.pack(">HBB", 0, 0, 0x85) + first_bytes
    return over_udp(GTPU_PORT, struct.pack(">BBHI", 0x34, 255, len(body), 5) + body)


BAD_TUNNELS = [
    ("VXLAN_SHORT", over_udp(VXLAN_PORT, b"")),
    ("VXLAN_SHORT", over_udp(VXLAN_PORT, vxlan(5, b"")[:7])),
    ("VXLAN_FLAGS", over_udp(VXLAN_PORT, vxlan(5, FRAME, flags=0xF7))),
    ("GENEVE_SHORT", over_udp(GENEVE_PORT, geneve(5, BRIDGED, b"")[:7])),
    ("GENEVE_VERSION", over_udp(GENEVE_PORT, geneve(5, BRIDGED, FRAME, version=1))),
    ("GENEVE_OPTIONS", over_udp(GENEVE_PORT, geneve(5, BRIDGED, b"", bytes(8))[:-1])),
    ("GRE_SHORT", ip4(GRE, b"\0\0\x08")),
    ("GRE_SHORT", ip4(GRE, gre(0x0800, b"", key=5)[:7])),
    ("GRE_SHORT", ip4(GRE, gre(0x88BE, b"", sequence=5)[:7])),
    ("GRE_SHORT", ip4(GRE, gre(BRIDGED, b"", key=5, sequence=5, checksum=5)[:15])),
    ("GRE_VERSION", ip4(GRE, gre(0x0800, INNER4, flags=2))),
    ("GRE_VERSION", ip4(GRE, gre(0x0800, INNER4, flags=7))),
    ("GRE_FLAGS", ip4(GRE, gre(0x0800, INNER4, flags=0x4000))),
    ("GRE_FLAGS", ip4(GRE, gre(0x0800, INNER4, flags=0x0800))),
    ("GRE_FLAGS", ip4(GRE, gre(0x0800, INNER4, flags=0x0400))),
    ("ERSPAN_SHORT", ip4(GRE, gre(0x88BE, bytes([0x10, *bytes(6)]), sequence=5))),
    ("ERSPAN_SHORT", ip4(GRE, erspan3(5, b"")[:-1])),
    ("ERSPAN_SHORT", ip4(GRE, erspan3(5, b"", more=bytes(8))[:-1])),
    ("ERSPAN_VERSION", ip4(GRE, erspan2(5, FRAME, version=2))),
    ("ERSPAN_VERSION", ip4(GRE, erspan3(5, FRAME, version=1))),
    ("GTPU_SHORT", over_udp(GTPU_PORT, gtpu(5, b"")[:7])),
    ("GTPU_VERSION", over_udp(GTPU_PORT, gtpu(5, INNER4, first=0x50))),
    ("GTPU_VERSION", over_udp(GTPU_PORT, gtpu(5, INNER4, first=0x20))),
    ("GTPU_LEN", over_udp(GTPU_PORT, gtpu(5, INNER4)[:-1])),
    ("GTPU_LEN", over_udp(GTPU_PORT, gtpu(5, b"\0\0\0", first=0x32))),
    ("GTPU_EXTENSION", gtpu_extension(b"")),
    ("GTPU_EXTENSION", over_udp(GTPU_PORT, gtpu_extension(b"")[28:] + b"\1\0\0\0")),
    ("GTPU_EXTENSION", gtpu_extension(b"\0" * 8)),
    ("GTPU_EXTENSION", gtpu_extension(b"\2" + bytes(6))),
    ("GTPU_EXTENSION", gtpu_extension(b"\1\0\0\x85")),
    ("GTPU_EXTENSION", over_udp(GTPU_PORT, gtpu(5, INNER4, extensions=((0x85, b"\0\0"),) * 9))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "ip"), BAD_TUNNELS)
def test_a_tunnel_that_contradicts_itself_is_not_entered(reason: str, ip: bytes) -> None:
    packet = eth(0x0800, ip)
    [row] = run([packet])
    assert of_decap(row) == NOTHING | {"decap_malformed": DECAP_MALFORMED[reason]}
    outer = headers_of(packet, BRIDGED, 0)
    assert of_headers(row) == outer | {"flags": outer["flags"] & ~TUNNEL}
    assert row["malformed"] == 0
    assert counts_of([packet], Decap()) == {"malformed": 1, f"malformed_{reason.lower()}": 1}


@pytest.mark.parametrize(("reason", "ip"), BAD_TUNNELS)
def test_within_another_it_is_the_next_tunnel_that_is_not_entered(reason: str, ip: bytes) -> None:
    packet = eth(0x0800, ip4(IPV4, ip, last=99))
    [row] = run([packet])
    assert of_headers(row) == headers_of(ip, 0x0800, 34)
    assert (row["n_tunnels"], row["decap_malformed"]) == (1, DECAP_MALFORMED[reason])
    assert row["flags"] & TUNNEL


def test_every_reason_is_tried() -> None:
    assert {reason for reason, _ in BAD_TUNNELS} == set(DECAP_MALFORMED)


def test_eight_extension_headers_are_skipped() -> None:
    packet = over_udp(GTPU_PORT, gtpu(5, INNER4, extensions=((0x85, b"\0\0"),) * 8))
    assert run([eth(0x0800, packet)])[0]["l4_dport"] == 53


@pytest.mark.parametrize(("reason", "inner"), BAD)
def test_a_malformed_inner_packet_is_told_as_headers_tells_it(reason: str, inner: bytes) -> None:
    carriers = [
        over_udp(VXLAN_PORT, vxlan(5, inner)), over_udp(GENEVE_PORT, geneve(5, BRIDGED, inner)),
        ip4(GRE, gre(BRIDGED, inner)), ip4(GRE, erspan1(inner)), ip4(GRE, erspan3(5, inner)),
    ]  # fmt: skip
    rows = run([eth(0x0800, ip) for ip in carriers])
    for row, ip in zip(rows, carriers, strict=True):
        assert row["malformed"] == MALFORMED[reason]
        assert of_headers(row) == headers_of(inner, BRIDGED, 14 + len(ip) - len(inner))
        assert (row["n_tunnels"], row["decap_malformed"]) == (1, 0)
    counted = counts_of([eth(0x0800, ip) for ip in carriers], Decap())
    assert (counted["inner_malformed"], counted["decapsulated"]) == (5, 5)
    assert "malformed" not in counted


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        (ip4(IPV4, b""), "IP4_SHORT"), (ip4(IPV4, INNER6), "IP4_VERSION"),
        (ip4(IPV6, INNER4 + bytes(20)), "IP6_VERSION"), (ip4(IPV6, INNER6[:39]), "IP6_SHORT"),
        (ip4(GRE, gre(0x0800, INNER4[:-1])), "IP4_LEN"),
        (over_udp(GTPU_PORT, gtpu(5, INNER6[:-1])), "IP6_LEN"),
        (over_udp(GTPU_PORT, gtpu(5, INNER4[:-1]) + INNER4[-1:]), "IP4_LEN"),
        (over_udp(GTPU_PORT, gtpu(5, INNER4[:19]) + INNER4[19:]), "IP4_SHORT"),
        (over_udp(VXLAN_PORT, vxlan(5, b"")), "ETH_SHORT"),
        (ip4(GRE, erspan2(5, FRAME[:13])), "ETH_SHORT"),
        (over_udp(GENEVE_PORT, geneve(5, 0x0806, ARP[:-1])), "ARP_SHORT"),
    ],
)  # fmt: skip
def test_the_tunnel_bounds_what_lies_within(ip: bytes, reason: str) -> None:
    """However much follows behind the tunnel."""
    [row] = run([eth(0x0800, ip) + bytes(100)])
    assert (row["malformed"], row["n_tunnels"]) == (MALFORMED[reason], 1)


def run_guarded(packets: list[bytes]) -> Batch:
    batch = GUARDED.load(packets)
    Headers().process(batch)
    Decap().process(batch)
    return batch


@pytest.mark.parametrize("name", TUNNELS)
def test_a_cut_packet_is_the_outer_packets_fault(name: str) -> None:
    """Its IP length says more than arrived, so nothing is entered and nothing is read beyond."""
    packet = whole(name)
    batch = run_guarded([packet[:n] for n in range(len(packet))])
    consistent(batch)
    assert (batch.malformed != 0).all()
    assert rows_of(batch, *Decap.provides) == [NOTHING] * len(packet)


@pytest.mark.parametrize("name", TUNNELS)
def test_a_tunnel_that_truly_ends_early_is_read_no_further(name: str) -> None:
    """Outer lengths are put right for each cut: within the tunnel's header, within the packet."""
    _, kind, tunnel_id, inner = TUNNELS[name]
    packet = whole(name)
    [entire] = run([packet])
    first = 62 if " v6" in name and kind in ("VXLAN", "GTPU") else 54 if " v6" in name else 42
    if kind not in ("VXLAN", "GENEVE", "GTPU"):
        first = 54 if " v6" in name else 34
    if name == "6in6 v6, limit":
        first = 62
    at = len(packet) - len(inner)
    batch = run_guarded([mended(packet, n) for n in range(first, len(packet) + 1)])
    consistent(batch)
    reasons = {value: reason for reason, value in DECAP_MALFORMED.items()}
    for n, row in enumerate(rows_of(batch, *Headers.provides, *Decap.provides), first):
        if n == len(packet):
            assert row == entire
        elif kind == "GTPU" and n >= first + 8:  # which has a length of its own
            assert (reasons[row["decap_malformed"]], row["n_tunnels"]) == ("GTPU_LEN", 0)
        elif n < at:
            reason = reasons[row["decap_malformed"]]
            assert reason in (f"{kind}_SHORT", "GENEVE_OPTIONS", "GRE_SHORT"), n
            assert row["n_tunnels"] == 0
        elif n == at and name.startswith("erspan III ipv"):
            assert of_decap(row) == NOTHING
        else:
            assert of_headers(row) == headers_of(packet[at:n], kind_of(inner), at)
            assert (row["n_tunnels"], row["decap_malformed"]) == (1, 0)
            assert row["tunnel_id"][0] == tunnel_id


def test_random_damage_is_never_read_too_far() -> None:
    rng = Random(1)
    reasons: set[int] = set()
    depths: set[int] = set()
    inner_reasons: set[int] = set()
    sources = [whole(name) for name in TUNNELS] + [eth(0x0800, nested(n)) for n in range(1, 6)]
    for _ in range(300):
        packets = []
        for source in sources:
            n = rng.randrange(60, len(source)) if rng.random() < 0.5 else len(source)
            packet = bytearray(mended(source, n))
            for _ in range(rng.randrange(4)):
                packet[rng.randrange(34, len(packet))] = rng.choice(
                    (0, 1, 2, 8, 0x10, 0x20, 0x30, 0x45, 0x60, 0x88, 0xFF, rng.randrange(256))
                )
            packets.append(bytes(packet))
        batch = run_guarded(packets)
        consistent(batch)
        reasons.update(batch.decap_malformed.tolist())
        depths.update(batch.n_tunnels.tolist())
        inner_reasons.update(batch.malformed[batch.n_tunnels > 0].tolist())
    assert reasons == {0, *DECAP_MALFORMED.values()}
    assert depths == {0, 1, 2, 3, 4}
    assert len(inner_reasons) > 10


@pytest.mark.parametrize("name", TUNNELS)
def test_headers_that_go_on_in_the_next_frame_are_as_if_they_ended(name: str) -> None:
    packet = whole(name)
    inner = TUNNELS[name][3]
    [entire] = run([packet])
    at = len(packet) - len(inner)
    last_header = len(packet) if entire["payload"] == ABSENT else entire["payload"]
    for first in range(60, len(packet)):
        several = in_frames([cut(packet, first)])
        start = int(several.addr[0]) + first
        several.memory[start : start + 100] = b"\x45" * 100
        Headers().process(several)
        Decap().process(several)
        consistent(several)
        [row] = rows_of(several, *Headers.provides, *Decap.provides)
        if first >= last_header:
            assert row == entire, first
        elif first >= at and kind_of(inner) == BRIDGED:
            assert row["n_tunnels"] == 1, first
            assert row["malformed"] != 0, first
        SwapAddresses().process(several)


def test_a_row_has_nothing_of_the_packet_that_it_had_before() -> None:
    batch = Batch(bytearray(1 << 18), 128)
    headers, decap = Headers(), Decap()
    names = (*Headers.provides, *Decap.provides)
    plain = [eth(0x0800, INNER4), eth(0x86DD, INNER6), b"", eth(0x0806, ARP)]
    tunnelled = [whole(name) for name in TUNNELS]
    seen = []
    for packets in (plain, tunnelled, plain, [*plain, *tunnelled], plain[::-1] * 20, tunnelled):
        batch.load(packets)
        headers.process(batch)
        decap.process(batch)
        seen.append(dict(zip(packets, rows_of(batch, *names), strict=False)))
    for rows in seen:
        for packet, row in rows.items():
            assert row == run([packet])[0]


def test_each_kind_has_its_counter() -> None:
    counted = counts_of([whole(name) for name in TUNNELS], Decap())
    of_kind = [kind.lower() for _, kind, _, _ in TUNNELS.values()]
    assert counted == {
        "decapsulated": len(TUNNELS), **{kind: of_kind.count(kind) for kind in of_kind}
    }  # fmt: skip


def test_decided_packets_are_looked_at_as_well() -> None:
    batch = Batch(bytearray(1 << 16), 2)
    batch.load([whole("ipip")] * 2)
    batch.drop(np.array([True, False]))
    Headers().process(batch)
    Decap().process(batch)
    assert batch.n_tunnels.tolist() == [1, 1]
    assert batch.verdict.tolist() == [DROP, 0]


def test_more_packets_than_are_looked_at_at_once() -> None:
    packets = [whole("gre ipv4") if i % 3 else eth(0x0800, INNER4) for i in range(300)]
    rows = run(packets)
    assert [row["n_tunnels"] for row in rows] == [int(i % 3 > 0) for i in range(300)]
    assert {row["l4_dport"] for row in rows} == {53}


def test_swap_addresses_leaves_them_alone() -> None:
    packets = [whole(name) for name in TUNNELS] + [eth(0x0800, INNER4)]
    batch = Batch(bytearray(1 << 18), 64)
    chain = Chain([Headers(), Decap(), SwapAddresses()], batch)
    batch.load(packets)
    chain.run()
    counted = chain.read_counts()[2]["counters"]
    assert counted == {"swapped": 1, "left_alone": len(TUNNELS)}
    assert [bytes(batch.packet(i)) for i in range(len(TUNNELS))] == packets[:-1]
    assert bytes(batch.packet(len(TUNNELS))) != packets[-1]


def checked(ip: bytes, *, outer: bool, inner: bool) -> bytes:
    """Return IP / UDP / VXLAN / Ethernet / IP / UDP with right UDP checksums where wanted."""
    made = IP(ip) if ip[0] >> 4 == 4 else IPv6(ip)
    first = made[ScapyUDP]
    frame = Ether(bytes(first.payload)[8:])
    if inner:
        del frame[ScapyUDP].chksum
    body = bytes(first.payload)[:8] + bytes(frame)
    first.remove_payload()
    made = made / body
    if outer:
        del made[ScapyUDP].chksum
    else:
        made[ScapyUDP].chksum = 0
    return bytes(made)


def is_right(packet: bytes) -> tuple[bool, bool]:
    """Tell whether the outer and the inner UDP checksum are right; 0 is right outside."""
    ip = packet[14:]
    again = checked(ip, outer=True, inner=False)
    outer_at = 20 + 6 if ip[0] >> 4 == 4 else 40 + 6
    frame = Ether(ip[outer_at + 10 :])
    told = frame[ScapyUDP].chksum
    del frame[ScapyUDP].chksum
    return (
        ip[outer_at : outer_at + 2] in (b"\0\0", again[outer_at : outer_at + 2]),
        Ether(bytes(frame))[ScapyUDP].chksum == told,
    )


def vxlan_packets() -> list[bytes]:
    packets = []
    for n in (0, 1, 2, 31):
        body = vxlan(5, eth(0x0800, ip4(UDP, udp(53, bytes(range(n))))))
        packets += [over_udp(VXLAN_PORT, body), ip6(UDP, udp(VXLAN_PORT, body))]
    return packets


@pytest.mark.parametrize("how", ["fix", "fill"])
def test_a_changed_inner_payload_leaves_both_checksums_right(how: str) -> None:
    ips = [checked(ip, outer=True, inner=True) for ip in vxlan_packets()[2:]]
    packets = [eth(0x0800 if ip[0] >> 4 == 4 else 0x86DD, ip) for ip in ips]
    assert [is_right(packet) for packet in packets] == [(True, True)] * len(packets)
    batch = Batch(bytearray(1 << 16), 16)
    batch.load(packets)
    Headers().process(batch)
    Decap().process(batch)
    where = np.ones(len(packets), np.bool_)
    if how == "fix":
        assert batch.put_u8(batch.payload, 0xEE, fix_checksum=True) == len(packets)
        assert batch.put_u16(batch.l4 + 2, 4242, fix_checksum=True) == len(packets)
    else:
        assert batch.put_u8(batch.payload, 0xEE) == len(packets)
        assert batch.put_u16(batch.l4 + 2, 4242) == len(packets)
        assert batch.fill_checksum(where) == len(packets)
        lib.xp_fill_checksums(batch.c)
    for i, packet in enumerate(packets):
        after = bytes(batch.packet(i))
        assert after != packet
        assert is_right(after) == (True, True), i


def without(packet: bytes, at: int, pseudo: bytes) -> bytes:
    """Return a packet that has the sum of a pseudo header in the place of a UDP checksum."""
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[: at + 6] + struct.pack(">H", total) + packet[at + 8 :]


def partial(packet: bytes, l3: int) -> bytes:
    """Return an IPv4 / UDP packet at l3 as a sender leaves it that has its link fill the sum in."""
    pseudo = packet[l3 + 12 : l3 + 20] + struct.pack(">HH", UDP, len(packet) - l3 - 20)
    return without(packet, l3 + 20, pseudo)


def partial_chain() -> tuple[Batch, Chain]:
    batch = Batch(bytearray(1 << 16), 8)
    lib.xp_batch_may_be_partial(batch.c)
    return batch, Chain([Headers(), Decap()], batch)


def test_an_outer_checksum_that_is_due_is_filled_in_as_the_packet_is_entered() -> None:
    packet = eth(0x0800, checked(vxlan_packets()[6], outer=True, inner=True))
    batch, chain = partial_chain()
    batch.load([partial(packet, 14), partial(eth(0x0800, INNER4), 14)])
    chain.run()
    headers, decap = (told["counters"] for told in chain.read_counts())
    assert (headers["partial_checksum"], decap["partial_checksum"]) == (2, 0)
    assert bytes(batch.packet(0)) == packet
    assert batch.checksum_due.tolist() == [0, 1]
    lib.xp_fill_checksums(batch.c)
    assert bytes(batch.packet(0)) == packet


def test_an_outer_checksum_that_is_due_is_not_looked_for_where_the_inner_packet_has_none() -> None:
    ip = over_udp(VXLAN_PORT, vxlan(5, eth(0x0806, ARP)))
    right = eth(0x0800, bytes(IP(ip[:26] + b"\0\0" + ip[28:])))
    batch, chain = partial_chain()
    batch.load([partial(eth(0x0800, ip), 14)])
    chain.run()
    assert batch.checksum_due.tolist() == [0]
    lib.xp_fill_checksums(batch.c)
    told = IP(bytes(batch.packet(0))[14:])
    del told[ScapyUDP].chksum
    assert bytes(told) == bytes(batch.packet(0))[14:]
    assert bytes(batch.packet(0))[:40] == right[:40]


@pytest.mark.parametrize("outer", [True, False])
def test_an_inner_checksum_that_nobody_filled_in_is_noted(outer: bool) -> None:
    """The outer one, where there is one, is that of the packet with the inner one filled in."""
    packet = eth(0x0800, checked(vxlan_packets()[6], outer=outer, inner=True))
    batch, chain = partial_chain()
    batch.load([partial(packet, 14 + 20 + 8 + 8 + 14)])
    assert bytes(batch.packet(0)) != packet
    chain.run()
    headers, decap = (told["counters"] for told in chain.read_counts())
    assert (headers["partial_checksum"], decap["partial_checksum"]) == (0, 1)
    assert batch.checksum_due.tolist() == [1]
    lib.xp_fill_checksums(batch.c)
    assert bytes(batch.packet(0)) == packet


@pytest.mark.parametrize(("decap", "options"), [(True, 0), (False, 2)])
def test_no_nic_is_asked_for_an_inner_checksum(decap: bool, options: int) -> None:
    """It might look for the header itself, and find the outer one."""
    packet = eth(0x0800, checked(vxlan_packets()[6], outer=True, inner=True))
    queue = Queue()
    queue.worker.default_verdict = TX
    queue.port.tx_checksum = 1
    queue.arrives([packet])
    assert lib.xp_receive(queue.worker) == 1
    Headers().process(queue.batch)
    if decap:
        Decap().process(queue.batch)
    assert queue.batch.fill_checksum(np.ones(1, np.bool_)) == 1
    lib.xp_dispatch(queue.worker)
    desc = queue.tx.kernel_takes()
    assert desc["options"] == options  # type: ignore[index]
    if decap:
        start = int(desc["addr"])  # type: ignore[index]
        assert bytes(queue.memory[start : start + len(packet)]) == packet


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("vlan",), {}, "no kind of tunnel 'vlan'; there are vxlan, geneve, gre"),
        ((), {"depth": 0}, "depth=0: 1 to 4"),
        ((), {"depth": 5}, "depth=5: 1 to 4"),
        ((), {"depth": 1.5}, "depth=1.5"),
        ((), {"vxlan_port": 0}, "vxlan_port=0: 1 to 65535"),
        ((), {"gtpu_port": 65536}, "gtpu_port=65536"),
        ((), {"geneve_port": "x"}, "geneve_port='x'"),
        ((), {"vxlan_port": 6081}, "each has a port of its own"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(XdpipeError, match=message):
        Decap(*arguments, **options)


def test_it_needs_headers_before_it() -> None:
    batch = Batch(bytearray(1 << 12), 1)
    with pytest.raises(ChainError, match=r"add Headers\(\) before Decap"):
        Chain([Decap()], batch)


def test_every_column_of_decap_is_looked_at() -> None:
    assert set(NOTHING) == {c.name for c in COLUMNS.values() if c.provider == "Decap"}
