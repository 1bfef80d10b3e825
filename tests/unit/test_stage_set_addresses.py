"""SetAddresses: what is given is set, checksums and columns follow, all else stays."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_packets import (
    KINDS,
    MALFORMED,
    NEW,
    PAYLOAD,
    WAS,
    ether,
    fragments4,
    fragments6,
    ip4,
    ip6,
    partial,
    with_filler,
)
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from test_checksum import as_a_nic
from test_multi_buffer import Queue, cut, in_frames

from guard_page import GuardedBatch
from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.batch import Batch
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, SetAddresses, SwapAddresses
from xdpipe.verdict import DROP, TX

ARGUMENTS = ("eth_src", "eth_dst", "src", "dst", "sport", "dport")

NO_IP, NO_PORTS = {"ARP"}, {
    "ARP", "IPv4 ICMP", "IPv4, another protocol", "IPv4 later fragment", "IPv6 ICMPv6",
    "IPv6 later fragment",
}  # fmt: skip


def stage_for(names: tuple[str, ...]) -> SetAddresses:
    """Return the stage that sets what has these names to NEW, addresses of both kinds."""
    return SetAddresses(
        **{
            name: (NEW[f"{name}4"], NEW[f"{name}6"]) if name in ("src", "dst") else NEW[name]
            for name in names
        }
    )


def values_after(names: tuple[str, ...]) -> dict[str, Any]:
    changed = {key for key in WAS if key.rstrip("46") in names}
    return {key: NEW[key] if key in changed else value for key, value in WAS.items()}


SUBSETS = [
    subset for n in range(1, 7) for subset in itertools.combinations(ARGUMENTS, n)
]  # fmt: skip


@pytest.mark.parametrize("names", SUBSETS, ids=" ".join)
def test_it_is_as_if_the_packet_had_been_made_so(names: tuple[str, ...]) -> None:
    batch = parsed(raw(make(WAS)) for make in KINDS.values())
    stage = stage_for(names)
    stage.process(batch)
    after = values_after(names)
    for kind, packet in zip(KINDS, bytes_of(batch), strict=True):
        assert packet == raw(KINDS[kind](after)), kind
    check_columns(batch)
    n_set = sum(
        1
        for kind in KINDS
        if not (kind in NO_IP and {"src", "dst"} & set(names))
        and not (kind in NO_PORTS and {"sport", "dport"} & set(names))
    )
    n_left = sum(
        1
        for kind in KINDS
        if not {"eth_src", "eth_dst"} & set(names)
        and (kind in NO_IP or not {"src", "dst"} & set(names))
        and kind in NO_PORTS
    )
    assert counts(stage) == {
        "set": n_set, "partly": len(KINDS) - n_set - n_left, "left_alone": n_left,
    }  # fmt: skip


def test_an_address_is_for_packets_of_its_version() -> None:
    batch = parsed([raw(KINDS["IPv4 UDP"](WAS)), raw(KINDS["IPv6 UDP"](WAS))])
    stage = SetAddresses(src=NEW["src4"])
    stage.process(batch)
    assert bytes(batch.packet(0)) == raw(KINDS["IPv4 UDP"](WAS | {"src4": NEW["src4"]}))
    assert bytes(batch.packet(1)) == raw(KINDS["IPv6 UDP"](WAS))
    assert counts(stage) == {"set": 1, "partly": 0, "left_alone": 1}
    stage = SetAddresses(src=NEW["src6"], dport=9)
    stage.process(batch)
    assert counts(stage) == {"set": 1, "partly": 1, "left_alone": 0}
    assert bytes(batch.packet(1)) == raw(KINDS["IPv6 UDP"](WAS | {"src6": NEW["src6"], "dport": 9}))
    check_columns(batch)


@pytest.mark.parametrize(
    ("given", "was", "becomes"),
    [
        ("10.20.0.0/16", "192.0.2.1", "10.20.2.1"),
        ("10.20.30.128/25", "192.0.2.1", "10.20.30.129"),
        ("10.20.30.40/32", "192.0.2.1", "10.20.30.40"),
        ("0.0.0.0/0", "192.0.2.1", "192.0.2.1"),
        ("fd00:7::/32", "2001:db8:0:5::9", "fd00:7:0:5::9"),
        ("fd00:7:0:0:8000::/65", "2001:db8:0:5:7fff::9", "fd00:7::ffff:0:0:9"),
    ],
)
def test_of_a_network_the_hosts_part_stays(given: str, was: str, becomes: str) -> None:
    key = "src6" if ":" in was else "src4"
    make = KINDS["IPv6 UDP" if ":" in was else "IPv4 UDP"]
    batch = parsed([raw(make(WAS | {key: was}))])
    SetAddresses(src=given).process(batch)
    assert bytes(batch.packet(0)) == raw(make(WAS | {key: becomes}))
    check_columns(batch)


def test_all_fragments_of_a_datagram_go_together() -> None:
    for pieces in (fragments4, fragments6):
        batch = parsed(map(raw, pieces(WAS)))
        assert len(batch) > 1
        stage_for(("src", "dst")).process(batch)
        assert bytes_of(batch) == [raw(packet) for packet in pieces(values_after(("src", "dst")))]
        assert len(set(batch.flow_hash.tolist())) == 1


def test_the_packet_within_an_icmp_error_stays_as_it_is() -> None:
    def error(v: dict[str, Any]) -> Packet:
        inner = IPerror(src=WAS["dst4"], dst=WAS["src4"]) / UDPerror(sport=53, dport=1000) / b"12"
        return ether(v) / ip4(v) / ICMP(type=3, code=3) / inner

    batch = parsed([raw(error(WAS))])
    stage_for(ARGUMENTS).process(batch)
    assert bytes(batch.packet(0)) == raw(error(values_after(ARGUMENTS)))


def test_only_undecided_packets_with_the_mark() -> None:
    packets = [raw(KINDS["IPv4 UDP"](WAS))] * 4
    batch = parsed(packets)
    batch.drop(np.array([True, False, False, False]))
    batch.mark[:] = [7, 7, 0, 8]
    stage = SetAddresses(src=NEW["src4"], only=7)
    stage.process(batch)
    changed = [packet != packets[0] for packet in bytes_of(batch)]
    assert changed == [False, True, False, False]
    stage = SetAddresses(dst=NEW["dst4"], only=0)
    stage.process(batch)
    assert [packet != packets[0] for packet in bytes_of(batch)] == [False, True, True, False]
    assert sum(counts(stage).values()) == 1
    check_columns(batch)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_packets_are_left_alone(kind: str) -> None:
    batch = GuardedBatch(1).load([MALFORMED[kind]])
    Headers().process(batch)
    stage = stage_for(ARGUMENTS)
    stage.process(batch)
    assert bytes(batch.packet(0)) == MALFORMED[kind]
    assert counts(stage) == {"set": 0, "partly": 0, "left_alone": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_or_written_beyond_a_packet(kind: str) -> None:
    """Cut anywhere: at a page that nobody may touch, or where another frame begins."""
    whole = raw(KINDS[kind](WAS))
    guarded = GuardedBatch(1)
    for n in range(len(whole) + 1):
        batch = guarded.load([whole[:n]])
        Headers().process(batch)
        stage_for(ARGUMENTS).process(batch)
    for at in range(1, min(len(whole), 140)):
        several = in_frames([cut(whole, at)])
        start, queue = int(several.addr[0]), several.queue  # type: ignore[attr-defined]
        queue.memory[start + at : start + at + 200] = b"\xa5" * 200
        before = bytes(queue.memory[start - 200 : start])
        Headers().process(several)
        stage_for(ARGUMENTS).process(several)
        assert queue.memory[start + at : start + at + 200] == b"\xa5" * 200
        assert queue.memory[start - 200 : start] == before


def with_nonsense(rng: random.Random) -> bytes:
    """Return a packet whose options or extension headers are drawn at random."""
    types = [0, 1, 131, 137, 201, rng.randrange(256)]
    nonsense = bytes(rng.choice([*types, rng.randrange(48)]) for _ in range(40))
    if rng.random() < 0.5:
        size = 4 * rng.randrange(1, 11)
        head = raw(ip4(WAS, ihl=5 + size // 4, len=20 + size + 8, proto=17, chksum=0))[:20]
        return raw(ether(WAS))[:12] + b"\x08\0" + head + nonsense[:size] + bytes(5) + b"\x08\1\1"
    order = [rng.choice([0, 43, 44, 51, 60, 135]) for _ in range(rng.randrange(1, 6))]
    headers = b""
    for following in [*order[1:], 17]:
        headers += bytes([following, 0]) + bytes(rng.choice(types) for _ in range(6))
    segment = headers + bytes(5) + b"\x08\1\1"
    head = raw(ip6(WAS, nh=order[0], plen=len(segment)))[:40]
    return raw(ether(WAS))[:12] + b"\x86\xdd" + head + segment


def test_nonsense_among_options_leads_nowhere() -> None:
    rng = random.Random(5)
    guarded = GuardedBatch(64)
    n_fine = 0
    for _ in range(30):
        batch = guarded.load([with_nonsense(rng) for _ in range(64)])
        Headers().process(batch)
        fine = batch.has("UDP", "IP_OPTIONS")
        stage_for(("src", "dst")).process(batch)
        SwapAddresses().process(batch)
        check_columns(batch, fine)
        n_fine += int(fine.sum())
    assert n_fine > 900


def test_headers_in_the_first_of_several_frames_are_rewritten() -> None:
    for kind in ("IPv4 UDP", "IPv6 TCP"):
        whole = raw(KINDS[kind](WAS))
        batch = in_frames([cut(whole, len(whole) - 20)])
        Headers().process(batch)
        stage_for(ARGUMENTS).process(batch)
        assert bytes(batch.packet(0)) == raw(KINDS[kind](values_after(ARGUMENTS)))


def test_the_example_of_rfc_1624() -> None:
    """Section 4: by RFC 1141 it would be 0xffff."""
    v = WAS | {"dst4": "198.51.85.85"}
    checksum = int.from_bytes(raw(ip4(v, id=0))[10:12], "big")
    packet = ether(v) / ip4(v, id=(checksum - 0xDD2F) % 0xFFFF)
    assert raw(packet)[24:26] == b"\xdd\x2f"
    batch = parsed([raw(packet)])
    assert batch.u16(batch.l3 + 18).tolist() == [0x5555]
    SetAddresses(dst="198.51.50.133").process(batch)
    assert batch.u16(batch.l3 + 18).tolist() == [0x3285]
    assert batch.u16(batch.l3 + 10).tolist() == [0x0000]


WORDS = st.sampled_from([0, 0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0xFFFF]) | st.integers(0, 0xFFFF)
IPV4 = st.tuples(WORDS, WORDS).map(lambda w: f"{w[0] >> 8}.{w[0] & 255}.{w[1] >> 8}.{w[1] & 255}")
IPV6 = st.lists(WORDS, min_size=8, max_size=8).map(lambda ws: ":".join(f"{w:x}" for w in ws))


@st.composite
def changes(draw: st.DrawFn) -> tuple[Packet, Packet, SetAddresses]:
    """Draw a packet, the stage, and the packet after it; checksums near the two zeros."""
    version = draw(st.sampled_from([4, 6]))
    addresses = IPV4 if version == 4 else IPV6
    layer = draw(st.sampled_from([TCP, UDP]))
    was = {"src": draw(addresses), "dst": draw(addresses),
           "sport": draw(WORDS), "dport": draw(WORDS)}  # fmt: skip
    new = {"src": draw(addresses), "dst": draw(addresses),
           "sport": draw(WORDS), "dport": draw(WORDS)}  # fmt: skip
    names = draw(st.sets(st.sampled_from(sorted(new)), min_size=1))
    after = {name: new[name] if name in names else was[name] for name in was}
    identity, target = draw(WORDS), draw(WORDS)

    def make(v: dict[str, Any]) -> Packet:
        ip = IP(src=v["src"], dst=v["dst"], id=identity) if version == 4 else IPv6(
            src=v["src"], dst=v["dst"])  # fmt: skip
        return ether(WAS) / ip / layer(sport=v["sport"], dport=v["dport"]) / b"\0\0\0\0"

    before = with_filler(make(was), layer, target) if draw(st.booleans()) else make(was)
    changed = make(after)
    changed[layer].payload = Raw(raw(before)[-4:])
    if draw(st.booleans()):  # the filler for the packet as it is to be
        changed = with_filler(changed, layer, target)
        before = make(was)
        before[layer].payload = Raw(raw(changed)[-4:])
    return before, changed, SetAddresses(**{name: new[name] for name in names})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes())
def test_checksums_are_what_is_computed_anew(drawn: tuple[Packet, Packet, SetAddresses]) -> None:
    before, after, stage = drawn
    batch = parsed([raw(before)])
    stage.process(batch)
    assert bytes(batch.packet(0)) == raw(after)
    check_columns(batch)


@pytest.mark.parametrize("target", [0, 1, 0xFFFE, 0xFFFF])
@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_checksum_is_never_0_unless_there_was_none(version: int, target: int) -> None:
    kind = f"IPv{version} UDP"
    after = values_after(("src", "dst", "sport"))
    whole = KINDS[kind](after)
    whole[UDP].payload = Raw(PAYLOAD[:-1])
    packet = with_filler(whole, UDP, target)
    before = KINDS[kind](WAS)
    before[UDP].payload = Raw(raw(packet)[-len(PAYLOAD) + 1 :])
    batch = parsed([raw(before)])
    stage_for(("src", "dst", "sport")).process(batch)
    assert bytes(batch.packet(0)) == raw(packet)
    assert batch.u16(batch.l4 + 6).tolist() == [target or 0xFFFF]


@pytest.mark.parametrize("kind", ["IPv4 TCP", "IPv4 UDP", "IPv6 UDP", "IPv6 ICMPv6", "VLAN"])
def test_what_was_wrong_stays_wrong_by_as_much(kind: str) -> None:
    rng = random.Random(kind)
    at = {"IPv4 TCP": 16, "IPv6 ICMPv6": 2}.get(kind, 6)
    right, after = raw(KINDS[kind](WAS)), raw(KINDS[kind](values_after(ARGUMENTS)))
    batch = parsed([right] * 64)
    fields = [(batch.l4, at)] + ([(batch.l3, 10)] if batch.ip_version[0] == 4 else [])
    wrong = {}
    for column, k in fields:
        wrong[k] = np.array([rng.randrange(1, 0x10000) for _ in range(64)], np.uint16)
        batch.put_u16(column + k, wrong[k])
    stage_for(ARGUMENTS).process(batch)
    for column, k in fields:
        place = int(column[0]) + k
        first, last = (int.from_bytes(data[place : place + 2], "big") for data in (right, after))
        got = batch.u16(column + k).astype(np.int64)
        assert ((got - last - (wrong[k].astype(np.int64) - first)) % 0xFFFF == 0).all()


PARTIAL = ["IPv4 TCP", "IPv4 UDP", "IPv6 TCP", "IPv6 UDP", "IPv4 options", "VLAN"]


@pytest.mark.parametrize("names", SUBSETS[::5], ids=" ".join)
def test_a_checksum_that_the_link_was_to_fill_in_stays_the_sum_of_the_pseudo_header(
    names: tuple[str, ...],
) -> None:
    batch = parsed((partial(KINDS[kind](WAS)) for kind in PARTIAL), partial=True)
    assert batch.checksum_due.all()
    stage_for(names).process(batch)
    after = values_after(names)
    assert bytes_of(batch) == [partial(KINDS[kind](after)) for kind in PARTIAL]
    lib.xp_fill_checksums(batch.c)
    assert bytes_of(batch) == [raw(KINDS[kind](after)) for kind in PARTIAL]


@pytest.mark.parametrize("offload", [0, 1])
def test_a_checksum_that_is_due_is_right_as_the_packet_leaves(offload: int) -> None:
    queue = Queue()
    queue.worker.default_verdict = TX
    queue.port.tx_checksum = offload
    lib.xp_batch_may_be_partial(queue.batch.c)
    for kind in PARTIAL:
        queue.arrives([partial(KINDS[kind](WAS))])
    assert lib.xp_receive(queue.worker) == len(PARTIAL)
    Headers().process(queue.batch)
    stage_for(ARGUMENTS).process(queue.batch)
    lib.xp_dispatch(queue.worker)
    after = [raw(KINDS[kind](values_after(ARGUMENTS))) for kind in PARTIAL]
    if not offload:
        assert queue.sent() == after
        return
    for packet in after:
        desc = queue.tx.kernel_takes()
        address, length = int(desc["addr"]), int(desc["len"])  # type: ignore[index]
        assert as_a_nic(queue.memory, address, length) == packet


def test_several_batches_and_two_of_a_kind() -> None:
    first, second = SetAddresses(src="10.0.0.1", only=1), SetAddresses(src="10.0.0.2", only=2)
    for _ in range(3):
        batch = parsed([raw(KINDS["IPv4 TCP"](WAS))] * 3)
        batch.mark[:] = [1, 2, 3]
        first.process(batch)
        second.process(batch)
        assert [bytes(row[12:]) for row in batch.src] == [
            b"\x0a\0\0\x01", b"\x0a\0\0\x02", b"\xc0\0\x02\x01",
        ]  # fmt: skip
        check_columns(batch)
    assert counts(first) == counts(second) == {"set": 3, "partly": 0, "left_alone": 0}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "SetAddresses: nothing to set"),
        ({"only": 3}, "SetAddresses: nothing to set"),
        ({"eth_src": "02:00:00:00:00"}, "eth_src='02:00:00:00:00': write a MAC address"),
        ({"eth_src": "02-00-00-00-00-01"}, "write a MAC address"),
        ({"eth_dst": bytes(5)}, "or 6 bytes"),
        ({"src": "192.0.2.256"}, "src='192.0.2.256': an IPv4 or IPv6 address, or a network"),
        ({"src": "192.0.2.1/24"}, "has host bits set"),
        ({"src": 7}, "src=7: an IPv4 or IPv6 address"),
        ({"dst": ()}, "dst=()"),
        ({"dst": ("10.0.0.1", "10.0.0.2")}, "two of one kind"),
        ({"sport": 65536}, "sport=65536: a port, 0 to 65535"),
        ({"sport": True}, "sport=True"),
        ({"dport": "53"}, "dport='53': a port"),
        ({"src": "10.0.0.1", "only": -1}, "only=-1: a mark is a number from 0"),
        ({"src": "10.0.0.1", "only": 2**32}, "only=4294967296"),
    ],
)
def test_what_cannot_be_set_is_one_clear_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(XdpipeError) as raised:
        SetAddresses(**given)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_addresses_may_be_objects_and_macs_bytes() -> None:
    from ipaddress import IPv4Address, IPv6Address, IPv6Network

    batch = parsed([raw(KINDS["IPv4 UDP"](WAS)), raw(KINDS["IPv6 UDP"](WAS))])
    SetAddresses(
        eth_src=b"\x02\0\0\0\x0a\x0b", src=(IPv6Address(NEW["src6"]), IPv4Address(NEW["src4"])),
        dst=IPv6Network("fd00::/16"),
    ).process(batch)  # fmt: skip
    after = values_after(("eth_src", "src"))
    assert bytes(batch.packet(0)) == raw(KINDS["IPv4 UDP"](after))
    assert bytes(batch.packet(1)) == raw(KINDS["IPv6 UDP"](after | {"dst6": "fd00:db8:ffff::2"}))


def test_a_dropped_packet_is_not_looked_at() -> None:
    batch = Batch(bytearray(1 << 12), 4)
    batch.load([b"", b"x"])
    Headers().process(batch)
    batch.verdict[:] = DROP
    stage = stage_for(ARGUMENTS)
    stage.process(batch)
    assert sum(counts(stage).values()) == 0
