"""Whole batches become a capture file that libpcap reads."""

import os
from pathlib import Path

import numpy as np
import pytest

from crafted import batch_of, udp
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.traffic.capture_writer import BatchWriter

PACKETS = [udp(sport=k, size=size) for k, size in enumerate((0, 1, 17, 1400, 9000))]
TIMES = [0, 1, 999_999_999, 1_700_000_000_123_456_789, 2_147_483_647_999_999_999]


def test_packets_come_back_byte_for_byte_with_their_times(tmp_path: Path) -> None:
    batch = batch_of(PACKETS, TIMES)
    with BatchWriter(tmp_path / "out.pcap") as writer:
        assert writer.write(batch) == 5
        assert writer.write(batch, np.array([False, True, False, False, True])) == 2
        assert writer.n_packets == 7
    with CaptureReader(tmp_path / "out.pcap") as reader:
        reader.require_ethernet()
        read = list(reader)
        assert reader.truncated is None
    order = [*range(5), 1, 4]
    assert [(p.time_ns, p.data, p.wire_len) for p in read] == [
        (TIMES[k], PACKETS[k], len(PACKETS[k])) for k in order
    ]


def test_more_than_the_buffer_holds_is_written_whole(tmp_path: Path) -> None:
    batch = batch_of([bytes([k]) * 9000 for k in range(200)])
    with BatchWriter(tmp_path / "out.pcap") as writer:
        for _ in range(3):
            writer.write(batch)
    assert (tmp_path / "out.pcap").stat().st_size == 24 + 600 * 9016
    with CaptureReader(tmp_path / "out.pcap") as reader:
        assert [p.data[:1] + p.data[-1:] for p in reader] == [bytes([k, k]) for k in range(200)] * 3


def test_a_batch_without_packets_leaves_an_empty_capture(tmp_path: Path) -> None:
    batch = batch_of([])
    with BatchWriter(tmp_path / "out.pcap") as writer:
        assert writer.write(batch) == 0
    with CaptureReader(tmp_path / "out.pcap") as reader:
        assert list(reader) == []


def test_a_full_disk_is_told_when_it_is_met() -> None:
    batch = batch_of([bytes(9000)] * 200)
    with (
        pytest.raises(XdpipeError, match=r"^/dev/full: No space left on device"),
        BatchWriter("/dev/full") as writer,
    ):
        writer.write(batch)
    small = BatchWriter("/dev/full")
    small.write(batch_of([bytes(60)]))
    with pytest.raises(XdpipeError, match="No space left on device, after 1 packets at most"):
        small.close()
    small.close()


def test_a_pipe_that_nobody_reads_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = BatchWriter(path)
    os.close(reader)
    writer.write(batch_of([bytes(60)]))
    with pytest.raises(XdpipeError, match="Broken pipe"):
        writer.close()


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(XdpipeError, match="No such file or directory"):
        BatchWriter(tmp_path / "nowhere" / "out.pcap")


def test_the_old_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    path.write_bytes(bytes(1000))
    BatchWriter(path).close()
    assert path.stat().st_size == 24
