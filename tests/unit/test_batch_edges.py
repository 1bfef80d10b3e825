"""Where a batch's loads, stores and checksums end: odd types, padding, fragments, faults."""

import struct

import numpy as np
import pytest

from xdpipe.batch import ABSENT, Batch
from xdpipe.stages import Headers

MACS_AND_IPV4 = bytes.fromhex("0200000000010200000000020800")
ADDRESSES = bytes([10, 0, 0, 1, 10, 0, 0, 2])
UDP, TCP = 17, 6


def ones_sum(data: bytes) -> int:
    """RFC 1071, of data padded to an even length."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def l4_sum(proto: int, segment: bytes) -> int:
    """Return the sum over pseudo header and segment: 0xFFFF where its checksum is right."""
    return ones_sum(ADDRESSES + struct.pack(">HH", proto, len(segment)) + segment)


def packet(proto: int, segment: bytes, *, fragment: int = 0, pad_to: int = 0) -> bytes:
    at = {UDP: 6, TCP: 16}[proto]
    zeroed = segment[:at] + b"\0\0" + segment[at + 2 :]
    checksum = struct.pack(">H", ~l4_sum(proto, zeroed) & 0xFFFF)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, fragment, 64, proto, 0)
    whole = MACS_AND_IPV4 + head + ADDRESSES + segment[:at] + checksum + segment[at + 2 :]
    return whole.ljust(pad_to, b"\0")


def udp(payload: bytes) -> bytes:
    return struct.pack(">HHHH", 5, 6, 8 + len(payload), 0) + payload


def tcp(payload: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", 5, 6, 1, 2, 0x50, 0x10, 512, 0, 0) + payload


def loaded(*packets: bytes) -> Batch:
    batch = Batch(bytearray(1 << 14), 16)
    batch.load(packets)
    Headers().process(batch)
    return batch


def segment_of(batch: Batch, i: int) -> bytes:
    end = int(batch.payload[i] + batch.payload_len[i])
    return bytes(batch.packet(i))[int(batch.l4[i]) : end]


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u2"])
def test_an_offset_may_be_of_any_integer_type(dtype: str) -> None:
    batch = loaded(bytes(range(60)), bytes(range(100, 160)))
    offsets = np.array([3, 7], dtype)
    assert batch.u16(offsets).tolist() == [0x0304, 0x6B6C]
    assert batch.put_u16(offsets, np.array([500, 501], ">u8")) == 2
    assert batch.u16(offsets).tolist() == [500, 501]


@pytest.mark.parametrize("offset", [2**31, 2**32 + 3, 2**63, 2**64, 2**64 + 3, 2**70, -(2**70)])
def test_an_offset_too_large_for_the_machine_is_beyond_every_packet(offset: int) -> None:
    batch = loaded(bytes(60))
    before = bytes(batch.memory)
    assert batch.u8(offset, missing=9).tolist() == [9]
    assert batch.bytes_at(offset, 3).tolist() == [[0, 0, 0]]
    assert batch.put_u8(offset, 255) == 0
    assert bytes(batch.memory) == before


def test_arithmetic_on_an_absent_offset_never_comes_back_into_the_packet() -> None:
    batch = loaded(bytes(60))
    assert batch.payload.tolist() == [ABSENT]
    for offset in (batch.payload + 65535, batch.payload - 65535, batch.payload * 2 - 1,
                   batch.l4 + batch.u8(14) * 4, batch.payload + batch.payload_len):  # fmt: skip
        assert batch.u32(offset, missing=1).tolist() == [1]


def test_columns_with_strides_are_read_as_what_they_say() -> None:
    batch = loaded(bytes(range(60)), bytes(range(100, 160)), bytes(range(200, 260 - 4)))
    offsets = np.array([1, 99, 2, 99, 3], np.int32)[::2]
    assert batch.u8(offsets).tolist() == [1, 102, 203]
    mask = np.array([True, True, False, False, True])[::2]
    assert batch.put_u8(offsets[::-1][::-1], np.array([7, 0, 8, 0, 9])[::2], mask) == 2
    assert batch.u8(offsets).tolist() == [7, 102, 9]
    assert batch.drop(mask) == 2
    assert batch.verdict.tolist() == [1, 0, 1]


@pytest.mark.parametrize("fault", ["too many", "too long", "not bytes"])
def test_columns_are_read_only_after_a_load_that_failed(fault: str) -> None:
    batch = Batch(bytearray(128), 2)
    packets = {"too many": [b"x"] * 3, "too long": [bytes(129)], "not bytes": [b"x", None]}[fault]
    with pytest.raises((ValueError, TypeError)):
        batch.load(packets)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="could not broadcast"):
        batch.place([0, 0, 0], [1, 1, 1])
    batch.load([b"ab"])
    for name in ("addr", "len", "time_ns"):
        assert not getattr(batch, name).flags.writeable


@pytest.mark.parametrize("proto", [UDP, TCP])
@pytest.mark.parametrize("size", [1, 2])
def test_a_store_into_ethernet_padding_leaves_the_checksum_alone(proto: int, size: int) -> None:
    segment = udp(b"x" * size) if proto == UDP else tcp(b"x" * size)
    batch = loaded(packet(proto, segment, pad_to=60))
    before = segment_of(batch, 0)
    for k in range(60 - 34 - len(segment)):
        assert batch.put_u8(batch.payload + size + k, 0xA5, fix_checksum=True) == 1
    assert segment_of(batch, 0) == before
    # a value that lies half in the payload, half in the padding
    assert batch.put_u16(batch.payload + size - 1, 0x1234, fix_checksum=True) == 1
    assert l4_sum(proto, segment_of(batch, 0)) == 0xFFFF
    assert segment_of(batch, 0)[-1] == 0x12


@pytest.mark.parametrize("proto", [UDP, TCP])
def test_every_byte_of_header_and_payload_is_accounted_for(proto: int) -> None:
    header, field = (8, 6) if proto == UDP else (20, 16)
    body = b"0123456789a"
    segment = udp(body) if proto == UDP else tcp(body)
    for at in range(header + len(body)):
        if at in (field, field + 1):
            continue
        for value in (0, 1, 0x7F, 0xFF):
            batch = loaded(packet(proto, segment))
            end = len(segment)
            batch.put_u8(batch.l4 + at, value, fix_checksum=True)
            now = bytes(batch.packet(0))[34 : 34 + end]
            assert now[at] == value
            assert l4_sum(proto, now) == 0xFFFF, (at, value)


@pytest.mark.parametrize("value", [1, 0xE1, 0x1234, 0x98FF, 0xFFFF])
@pytest.mark.parametrize(("proto", "field"), [(UDP, 6), (TCP, 16)])
def test_a_checksum_that_is_stored_is_what_was_stored(proto: int, field: int, value: int) -> None:
    segment = udp(b"0123") if proto == UDP else tcp(b"0123")
    batch = loaded(packet(proto, segment))
    assert batch.put_u16(batch.l4 + field, value, fix_checksum=True) == 1
    assert batch.u16(batch.l4 + field).tolist() == [value]


def test_a_udp_checksum_that_becomes_zero_is_sent_as_ones() -> None:
    """RFC 768: 0 would say that there is none."""
    batch = loaded(packet(UDP, udp(b"\0\0ab")))
    checksum = int(batch.u16(batch.l4 + 6)[0])
    batch.put_u16(batch.payload, checksum, fix_checksum=True)
    assert batch.u16(batch.l4 + 6).tolist() == [0xFFFF]
    assert l4_sum(UDP, segment_of(batch, 0)) == 0xFFFF


def test_a_later_fragment_has_no_checksum_to_bring_up_to_date() -> None:
    later = packet(UDP, udp(b"0123456789"), fragment=0x0003)
    batch = loaded(later)
    for k in range(18):
        batch.put_u8(batch.payload + k, 0x5A, fix_checksum=True)
    assert bytes(batch.packet(0)) == later[:34] + b"\x5a" * 18
