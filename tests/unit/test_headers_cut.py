"""Headers on crafted packets cut at every length, and the corners of IPv6 and of fragments.

Every packet lies at the end of a page with a guard page behind it, so that a read beyond the
packet ends the process.
"""

import itertools
import os
import signal
import struct
import subprocess
import sys
from random import Random

import numpy as np
import pytest

from guard_page import GuardedBatch
from xdpipe.batch import ABSENT, COLUMNS, FLAGS, MALFORMED, Batch
from xdpipe.stages import Headers

MACS = bytes.fromhex("020000000001020000000002")
FD1, FD2 = bytes.fromhex("fd" + "00" * 14 + "01"), bytes.fromhex("fd" + "00" * 14 + "02")
MAPPED = bytes(10) + b"\xff\xff"
UDP_BYTES = struct.pack(">HHHH", 5, 6, 18, 0) + b"0123456789"
TCP_BYTES = struct.pack(">HHIIBBHHH", 5, 6, 1, 2, 0x60, 0x12, 512, 0, 0) + b"\1\1\1\0" + b"data"
ICMP_BYTES = bytes([8, 0, 0, 0, 0, 7, 0, 9]) + b"ping"
ICMP6_BYTES = bytes([128, 0, 0, 0, 0, 7, 0, 9]) + b"ping"
IGMP_BYTES = bytes([0x16, 0, 0, 0, 224, 0, 0, 9])
ARP_BYTES = bytes.fromhex("0001080006040002") + bytes(range(1, 21))
UDP, TCP, ICMP, ICMP6, IGMP = 17, 6, 1, 58, 2
SERVICE, CUSTOMER = b"\x88\xa8\0\7", b"\x81\0\0\x2a"
TAGS = {0: b"", 1: CUSTOMER, 2: SERVICE + CUSTOMER, 3: SERVICE + CUSTOMER * 2}


def eth(kind: int, body: bytes, n_tags: int = 0) -> bytes:
    return MACS + TAGS[n_tags] + struct.pack(">H", kind) + body


def ip4(proto: int, body: bytes, options: bytes = b"", fragment: int = 0, n_tags: int = 0) -> bytes:
    size = 20 + len(options)
    first = 0x40 | size // 4
    head = struct.pack(">BBHHHBBH", first, 3, size + len(body), 9, fragment, 64, proto, 0)
    return eth(0x0800, head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + body, n_tags)


def ip6(nh: int, body: bytes, src: bytes = FD1, dst: bytes = FD2, n_tags: int = 0) -> bytes:
    head = struct.pack(">IHBB", 6 << 28 | 3 << 20, len(body), nh, 64)
    return eth(0x86DD, head + src + dst + body, n_tags)


def extension(nh: int, size: int, units: int) -> bytes:
    """An extension header of `size` bytes whose length field says `units`."""
    return bytes([nh, units]) + bytes(size - 2)


def fragment6(nh: int, offset: int, more: int) -> bytes:
    return struct.pack(">BBHI", nh, 0, offset * 8 | more, 77)


EXTENSIONS = {0: 1, 43: 2, 60: 0, 135: 1, 139: 4, 140: 0}  # protocol: its length in 8 bytes less 1


def mpls(n: int, ip: bytes) -> bytes:
    labels = b"".join(
        struct.pack(">I", (16 + k) << 12 | (k == n) << 8 | 64) for k in range(1, n + 1)
    )
    return eth(0x8847, labels + ip)


def pppoe(protocol: int, body: bytes, n_tags: int = 0) -> bytes:
    head = struct.pack(">BBHHH", 0x11, 0, 7, len(body) + 2, protocol)
    return eth(0x8864, head + body, n_tags)


def snap(kind: int, body: bytes, n_tags: int = 0) -> bytes:
    llc = b"\xaa\xaa\x03\0\0\0" + struct.pack(">H", kind) + body
    return eth(len(llc), llc, n_tags)


L4 = {UDP: UDP_BYTES, TCP: TCP_BYTES, ICMP: ICMP_BYTES, ICMP6: ICMP6_BYTES, IGMP: IGMP_BYTES}
WHOLE = {
    **{f"ipv4 {proto} {n} tags": ip4(proto, body, n_tags=n)
       for (proto, body), n in itertools.product(L4.items(), TAGS)},
    **{f"ipv6 {proto} {n} tags": ip6(proto, body, n_tags=n)
       for (proto, body), n in itertools.product(L4.items(), TAGS)},
    **{f"ipv4 {n} bytes of options": ip4(UDP, UDP_BYTES, options=b"\1" * n)
       for n in range(4, 44, 4)},
    **{f"extension {kind}": ip6(kind, extension(UDP, units * 8 + 8, units) + UDP_BYTES)
       for kind, units in EXTENSIONS.items()},
    "all extensions": ip6(0, b"".join(
        extension(nh, EXTENSIONS[kind] * 8 + 8, EXTENSIONS[kind])
        for kind, nh in itertools.pairwise([*EXTENSIONS, TCP])) + TCP_BYTES),
    "authentication": ip6(51, extension(UDP, 24, 4) + UDP_BYTES),
    "atomic fragment": ip6(44, fragment6(UDP, 0, 0) + UDP_BYTES),
    "first fragment": ip6(44, fragment6(UDP, 0, 1) + UDP_BYTES),
    "later fragment": ip6(44, fragment6(UDP, 3, 1) + UDP_BYTES),
    "first fragment, options": ip6(44, fragment6(60, 0, 1) + extension(UDP, 8, 0) + UDP_BYTES),
    "ipv4 first fragment": ip4(UDP, UDP_BYTES, fragment=0x2000),
    "ipv4 later fragment": ip4(UDP, UDP_BYTES, fragment=0x2003),
    "ipv4 last fragment": ip4(TCP, TCP_BYTES, fragment=0x0003),
    "esp": ip6(50, b"0123456789"),
    "no next header": ip6(59, b"rest"),
    "unknown": eth(0x1234, bytes(28)),
    "mpls ipv4": mpls(1, ip4(UDP, UDP_BYTES)[14:]),
    "mpls ipv6": mpls(8, ip6(TCP, TCP_BYTES)[14:]),
}  # fmt: skip
# Those that have lengths besides IP's
LINKS = {
    "arp": eth(0x0806, ARP_BYTES),
    "802.3": eth(38, bytes(38)),
    "llc": eth(38, b"\x42\x42\x03" + bytes(35), n_tags=1),
    "snap ipv4": snap(0x0800, ip4(UDP, UDP_BYTES)[14:]),
    "snap ipv6": snap(0x86DD, ip6(IGMP, IGMP_BYTES)[14:], n_tags=1),
    "snap arp": snap(0x0806, ARP_BYTES),
    "snap tag": snap(0x8100, ip4(UDP, UDP_BYTES, n_tags=1)[14:]),
    "snap mpls": snap(0x8847, mpls(2, ip4(UDP, UDP_BYTES)[14:])[14:]),
    "mpls, no ip": mpls(2, b"\0" * 20),
    "nine labels": mpls(9, ip4(UDP, UDP_BYTES)[14:]),
    "pppoe ipv4": pppoe(0x21, ip4(TCP, TCP_BYTES)[14:]),
    "pppoe ipv6": pppoe(0x57, ip6(UDP, UDP_BYTES)[14:], n_tags=2),
    "pppoe lcp": pppoe(0xC021, bytes(8)),
    "pppoe discovery": eth(0x8863, b"\x11\x09\0\0\0\0"),
}
ALL = WHOLE | LINKS


def parse(batch: Batch) -> list[dict[str, object]]:
    """Return the packets' columns, as Headers leaves them."""
    Headers().process(batch)
    columns = {name: getattr(batch, name).tolist() for name in Headers.provides}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(len(batch))]
    for row in rows:
        row["flags"] = {name for name, bit in FLAGS.items() if row["flags"] & bit}  # type: ignore[operator]
    return rows


def parse_one(packet: bytes) -> dict[str, object]:
    return parse(GUARDED.load([packet]))[0]


GUARDED = GuardedBatch(200)
NOTHING = {
    **dict.fromkeys(Headers.provides, 0), "flags": set(), "vlan_tci": [0, 0], "src": [0] * 16,
    "dst": [0] * 16, **dict.fromkeys(("l3", "l4", "payload"), ABSENT),
}  # fmt: skip
# How far the parser came shows in these: they may have a value that the whole packet's are not.
PROGRESS = ("flags", "malformed", "ip_proto", "flow_hash", "eth_type", "n_vlans", "vlan_tci",
            "n_mpls")  # fmt: skip
# The columns that each flag vouches for; without it, they say nothing.
VOUCHED = {
    ("IPV4", "IPV6"): ("ip_version", "ip_proto", "ip_ttl", "ip_tos", "src", "dst", "l3",
                       "flow_hash"),
    ("TCP", "UDP"): ("l4_sport", "l4_dport"),
    ("TCP",): ("tcp_flags",),
    ("ICMP", "ICMP6"): ("icmp_type", "icmp_code"),
    ("IGMP",): ("igmp_type",),
    ("ARP",): ("arp_op",),
    ("VLAN",): ("n_vlans", "vlan_tci"),
    ("MPLS",): ("n_mpls", "mpls_label"),
    ("PPPOE",): ("pppoe_session",),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_packet_cut_at_any_length_says_what_the_whole_one_said_or_nothing(name: str) -> None:
    packet = ALL[name]
    whole = parse_one(packet)
    assert whole["malformed"] == 0
    cuts = parse(GUARDED.load([packet[:n] for n in range(len(packet))]))
    for n, row in enumerate(cuts):
        # Only where no IP was found may there be no length that a cut would contradict.
        assert row["malformed"] or (whole["ip_version"] == 0 and n >= 14), n
        assert ("MALFORMED" in row["flags"]) == bool(row["malformed"])  # type: ignore[operator]
        assert row["flags"] - {"MALFORMED"} <= whole["flags"], n  # type: ignore[operator]
        for column in Headers.provides:
            if column not in PROGRESS:
                assert row[column] in (whole[column], NOTHING[column]), (n, column)
        for some, columns in VOUCHED.items():
            if not row["flags"] & set(some):  # type: ignore[operator]
                assert [row[c] for c in columns] == [NOTHING[c] for c in columns], (n, some)
        if row["ip_version"]:
            assert row["eth_type"] == whole["eth_type"]


EXACT = {
    "arp": [(14, "ETH_SHORT"), (42, "ARP_SHORT")],
    "802.3": [(14, "ETH_SHORT"), (52, "LLC_LEN")],
    "llc": [(14, "ETH_SHORT"), (18, "VLAN_SHORT"), (56, "LLC_LEN")],
    "snap ipv4": [(14, "ETH_SHORT"), (60, "LLC_LEN")],
    "mpls, no ip": [(14, "ETH_SHORT"), (23, "MPLS_SHORT")],
    "mpls ipv4": [(14, "ETH_SHORT"), (19, "MPLS_SHORT"), (38, "IP4_SHORT"), (56, "IP4_LEN")],
    "mpls ipv6": [(14, "ETH_SHORT"), (47, "MPLS_SHORT"), (86, "IP6_SHORT"), (114, "IP6_LEN")],
    "nine labels": [(14, "ETH_SHORT"), (50, "MPLS_SHORT")],
    "pppoe ipv4": [(14, "ETH_SHORT"), (20, "PPPOE_SHORT"), (70, "PPPOE_LEN")],
    "pppoe lcp": [(14, "ETH_SHORT"), (20, "PPPOE_SHORT"), (30, "PPPOE_LEN")],
    "pppoe discovery": [(14, "ETH_SHORT")],
}


@pytest.mark.parametrize("name", EXACT)
def test_a_cut_between_ethernet_and_ip_has_its_exact_reason(name: str) -> None:
    packet = ALL[name]
    rows = parse(GUARDED.load([packet[:n] for n in range(len(packet) + 1)]))
    for n, row in enumerate(rows):
        reason = next((reason for end, reason in EXACT[name] if n < end), None)
        assert row["malformed"] == (MALFORMED[reason] if reason else 0), n


def reason_of_cut(whole: dict[str, object], n_tags: int, n: int) -> str:
    """Return why a packet that is cut to n bytes, its lengths as they were, is malformed."""
    l3 = 14 + 4 * min(n_tags, 2)
    if n < l3:
        return "ETH_SHORT" if n < 14 else "VLAN_SHORT"
    if whole["ip_version"] == 6:
        return "IP6_SHORT" if n < l3 + 40 else "IP6_LEN"
    if n < l3 + 20:
        return "IP4_SHORT"
    body = whole["payload"] if "LATER_FRAGMENT" in whole["flags"] else whole["l4"]  # type: ignore[operator]
    return "IP4_IHL" if n < body else "IP4_LEN"  # type: ignore[operator]


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("ipv")])
def test_a_cut_has_its_exact_reason_and_nothing_behind_ip(name: str) -> None:
    packet = WHOLE[name]
    whole = parse_one(packet)
    if whole["ip_version"] == 0:  # behind a third tag
        return
    cuts = parse(GUARDED.load([packet[:n] for n in range(len(packet))]))
    for n, row in enumerate(cuts):
        reason = reason_of_cut(whole, whole["n_vlans"], n)  # type: ignore[arg-type]
        assert row["malformed"] == MALFORMED[reason], n
        assert (row["l4"], row["payload"], row["payload_len"]) == (ABSENT, ABSENT, 0)


SHORTEST = {TCP: "TCP_SHORT", UDP: "UDP_SHORT", ICMP: "ICMP_SHORT", ICMP6: "ICMP6_SHORT",
            IGMP: "IGMP_SHORT"}  # fmt: skip


def reason_of_short(whole: dict[str, object], packet: bytes, n: int) -> str | None:
    """Return why a packet of n bytes whose IP length says so is malformed, if it is."""
    if "LATER_FRAGMENT" in whole["flags"]:  # type: ignore[operator]
        return None if n >= whole["payload"] else "IP6_EXT"  # type: ignore[operator]
    room, proto = n - whole["l4"], whole["ip_proto"]  # type: ignore[operator]
    if room < 0:
        return "IP6_EXT"
    if (whole["ip_version"], proto) in ((4, ICMP6), (6, ICMP), (6, IGMP)) or proto not in SHORTEST:
        return None
    if room < (20 if proto == TCP else 8):
        return SHORTEST[proto]  # type: ignore[index]
    if proto == TCP and room < packet[whole["l4"] + 12] // 16 * 4:  # type: ignore[operator]
        return "TCP_OFFSET"
    udp_is_whole = proto == UDP and "FRAGMENT" not in whole["flags"]  # type: ignore[operator]
    return "UDP_LEN" if udp_is_whole and n < len(packet) else None


@pytest.mark.parametrize("name", WHOLE)
def test_an_ip_packet_that_truly_ends_early_has_its_exact_reason(name: str) -> None:
    """Cut behind the IP header, with IP's length put right: what is behind must notice."""
    packet = WHOLE[name]
    whole = parse_one(packet)
    if whole["ip_version"] == 0:
        return
    l3: int = whole["l3"]  # type: ignore[assignment]
    at, size, less = 2, (packet[l3] & 15) * 4, 0
    if whole["ip_version"] == 6:
        at, size, less = 4, 40, 40
    first = l3 + size
    packets = []
    for n in range(first, len(packet) + 1):
        length = struct.pack(">H", n - l3 - less)
        packets.append(packet[: l3 + at] + length + packet[l3 + at + 2 : n])
    rows = parse(GUARDED.load(packets))
    for n, row in enumerate(rows, first):
        reason = reason_of_short(whole, packet, n)
        assert row["malformed"] == (MALFORMED[reason] if reason else 0), (n, reason)
        if reason:
            assert (row["l4"], row["payload"], row["payload_len"]) == (ABSENT, ABSENT, 0)
        else:
            assert (row["l4"], row["payload"]) == (whole["l4"], whole["payload"])
            assert row["payload_len"] == n - whole["payload"]  # type: ignore[operator]


@pytest.mark.parametrize("name", ALL)
def test_parsing_again_gives_the_same_and_leaves_nothing_of_the_batch_before(name: str) -> None:
    packet = ALL[name]
    first = parse_one(packet)
    for other in ALL.values():
        parse_one(other)
        assert parse_one(packet) == first
    assert parse_one(b"") == NOTHING | {"flags": {"MALFORMED"}, "malformed": MALFORMED["ETH_SHORT"]}


def test_random_damage_is_never_read_too_far() -> None:
    """Bytes of every crafted packet replaced at random, then cut: payload lies in the packet."""
    rng = Random(1)
    reasons = set()
    for _ in range(400):
        packets = []
        for whole in ALL.values():
            packet = bytearray(whole)
            for _ in range(rng.randrange(1, 5)):
                packet[rng.randrange(12, min(len(packet), 70))] = rng.randrange(256)
            cut = rng.randrange(len(packet) + 1) if rng.random() < 0.5 else len(packet)
            packets.append(bytes(packet[:cut]))
        batch = GUARDED.load(packets)
        Headers().process(batch)
        there = batch.payload != ABSENT
        assert (batch.payload_len >= 0).all()
        assert (batch.payload + batch.payload_len <= batch.len)[there].all()
        assert (batch.payload_len[~there] == 0).all()
        assert (there <= (batch.malformed == 0)).all()
        reasons.update(np.unique(batch.malformed).tolist())
    assert reasons == {0, *MALFORMED.values()}


def test_a_read_too_far_would_be_seen() -> None:
    """Tell the batch that a packet is a byte longer than it is: the process must die of it."""
    code = (
        "from guard_page import GuardedBatch\n"
        "batch = GuardedBatch(1).load([bytes(60)])\n"
        "address = int(batch.addr[0])\n"
        "assert batch.u8(59).tolist() == [0]\n"
        "batch.place([address], [61])\n"
        "batch.u8(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path),
             "ASAN_OPTIONS": "handle_segv=0:detect_leaks=0"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGSEGV, done.stderr


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_each_extension_header_is_stepped_over(kind: int) -> None:
    row = parse_one(WHOLE[f"extension {kind}"])
    at = 54 + EXTENSIONS[kind] * 8 + 8
    assert (row["l4"], row["payload"], row["payload_len"]) == (at, at + 8, 10)
    assert (row["ip_proto"], row["l4_sport"], row["l4_dport"]) == (UDP, 5, 6)
    assert row["flags"] == {"IPV6", "IP_OPTIONS", "UDP"}


def test_all_extension_headers_in_a_row() -> None:
    row = parse_one(WHOLE["all extensions"])
    at = 54 + sum(units * 8 + 8 for units in EXTENSIONS.values())
    assert (row["l4"], row["payload"], row["tcp_flags"]) == (at, at + 24, 0x12)


def test_ipv4_and_the_ipv6_that_maps_it_have_the_same_address_columns() -> None:
    a, b = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    four = parse_one(ip4(UDP, UDP_BYTES))
    six = parse_one(ip6(UDP, UDP_BYTES, src=MAPPED + a, dst=MAPPED + b))
    for row in (four, six):
        assert (bytes(row["src"]), bytes(row["dst"])) == (MAPPED + a, MAPPED + b)  # type: ignore[arg-type]
    assert (four["ip_version"], six["ip_version"]) == (4, 6)
    assert four["flow_hash"] == six["flow_hash"]


FRAGMENTS = {
    "ipv4": [ip4(UDP, UDP_BYTES, fragment=f) for f in (0x2000, 0x2003, 0x0006)],
    "ipv4, other direction's later": [ip4(UDP, UDP_BYTES, fragment=f) for f in (0x2003, 0x2000)],
    "ipv6": [ip6(44, fragment6(UDP, o, m) + UDP_BYTES) for o, m in ((0, 1), (3, 1), (6, 0))],
    # RFC 8200, 4.5: the headers behind the fragment header are in the first fragment only
    "ipv6, options behind the fragment header": [
        ip6(44, fragment6(60, 0, 1) + extension(UDP, 8, 0) + UDP_BYTES),
        ip6(44, fragment6(60, 4, 0) + UDP_BYTES),
    ],
    "ipv6, a malformed first": [
        ip6(44, fragment6(UDP, 0, 1) + UDP_BYTES[:7]), ip6(44, fragment6(UDP, 1, 0) + UDP_BYTES),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FRAGMENTS)
def test_all_fragments_of_a_datagram_share_a_flow_hash(name: str) -> None:
    rows = [parse_one(packet) for packet in FRAGMENTS[name]]
    assert all("FRAGMENT" in row["flags"] for row in rows)  # type: ignore[operator]
    assert len({row["flow_hash"] for row in rows}) == 1


@pytest.mark.parametrize("name", [name for name in WHOLE if "later" in name or "last" in name])
def test_a_later_fragment_has_no_field_of_a_transport_header(name: str) -> None:
    row = parse_one(WHOLE[name])
    assert row["l4"] == ABSENT
    fields = ("l4_sport", "l4_dport", "tcp_flags", "icmp_type", "icmp_code", "igmp_type")
    assert [row[field] for field in fields] == [0] * 6
    assert not row["flags"] & {"TCP", "UDP", "ICMP", "ICMP6", "IGMP"}  # type: ignore[operator]


def test_every_column_of_headers_is_looked_at() -> None:
    assert set(NOTHING) == {c.name for c in COLUMNS.values() if c.provider == "Headers"}
