"""Checksums that are filled in as packets leave, by the worker or by who is asked to."""

import random
import struct

import numpy as np
import pytest
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from test_multi_buffer import Queue, cut

from xdpipe.batch import Batch
from xdpipe.core._core import lib
from xdpipe.stages import Headers
from xdpipe.verdict import TX

ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
METADATA = 2  # XDP_TX_METADATA
WANTED = 2  # XDP_TXMD_FLAGS_CHECKSUM
IP4, IP6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")

HEADERS: dict[str, Packet] = {
    "IPv4 UDP": ETHER / IP4 / UDP(sport=7, dport=53),
    "IPv4 TCP": ETHER / IP4 / TCP(sport=7, dport=53, options=[("NOP", None)] * 4),
    "IPv6 UDP": ETHER / IP6 / UDP(sport=7, dport=53),
    "IPv6 TCP": ETHER / IP6 / TCP(sport=7, dport=53),
    "VLAN": ETHER / Dot1Q(vlan=5) / IP4 / UDP(sport=7, dport=53),
    "IPv6 options": ETHER / IP6 / IPv6ExtHdrDestOpt() / UDP(sport=7, dport=53),
}


def layer(packet: Packet) -> Packet:
    return packet[TCP] if TCP in packet else packet[UDP]


def with_bad_checksum(packet: Packet) -> bytes:
    packet = packet.copy()
    layer(packet).chksum = 0xABCD
    return raw(packet)


def batch_of(packets: list[bytes]) -> Batch:
    batch = Batch(bytearray(1 << 20), 64)
    batch.load(packets)
    Headers().process(batch)
    return batch


def everything(batch: Batch) -> np.ndarray:
    return np.ones(len(batch), np.bool_)


@pytest.mark.parametrize("name", HEADERS)
def test_the_worker_computes_what_scapy_does(name: str) -> None:
    rng = random.Random(name)
    packets = [HEADERS[name] / Raw(rng.randbytes(n)) for n in [*range(20), 64, 1399, 1400]]
    batch = batch_of([with_bad_checksum(packet) for packet in packets])
    assert batch.fill_checksum(everything(batch)) == len(packets)
    assert batch.checksum_due.all()
    lib.xp_fill_checksums(batch.c)
    assert not batch.checksum_due.any()
    for i, packet in enumerate(packets):
        assert bytes(batch.packet(i)) == raw(packet), i


def test_padding_behind_the_packet_is_no_part_of_it() -> None:
    packet = HEADERS["IPv4 UDP"] / Raw(b"abc")
    batch = batch_of([with_bad_checksum(packet) + b"\xff" * 15])
    batch.fill_checksum(everything(batch))
    lib.xp_fill_checksums(batch.c)
    assert bytes(batch.packet(0)) == raw(packet) + b"\xff" * 15


def test_a_udp_checksum_of_0_goes_as_ffff() -> None:
    """0 would say that there is none: RFC 768."""
    without = HEADERS["IPv4 UDP"] / Raw(b"\0\0")
    missing = Ether(raw(without))[UDP].chksum  # two bytes that fill the sum up
    batch = batch_of([with_bad_checksum(HEADERS["IPv4 UDP"] / Raw(struct.pack(">H", missing)))])
    batch.fill_checksum(everything(batch))
    lib.xp_fill_checksums(batch.c)
    assert batch.u16(batch.l4 + 6)[0] == 0xFFFF


def test_only_what_was_asked_for_and_has_one() -> None:
    udp = with_bad_checksum(HEADERS["IPv4 UDP"] / Raw(b"payload"))
    fragment = raw(ETHER / IP(src="192.0.2.1", dst="192.0.2.2", flags="MF") / UDP() / Raw(b"12"))
    icmp = raw(ETHER / IP4 / ICMP(chksum=1))
    short = udp[:30]
    packets = [udp, udp, fragment, icmp, short]
    batch = batch_of(packets)
    assert batch.fill_checksum(np.array([True, False, True, True, True])) == 1
    lib.xp_fill_checksums(batch.c)
    assert [bytes(batch.packet(i)) == packets[i] for i in range(5)] == [False, *[True] * 4]


@pytest.mark.parametrize("seed", range(3))
def test_packets_in_several_frames(seed: int) -> None:
    rng = random.Random(seed)
    packet = HEADERS["IPv4 UDP"] / Raw(rng.randbytes(3000))
    data = with_bad_checksum(packet)
    queue = Queue()
    queue.worker.default_verdict = TX
    edges = [[*sorted(rng.sample(range(50, 1700), 3)), 1750] for _ in range(5)]
    for at in edges:
        queue.arrives(cut(data, *at))
    assert lib.xp_receive(queue.worker) == 5
    Headers().process(queue.batch)
    queue.batch.fill_checksum(everything(queue.batch))
    lib.xp_dispatch(queue.worker)
    assert queue.sent() == [raw(packet)] * 5


def as_a_nic(memory: bytearray, address: int, length: int) -> bytes:
    """Do what the metadata before a packet asks for (xsk-tx-metadata.rst); return the packet."""
    flags, start, offset = struct.unpack_from("=QHH", memory, address - lib.XP_TX_METADATA)
    assert flags == WANTED
    packet = bytearray(memory[address : address + length])
    covered = bytes(packet[start:]) + b"\0" * (length - start & 1)
    total = sum(struct.unpack(f">{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", packet, start + offset, ~total & 0xFFFF or 0xFFFF)
    return bytes(packet)


@pytest.mark.parametrize("name", HEADERS)
def test_who_is_asked_to_has_all_that_it_takes(name: str) -> None:
    rng = random.Random(name)
    queue = Queue()
    queue.worker.default_verdict = TX
    queue.port.tx_checksum = 1
    packets = [HEADERS[name] / Raw(rng.randbytes(n)) for n in (0, 1, 2, 99, 1400)]
    for packet in packets:
        queue.arrives([with_bad_checksum(packet)])
    queue.arrives([with_bad_checksum(packets[3])])
    assert lib.xp_receive(queue.worker) == 6
    Headers().process(queue.batch)
    queue.batch.fill_checksum(np.array([True] * 5 + [False]))
    lib.xp_dispatch(queue.worker)
    for packet in packets:
        desc = queue.tx.kernel_takes()
        assert desc["options"] == METADATA  # type: ignore[index]
        address, length = int(desc["addr"]), int(desc["len"])  # type: ignore[index]
        assert as_a_nic(queue.memory, address, length) == raw(packet)
    desc = queue.tx.kernel_takes()
    assert desc["options"] == 0  # type: ignore[index]
    address = int(desc["addr"])  # type: ignore[index]
    assert queue.memory[address : address + int(desc["len"])] == with_bad_checksum(packets[3])  # type: ignore[index]


def test_what_was_due_is_forgotten_with_the_batch() -> None:
    queue = Queue()
    data = with_bad_checksum(HEADERS["IPv4 UDP"] / Raw(b"payload"))
    queue.worker.default_verdict = TX
    for asked in (True, False):
        queue.arrives([data])
        assert lib.xp_receive(queue.worker) == 1
        Headers().process(queue.batch)
        if asked:
            queue.batch.fill_checksum(everything(queue.batch))
        lib.xp_dispatch(queue.worker)
    first, second = queue.sent()
    assert (first == data, second == data) == (False, True)


def test_a_store_into_a_packet_whose_checksum_is_due_leaves_the_field_alone() -> None:
    """Until it leaves, the sum of the pseudo header stands there, which is not of these bytes."""
    batch = batch_of([with_bad_checksum(HEADERS["IPv4 UDP"] / Raw(b"abcd"))])
    batch.fill_checksum(everything(batch))
    batch.put_u16(batch.payload, 0x1234, fix_checksum=True)
    assert batch.u16(batch.l4 + 6).tolist() == [0xABCD]
    lib.xp_fill_checksums(batch.c)
    assert bytes(batch.packet(0)) == raw(HEADERS["IPv4 UDP"] / Raw(b"\x12\x34cd"))
