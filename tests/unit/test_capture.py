"""The capture reader and writer, against files made by hand and by scapy."""

import errno
import gzip
import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, RawPcapWriter

from xdpipe.capture import CaptureReader, CaptureWriter, Packet, Truncation
from xdpipe.errors import XdpipeError
from xdpipe.libpcap import ffi

# Times that microseconds cannot hold, but for the last; a packet that was cut; an empty one.
PACKETS = [
    Packet(1_700_000_000_123_456_789, 60, bytes(range(60))),
    Packet(1_700_000_000_123_456_790, 1514, b"\xff" * 96),
    Packet(1_700_000_001_000_000_001, 0, b""),
    Packet(1_700_000_002_000_001_000, 3, b"abc"),
]
MICRO = [p._replace(time_ns=p.time_ns // 1000 * 1000) for p in PACKETS]


def pcap(
    packets: list[Packet], *, order: str = "<", nano: bool = True, link_type: int = 1
) -> bytes:
    """Return a pcap file (draft-ietf-opsawg-pcap, sections 4 and 5)."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)]
    for p in packets:
        seconds, ns = divmod(p.time_ns, 10**9)
        fraction = ns if nano else ns // 1000
        parts.append(struct.pack(f"{order}IIII", seconds, fraction, len(p.data), p.wire_len))
        parts.append(p.data)
    return b"".join(parts)


def pcapng(
    packets: list[Packet], *, order: str = "<", nano: bool = True, link_type: int = 1
) -> bytes:
    """Return a pcapng file (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3)."""

    def pad(data: bytes) -> bytes:
        return data + b"\0" * (-len(data) % 4)

    def block(kind: int, body: bytes) -> bytes:
        length = struct.pack(f"{order}I", len(body) + 12)
        return struct.pack(f"{order}I", kind) + length + body + length

    tsresol = struct.pack(f"{order}HHB3xHH", 9, 1, 9, 0, 0) if nano else b""
    parts = [
        block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack(f"{order}HHI", link_type, 0, 65535) + tsresol),
    ]
    for p in packets:
        stamp = p.time_ns if nano else p.time_ns // 1000
        head = struct.pack(
            f"{order}IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(p.data), p.wire_len
        )
        parts.append(block(6, head + pad(p.data)))
    return b"".join(parts)


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(path: Path) -> tuple[list[Packet], Truncation | None]:
    with CaptureReader(path) as capture:
        return list(capture), capture.truncated


@pytest.mark.parametrize("make", [pcap, pcapng])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [True, False])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_format_gives_the_same_bytes_and_times(
    tmp_path: Path,
    make: Callable[..., bytes],
    order: str,
    nano: bool,
    pack: Callable[[bytes], bytes],
) -> None:
    path = save(tmp_path / "x", pack(make(PACKETS, order=order, nano=nano)))
    assert read(path) == (PACKETS if nano else MICRO, None)


@pytest.mark.parametrize("nano", [True, False])
def test_what_scapy_writes_as_pcap_is_read(tmp_path: Path, nano: bool) -> None:
    path = tmp_path / "x.pcap"
    with RawPcapWriter(str(path), linktype=1, nano=nano) as writer:
        writer.write_header(None)
        for p in PACKETS:
            seconds, ns = divmod(p.time_ns, 10**9)
            writer.write_packet(
                p.data, sec=seconds, usec=ns if nano else ns // 1000, wirelen=p.wire_len
            )
    assert read(path) == (PACKETS if nano else MICRO, None)


def test_what_scapy_writes_as_pcapng_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with PcapNgWriter(str(path)) as writer:
        writer.write_header(Ether())
        for p in MICRO:
            # scapy takes the whole time as `sec` here, and ignores `usec`.
            writer.write_packet(p.data, sec=Fraction(p.time_ns, 10**9), wirelen=p.wire_len)
    assert read(path) == (MICRO, None)


def test_a_file_of_several_gzip_members_with_padding_is_one_capture(tmp_path: Path) -> None:
    data = pcap(PACKETS)
    zipped = gzip.compress(data[:70]) + gzip.compress(b"") + gzip.compress(data[70:]) + b"\0" * 512
    assert read(save(tmp_path / "x.gz", zipped)) == (PACKETS, None)


def test_a_large_gzip_file_is_read_whole(tmp_path: Path) -> None:
    packets = [Packet(i, 1000, bytes(1000)) for i in range(3000)]
    path = save(tmp_path / "x.gz", gzip.compress(pcap(packets)))
    assert path.stat().st_size < 100_000
    assert read(path) == (packets, None)


def test_reading_leaves_no_descriptor_and_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "x.gz", gzip.compress(pcap(PACKETS)))
    bad = save(tmp_path / "bad", b"neither pcap nor pcapng, and long enough for either")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        with CaptureReader(path) as capture:
            assert len(list(capture)) == len(PACKETS)
            capture.close()
        with pytest.raises(XdpipeError):
            CaptureReader(bad)
        with CaptureWriter(tmp_path / "y"):
            pass
    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(tmp_path / "tmp") == []


def test_a_pipe_is_read(tmp_path: Path) -> None:
    out, into = os.pipe()
    with open(into, "wb") as file:
        file.write(pcap(PACKETS))
    with open(out, "rb"):
        assert read(Path(f"/proc/self/fd/{out}")) == (PACKETS, None)


def test_a_pcap_cut_at_any_byte_gives_the_whole_packets_and_where_it_ended(tmp_path: Path) -> None:
    data = pcap(PACKETS)
    ends = [24]
    for p in PACKETS:
        ends.append(ends[-1] + 16 + len(p.data))
    for length in range(24, len(data) + 1):
        packets, truncated = read(save(tmp_path / "x", data[:length]))
        whole = sum(end <= length for end in ends) - 1
        assert packets == PACKETS[:whole]
        if length in ends:
            assert truncated is None
        else:
            assert truncated is not None
            assert (truncated.after_packets, truncated.offset) == (whole, length)
            assert "truncated" in truncated.reason


def test_a_pcapng_cut_at_any_byte_gives_the_whole_packets_and_where_it_ended(
    tmp_path: Path,
) -> None:
    data = pcapng(PACKETS)
    start = len(pcapng([]))
    ends = [start]
    for n in range(1, len(PACKETS) + 1):
        ends.append(len(pcapng(PACKETS[:n])))
    for length in range(start, len(data) + 1):
        packets, truncated = read(save(tmp_path / "x", data[:length]))
        whole = sum(end <= length for end in ends) - 1
        assert packets == PACKETS[:whole]
        if length in ends:
            assert truncated is None
        else:
            assert truncated is not None
            assert (truncated.after_packets, truncated.offset) == (whole, length)
            assert "truncated" in truncated.reason


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_file_cut_within_its_header_is_no_capture(
    tmp_path: Path, make: Callable[..., bytes]
) -> None:
    header = make([])
    for length in range(len(header)):
        path = save(tmp_path / "x", header[:length])
        with pytest.raises(XdpipeError, match=f"{path}: not a capture file") as raised:
            CaptureReader(path)
        assert "\n" not in str(raised.value)


def test_a_gzip_cut_at_any_byte_gives_what_was_whole_and_says_so(tmp_path: Path) -> None:
    zipped = gzip.compress(pcap(PACKETS), mtime=0)
    n_read = []
    for length in range(2, len(zipped)):
        path = save(tmp_path / "x.gz", zipped[:length])
        try:
            packets, truncated = read(path)
        except XdpipeError as error:
            assert str(error).startswith(f"{path}: not a capture file")
            assert n_read == []
            continue
        assert packets == PACKETS[: len(packets)]
        assert truncated is not None
        assert truncated.after_packets == len(packets)
        assert truncated.reason == "gzip: the file ends before its compressed stream does"
        n_read.append(len(packets))
    assert n_read == sorted(n_read)
    assert n_read[-1] == len(PACKETS)


def test_damaged_gzip_data_gives_what_came_before(tmp_path: Path) -> None:
    zipped = bytearray(gzip.compress(pcap(PACKETS)))
    zipped[-8] ^= 0xFF  # the checksum of the uncompressed data
    packets, truncated = read(save(tmp_path / "x.gz", bytes(zipped)))
    assert packets == PACKETS
    assert truncated is not None
    assert truncated.reason.startswith("gzip: ")
    assert "incorrect data check" in truncated.reason


def test_an_impossible_packet_length_ends_the_capture_with_a_reason(tmp_path: Path) -> None:
    data = pcap(PACKETS[:2]) + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 60) + bytes(60)
    packets, truncated = read(save(tmp_path / "x", data))
    assert packets == PACKETS[:2]
    assert truncated is not None
    assert truncated.after_packets == 2
    assert "4294967295" in truncated.reason


def test_truncated_is_unknown_until_the_end_is_reached(tmp_path: Path) -> None:
    with CaptureReader(save(tmp_path / "x", pcap(PACKETS)[:-1])) as capture:
        packets = iter(capture)
        assert [next(packets) for _ in PACKETS[1:]] == PACKETS[:-1]
        assert (capture.n_packets, capture.truncated) == (3, None)
        assert next(packets, None) is None
        assert capture.truncated is not None
        assert list(capture) == []


@pytest.mark.parametrize("cut", [0, 1])
def test_a_loop_in_c_ends_as_iterating_does(tmp_path: Path, cut: int) -> None:
    data = pcap(PACKETS)
    path = save(tmp_path / "x", data[: len(data) - cut])
    with CaptureReader(path) as capture:
        next_ex = ffi.cast(
            "int (*)(pcap_t *, struct pcap_pkthdr **, const unsigned char **)",
            capture.next_ex_address,
        )
        handle = ffi.cast("pcap_t *", capture.handle)
        header, bytes_ = ffi.new("struct pcap_pkthdr **"), ffi.new("unsigned char **")
        n_packets = 0
        while (status := next_ex(handle, header, bytes_)) == 1:
            n_packets += 1
        assert status == (-1 if cut else -2)
        capture.note_end(status, n_packets)
        assert capture.n_packets == len(PACKETS) - cut
        by_c = capture.truncated
    assert by_c == read(path)[1]
    assert (by_c is None) == (cut == 0)


@pytest.mark.parametrize(
    ("link_type", "name", "description"),
    [
        (1, "EN10MB", "Ethernet"),
        (101, "RAW", "Raw IP"),
        (105, "IEEE802_11", "802.11"),
        (9999, "DLT 9999", "DLT 9999"),
    ],
)
def test_the_link_type_is_named(
    tmp_path: Path, link_type: int, name: str, description: str
) -> None:
    path = save(tmp_path / "x", pcap(PACKETS, link_type=link_type))
    with CaptureReader(path) as capture:
        assert (capture.link_type, capture.link_type_description) == (name, description)
        assert capture.snaplen == 65535
        if link_type == 1:
            capture.require_ethernet()
        else:
            with pytest.raises(XdpipeError, match="xdpipe reads Ethernet captures only") as raised:
                capture.require_ethernet()
            assert f"link type {name} ({description})" in str(raised.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a capture file; it is empty"),
        (b"GET / HTTP/1.0\r\n\r\n" * 9, "not a capture file, neither pcap nor pcapng"),
        (gzip.compress(b"", mtime=0), "not a capture file"),
        (b"\x28\xb5\x2f\xfd" + bytes(90), "compressed with zstd; decompress it first, by zstd -d"),
        (b"\x1f\x8b" + bytes(90), "not a capture file"),
        (
            gzip.compress(bytes(1 << 20), mtime=0),
            "not a capture file, neither pcap nor pcapng (what is",
        ),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = save(tmp_path / "x", data)
    with pytest.raises(XdpipeError) as raised:
        CaptureReader(path)
    assert str(raised.value).startswith(f"{path}: {message}")
    assert "\n" not in str(raised.value)


def test_what_never_ends_and_is_no_capture_is_refused_at_its_start() -> None:
    with pytest.raises(XdpipeError, match=r"^/dev/zero: not a capture file"):
        CaptureReader("/dev/zero")


@pytest.mark.parametrize("kind", [CaptureReader, CaptureWriter])
def test_a_path_that_cannot_be_opened_is_named_with_the_reason(tmp_path: Path, kind: type) -> None:
    absent = tmp_path / "absent" / "x.pcap"
    with pytest.raises(XdpipeError) as raised:
        kind(absent)
    assert str(raised.value) == f"{absent}: {os.strerror(errno.ENOENT)}"
    with pytest.raises(XdpipeError) as raised:
        kind(tmp_path)
    assert str(raised.value) == f"{tmp_path}: {os.strerror(errno.EISDIR)}"


def test_a_file_that_may_not_be_read_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(XdpipeError) as raised:
        CaptureReader(tmp_path / "x")
    assert str(raised.value) == f"{tmp_path / 'x'}: {os.strerror(errno.EACCES)}"


def test_the_writer_makes_a_nanosecond_pcap_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    with CaptureWriter(path) as writer:
        for p in PACKETS:
            writer.write(p.time_ns, p.data, p.wire_len)
        assert writer.n_packets == len(PACKETS)
    expected = bytearray(pcap(PACKETS, order="="))
    struct.pack_into("=I", expected, 16, 262144)  # snaplen
    assert path.read_bytes() == expected
    assert read(path) == (PACKETS, None)


def test_the_writer_takes_a_view_and_the_wire_length_from_its_data(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    with CaptureWriter(path) as writer:
        writer.write(5, memoryview(bytearray(b"abcd"))[1:])
    assert read(path) == ([Packet(5, 3, b"bcd")], None)


@pytest.mark.parametrize("n_packets", [1, 3, 1000])
def test_a_full_disk_is_told_when_the_writer_is_closed(n_packets: int) -> None:
    writer = CaptureWriter("/dev/full")
    for _ in range(n_packets):
        writer.write(0, bytes(1500))
    with pytest.raises(XdpipeError, match="/dev/full: could not be written whole"):
        writer.close()
    writer.close()


def test_a_closed_capture_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with CaptureWriter(path) as writer:
        pass
    with pytest.raises(XdpipeError, match="closed already"):
        writer.write(0, b"")
    with CaptureReader(path) as capture:
        pass
    for use in (lambda: capture.handle, lambda: capture.link_type, lambda: list(capture)):
        with pytest.raises(XdpipeError, match="closed already"):
            use()
