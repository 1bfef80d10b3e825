"""How much room before a packet stages may take: only what is nobody's."""

from pathlib import Path

import numpy as np
import pytest
from scapy.utils import wrpcap
from test_multi_buffer import Queue
from test_ring import HEADROOM

from xdpipe.batch import COLUMNS, Batch
from xdpipe.batch import HEADROOM as LEFT
from xdpipe.check import CaptureBatches
from xdpipe.core._core import ffi, lib

KEPT = 40
"""Bytes of a frame: its marks, a stage's number, what is asked of the NIC, a tag it took out."""


def free_before(batch: Batch, edges: list[int]) -> None:
    """Check that the room before each packet is within the memory and reaches none of the edges."""
    starts = batch.addr.astype(np.int64) - batch.headroom
    assert (starts >= 0).all()
    for i, start in enumerate(starts.tolist()):
        assert not any(start < edge <= batch.addr[i] for edge in edges), i


@pytest.mark.parametrize("multi_buffer", [0, 1])
def test_in_a_frame_it_is_what_the_kernel_keeps_but_for_our_own(multi_buffer: int) -> None:
    queue = Queue()
    queue.worker.multi_buffer = multi_buffer
    queue.arrives([b"a" * 60])
    queue.arrives([b"b" * 60, b"c" * 1000] if multi_buffer else [b"b" * 60])
    assert lib.xp_receive(queue.worker) == 2
    assert queue.batch.headroom.tolist() == [HEADROOM - KEPT] * 2
    assert KEPT >= 2 + 8 + lib.XP_TX_METADATA + 4


@pytest.mark.parametrize("frame_size", [2048, 2304, 4096])
@pytest.mark.parametrize(("before", "room"), [(0, 0), (39, 0), (40, 0), (41, 1), (300, 260)])
def test_it_never_reaches_into_the_frame_before(frame_size: int, before: int, room: int) -> None:
    queue = Queue()
    queue.umem.frame_size = frame_size
    for number in (1, 3):
        address = lib.xp_frame_addr(queue.umem, number) + before
        queue.rx.kernel_puts((address, 60, 0))
    assert lib.xp_receive(queue.worker) == 2
    assert queue.batch.headroom.tolist() == [room] * 2


def test_in_a_capture_it_lies_behind_the_packet_before(tmp_path: Path) -> None:
    path = tmp_path / "sizes.pcap"
    wrpcap(str(path), [bytes([size & 255]) * size for size in (1, 63, 64, 65, 128, 1500)])
    [batch] = CaptureBatches(path, 16)
    assert batch.headroom.tolist() == [LEFT] * 6
    free_before(batch, (batch.addr.astype(np.int64) + batch.len).tolist())


def test_a_batch_that_is_loaded_has_as_much_as_it_is_told_to() -> None:
    batch = Batch(bytearray(4096), 4)
    packets = [b"a" * 64, b"b" * 65, b"c"]
    for headroom in (0, 4, LEFT, 1000):
        batch.load(packets, headroom=headroom)
        assert batch.headroom.tolist() == [headroom] * 3
        free_before(batch, (batch.addr.astype(np.int64) + batch.len).tolist())
    batch.load(packets)
    assert batch.headroom.tolist() == [LEFT] * 3
    with pytest.raises(ValueError, match="4096 bytes"):
        batch.load(packets, headroom=2048)


def test_a_packet_that_lies_somewhere_has_none_unless_told() -> None:
    batch = Batch(bytearray(4096), 4)
    batch.load([b"a" * 60] * 2)
    batch.place([0, 60], [60, 60])
    assert batch.headroom.tolist() == [0, 0]
    batch.place([64, 128], [60, 60], headroom=4)
    assert batch.headroom.tolist() == [4, 4]


def test_it_stays_with_its_packet_when_others_are_left_out() -> None:
    batch = Batch(bytearray(4096), 4)
    batch.load([b"a" * 60] * 3)
    column = lib.xp_batch_column(batch.c, COLUMNS["headroom"].index)
    np.frombuffer(ffi.buffer(column, 2 * 3), np.uint16)[:] = [1, 2, 3]
    batch.keep([2, 0])
    assert batch.headroom.tolist() == [3, 1]
