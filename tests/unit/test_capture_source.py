"""CaptureSource: a capture's packets behind edits, batch by batch, again and again, all counted."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from crafted import udp
from xdpipe.capture import CaptureWriter
from xdpipe.errors import XdpipeError
from xdpipe.traffic.capture_source import CaptureSource
from xdpipe.traffic.edits import Edits, Vlan
from xdpipe.traffic.source import Source
from xdpipe.verdict import DROP

SECOND = 1_000_000_000


def capture(path: Path, packets: Sequence[bytes], times: Sequence[int] | None = None) -> Path:
    with CaptureWriter(path) as writer:
        for i, packet in enumerate(packets):
            writer.write(times[i] if times else SECOND + i, packet)
    return path


def kept(source: Source) -> list[tuple[int, bytes]]:
    """Return time and bytes of the packets of one pass."""
    return [
        (int(batch.time_ns[i]), bytes(batch.packet(i)))
        for batch in source
        for i in range(len(batch))
        if batch.verdict[i] != DROP
    ]


@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_every_packet_comes_once_a_pass_and_each_pass_is_the_same(
    tmp_path: Path, batch_size: int
) -> None:
    packets = [udp(sport=1000 + i, size=i) for i in range(100)]
    source = CaptureSource(capture(tmp_path / "a.pcap", packets), batch_size=batch_size)
    assert source.n_packets is None
    for _ in range(3):
        assert kept(source) == [(SECOND + i, packet) for i, packet in enumerate(packets)]
        assert (source.read, source.left_out, source.n_packets) == (100, {}, 100)
    assert source.truncated is None
    source.close()
    source.close()


def test_a_pass_that_was_broken_off_is_begun_anew(tmp_path: Path) -> None:
    packets = [udp(sport=1000 + i) for i in range(10)]
    source = CaptureSource(capture(tmp_path / "a.pcap", packets), batch_size=3)
    assert len(next(iter(source))) == 3
    assert source.n_packets is None
    assert [packet for _, packet in kept(source)] == packets
    assert source.read == 10


def test_what_the_filter_refuses_is_dropped_and_counted_in_each_pass(tmp_path: Path) -> None:
    packets = [udp(dport=53 + i % 3) for i in range(30)]
    source = CaptureSource(
        capture(tmp_path / "a.pcap", packets), Edits(filter="dst port 53"), batch_size=7
    )
    for _ in range(2):
        assert [packet for _, packet in kept(source)] == packets[::3]
        assert (source.read, source.left_out, source.n_packets) == (30, {"filter": 20}, 10)


def test_times_are_as_they_were_recorded(tmp_path: Path) -> None:
    times = [5, 7, 3, 9, 8, 2]
    source = CaptureSource(capture(tmp_path / "a.pcap", [udp()] * 6, times), batch_size=2)
    for _ in range(2):
        assert [time for time, _ in kept(source)] == times


@pytest.mark.parametrize(
    ("vlan", "tags"),
    [
        (Vlan(7), [(7, 0), (7, 5), (7, 5)]),
        (Vlan(7, 2), [(7, 2), (7, 2), (7, 2)]),
        (Vlan(None), [None, None, None]),
    ],
)
def test_packets_are_put_into_a_vlan(
    tmp_path: Path, vlan: Vlan, tags: list[tuple[int, int] | None]
) -> None:
    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"abc"
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    one, two = Dot1Q(vlan=3, prio=5), Dot1Q(vlan=4, prio=1)
    packets = [raw(ether / inner), raw(ether / one / inner), raw(ether / one / two / inner)]
    source = CaptureSource(capture(tmp_path / "a.pcap", packets), Edits(vlan=vlan))
    outer = [ether / Dot1Q(vlan=tag[0], prio=tag[1]) if tag else ether for tag in tags]
    rest = two / inner if vlan.vid is not None else inner
    expected = [raw(outer[0] / inner), raw(outer[1] / inner), raw(outer[2] / rest)]
    assert [packet for _, packet in kept(source)] == expected


def test_where_the_file_ends_early_is_told(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", [udp(size=50)] * 4)
    path.write_bytes(path.read_bytes()[:-10])
    source = CaptureSource(path)
    assert len(kept(source)) == 3
    assert source.truncated is not None
    assert source.truncated.startswith("after packet 3, at byte ")


@pytest.mark.parametrize(
    ("edits", "told"), [(Edits("no such filter"), 'filter "no such filter": ')]
)
def test_edits_that_cannot_be_are_one_line(tmp_path: Path, edits: Edits, told: str) -> None:
    path = capture(tmp_path / "a.pcap", [udp()])
    with pytest.raises(XdpipeError) as raised:
        CaptureSource(path, edits)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
