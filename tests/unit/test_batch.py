"""What stages do with a batch: bounds-checked loads and stores, decisions, checksums."""

import random

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from xdpipe import stages
from xdpipe.batch import ABSENT, COLUMNS, FLAGS, MALFORMED, Batch
from xdpipe.stages import Headers, SwapAddresses
from xdpipe.verdict import DROP, TX

# With both addresses: scapy would ask the network for a missing one.
ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
SIZES = (14, 15, 20, 60, 61)


@pytest.fixture
def batch() -> Batch:
    """Return five packets of different sizes; byte k of packet i is i * 16 + k, modulo 256."""
    batch = Batch(bytearray(4096), 8)
    batch.load(bytes((i * 16 + k) % 256 for k in range(size)) for i, size in enumerate(SIZES))
    return batch


def expected(i: int, offset: int, width: int, missing: int = 0) -> int:
    if offset < 0 or offset + width > SIZES[i]:
        return missing
    return int.from_bytes(bytes((i * 16 + offset + k) % 256 for k in range(width)), "big")


OFFSETS = [0, 1, 12, 13, 14, 19, 52, 53, 56, 57, 58, 59, 60, 61, -1, -8, ABSENT, ABSENT + 4,
           2**31 - 1, -(2**31), 2**32, 2**40, 2**63 - 1]  # fmt: skip


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_load_gives_what_lies_there_or_missing(batch: Batch, width: int, offset: int) -> None:
    load = {1: batch.u8, 2: batch.u16, 4: batch.u32, 8: batch.u64}[width]
    want = [expected(i, offset, width) for i in range(5)]
    assert load(offset).tolist() == want
    assert load(np.full(5, offset, np.int64)).tolist() == want
    assert load(offset, missing=7).tolist() == [expected(i, offset, width, 7) for i in range(5)]
    assert load(offset).dtype == np.dtype(f"u{width}")


def test_each_packet_can_have_its_own_offset(batch: Batch) -> None:
    offsets = np.array([0, 14, 3, 58, ABSENT], np.int32)
    assert batch.u16(offsets).tolist() == [expected(i, int(o), 2) for i, o in enumerate(offsets)]
    assert batch.u16(offsets + 1).tolist() == [
        expected(i, int(o) + 1, 2) for i, o in enumerate(offsets)
    ]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("width", [1, 5, 64])
def test_bytes_at_is_zero_beyond_the_packet(batch: Batch, offset: int, width: int) -> None:
    rows = batch.bytes_at(offset, width)
    assert rows.shape == (5, width)
    for i, row in enumerate(rows):
        inside = 0 <= offset < SIZES[i]
        want = [expected(i, offset + k, 1) if inside else 0 for k in range(width)]
        assert row.tolist() == want


@pytest.mark.parametrize("offset", [np.zeros(4), np.zeros((5, 1)), np.zeros(6)])
def test_an_offset_of_another_shape_is_refused(batch: Batch, offset: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted"):
        batch.u16(offset)


@pytest.mark.parametrize(
    "mask", [np.ones(4, bool), np.ones(5, np.uint8), np.ones((5, 2), bool), True]
)
def test_a_mask_of_another_shape_or_type_is_refused(batch: Batch, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted"):
        batch.drop(mask)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_store_writes_there_and_nowhere_else(batch: Batch, width: int, offset: int) -> None:
    put = {1: batch.put_u8, 2: batch.put_u16, 4: batch.put_u32}[width]
    before = bytes(batch.memory)
    where = np.array([True, False, True, True, True])
    value = 0xA1B2C3D4 >> (32 - 8 * width)
    n = put(offset, value, where)
    fits = [
        bool(w) and offset >= 0 and offset + width <= s for w, s in zip(where, SIZES, strict=True)
    ]
    assert n == sum(fits)
    after = bytearray(before)
    for i in np.flatnonzero(fits):
        at = int(batch.addr[i]) + offset
        after[at : at + width] = value.to_bytes(width, "big")
    assert bytes(batch.memory) == bytes(after)


def test_a_store_takes_a_value_per_packet(batch: Batch) -> None:
    assert batch.put_u16(0, np.arange(5) + 500) == 5
    assert batch.u16(0).tolist() == [500, 501, 502, 503, 504]
    with pytest.raises(ValueError, match="wanted"):
        batch.put_u16(0, np.arange(4))


def test_decisions_touch_only_undecided_packets(batch: Batch) -> None:
    assert batch.drop(np.array([True, False, True, False, False])) == 2
    assert batch.tx(np.array([True, True, False, False, False])) == 1
    assert batch.decide(np.ones(5, bool), DROP) == 2
    assert batch.verdict.tolist() == [DROP, TX, DROP, DROP, DROP]
    assert not batch.undecided.any()


def test_columns_other_than_verdict_and_mark_are_read_only(batch: Batch) -> None:
    for name, column in COLUMNS.items():
        writable = name in ("verdict", "mark")
        assert getattr(batch, name).flags.writeable == writable == column.writable


def test_a_mark_lasts_as_long_as_its_packet(batch: Batch) -> None:
    batch.mark[1:3] = 7
    assert batch.mark.tolist() == [0, 7, 7, 0, 0]
    batch.load([b"x"] * 4)
    assert batch.mark.tolist() == [0, 0, 0, 0]


def test_only_a_column_of_texts_has_texts(batch: Batch) -> None:
    with pytest.raises(ValueError, match="len is no column of texts"):
        batch.text("len")
    with pytest.raises(AttributeError, match="no column 'host'"):
        batch.text("host")


def test_an_unknown_column_is_told_with_those_that_there_are(batch: Batch) -> None:
    with pytest.raises(AttributeError, match=r"no column 'sport'; it has addr, time_ns, len"):
        _ = batch.sport


def test_every_column_flag_and_reason_is_described() -> None:
    for column in COLUMNS.values():
        assert column.doc
        assert column.provider in ("receive", "NIC", *stages.__all__)
    assert sorted(FLAGS.values()) == [1 << i for i in range(len(FLAGS))]
    assert sorted(MALFORMED.values()) == list(range(1, len(MALFORMED) + 1))


LENGTHS = {"len", "head_len", "payload_len", "tcp_data_len", "dns_len"}


def test_a_column_of_int32_is_an_offset_or_known_to_be_none() -> None:
    """Offsets move when a VLAN tag comes or goes: one that is not told as such would not."""
    for column in COLUMNS.values():
        signed = column.dtype == np.dtype(np.int32)
        assert column.offset == (signed and column.name not in LENGTHS), column.name


def test_a_batch_refuses_more_than_it_holds() -> None:
    batch = Batch(bytearray(128), 2)
    with pytest.raises(ValueError, match="holds 2 packets"):
        batch.load([b"x"] * 3)
    with pytest.raises(ValueError, match="128 bytes"):
        batch.load([bytes(129)])
    batch.load([])
    assert len(batch) == 0
    assert batch.u16(0).tolist() == []


def rechecked(packet: bytes) -> bytes:
    """Return the packet with all its checksums computed anew by scapy."""
    parsed: Packet = Ether(packet)
    for layer in (IP, TCP, UDP, ICMP, ICMPv6EchoRequest):
        if layer in parsed:
            parsed[layer].delfieldval("cksum" if layer is ICMPv6EchoRequest else "chksum")
    return bytes(parsed)


L4 = {
    "tcp": lambda: TCP(sport=1, dport=2, options=[("MSS", 1460)]),
    "udp": lambda: UDP(sport=1, dport=2),
    "icmp": lambda: ICMP(id=7, seq=9),
    "icmp6": lambda: ICMPv6EchoRequest(id=7, seq=9),
}


KINDS = [("tcp", 4), ("udp", 4), ("icmp", 4), ("tcp", 6), ("udp", 6), ("icmp6", 6)]


@pytest.mark.parametrize(("kind", "ip"), KINDS)
@pytest.mark.parametrize("size", [20, 21])
def test_a_store_keeps_the_checksum_right(kind: str, ip: int, size: int) -> None:
    rng = random.Random(size)
    network = IP(src="10.0.0.1", dst="10.0.0.2") if ip == 4 else IPv6(src="fd00::1", dst="fd00::2")
    payload = rng.randbytes(size)
    packets = [bytes(ETHER / network / L4[kind]() / Raw(payload)) for _ in range(40)]
    batch = Batch(bytearray(1 << 14), 64)
    batch.load(packets)
    Headers().process(batch)
    for put, width in ((batch.put_u8, 1), (batch.put_u16, 2), (batch.put_u32, 4)):
        offsets = batch.payload + np.array([rng.randrange(size) for _ in packets], np.int32)
        values = np.array([rng.randrange(256**width) for _ in packets], np.uint64)
        fits = offsets + width <= batch.len
        assert put(offsets, values, fix_checksum=True) == fits.sum()
        for i in range(len(packets)):
            assert bytes(batch.packet(i)) == rechecked(bytes(batch.packet(i))), (i, width)


def test_a_udp_checksum_of_zero_stays_zero() -> None:
    batch = Batch(bytearray(4096), 4)
    batch.load([bytes(ETHER / IP() / UDP(sport=1, dport=2, chksum=0) / b"payload")])
    Headers().process(batch)
    batch.put_u16(batch.payload, 0xBEEF, fix_checksum=True)
    assert batch.u16(batch.l4 + 6).tolist() == [0]


@pytest.mark.parametrize(("kind", "ip"), KINDS)
def test_swap_addresses_turns_a_packet_round_with_checksums_right(kind: str, ip: int) -> None:
    network = IP(src="10.0.0.1", dst="10.9.0.2") if ip == 4 else IPv6(src="fd00::1", dst="fd09::2")
    there = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / network / L4[kind]() / b"abc"
    batch = Batch(bytearray(4096), 4)
    batch.load([bytes(there), bytes(there)])
    batch.drop(np.array([False, True]))
    Headers().process(batch)
    swap = SwapAddresses()
    swap.process(batch)
    back = Ether(bytes(batch.packet(0)))
    assert (back.src, back.dst) == (there.dst, there.src)
    assert (back.payload.src, back.payload.dst) == (network.dst, network.src)
    if kind in ("tcp", "udp"):
        assert (back.sport, back.dport) == (2, 1)
    assert bytes(back) == rechecked(bytes(back))
    assert bytes(batch.packet(1)) == bytes(there)  # decided already
