"""Times at which packets leave: asked for before they do, told in a later batch."""

import struct

import numpy as np
import pytest
from test_multi_buffer import Queue, cut

from xdpipe.batch import Batch
from xdpipe.core._core import ffi, lib
from xdpipe.verdict import TX

METADATA = 2  # XDP_TX_METADATA
WANTED = 1  # XDP_TXMD_FLAGS_TIMESTAMP
DATA = b"x" * 100


def queue_that_tells(capacity: int = 32) -> Queue:
    queue = Queue(capacity=capacity)
    queue.worker.default_verdict = TX
    lib.xp_batch_tells_tx_times(queue.batch.c)
    return queue


def kernel_sends(queue: Queue, time_ns: int) -> list[int]:
    """Send what is on the tx ring at a time, as the kernel does; return each packet's options."""
    options = []
    while len(queue.tx):
        desc = queue.tx.kernel_takes()
        address = int(desc["addr"])  # type: ignore[index]
        options.append(int(desc["options"]))  # type: ignore[index]
        if options[-1] & METADATA:
            (flags,) = struct.unpack_from("=Q", queue.memory, address - lib.XP_TX_METADATA)
            assert flags == WANTED
            struct.pack_into("=Q", queue.memory, address - lib.XP_TX_METADATA + 8, time_ns)
        queue.completion.kernel_puts(address)
    return options


def receive(queue: Queue, *packets: list[bytes]) -> Batch:
    for pieces in packets:
        queue.arrives(pieces)
    assert lib.xp_receive(queue.worker) == len(packets)
    return queue.batch


def test_the_times_of_those_that_were_asked_for_come_with_the_next_batch() -> None:
    queue = queue_that_tells()
    batch = receive(queue, [DATA], [DATA], cut(DATA, 40, 60))
    assert batch.want_tx_time(np.array([True, False, True]), np.array([7, 8, 9])) == 2
    assert batch.tx_time_due.tolist() == [1, 0, 1]
    lib.xp_dispatch(queue.worker)
    assert kernel_sends(queue, 123) == [METADATA, 0, METADATA | 1, 1, 0]
    lib.xp_take_back(queue.worker)
    batch = receive(queue, [DATA])
    assert batch.sent_tag.tolist() == [7, 9]
    assert batch.sent_time_ns.tolist() == [123, 123]
    assert batch.tx_time_due.tolist() == [0]
    lib.xp_dispatch(queue.worker)
    assert batch.sent_tag.tolist() == []
    assert kernel_sends(queue, 124) == [0]
    lib.xp_take_back(queue.worker)
    assert batch.sent_tag.tolist() == []


def test_the_tag_is_the_time_of_arrival_unless_told_otherwise() -> None:
    queue = queue_that_tells()
    batch = receive(queue, [DATA])
    arrived = batch.time_ns.tolist()
    assert batch.want_tx_time(np.array([True])) == 1
    lib.xp_dispatch(queue.worker)
    kernel_sends(queue, 5)
    lib.xp_take_back(queue.worker)
    assert batch.sent_tag.tolist() == arrived
    with pytest.raises(ValueError, match="read-only"):
        batch.sent_tag[0] = 1


def test_where_nobody_tells_nothing_is_asked() -> None:
    queue = Queue()
    queue.worker.default_verdict = TX
    batch = receive(queue, [DATA])
    assert batch.want_tx_time(np.array([True])) == 0
    lib.xp_dispatch(queue.worker)
    assert kernel_sends(queue, 5) == [0]


def test_a_packet_that_is_dropped_is_told_nothing_of() -> None:
    queue = queue_that_tells()
    batch = receive(queue, [DATA], [DATA])
    batch.want_tx_time(np.array([True, True]), [1, 2])
    batch.drop(np.array([True, False]))
    lib.xp_dispatch(queue.worker)
    kernel_sends(queue, 5)
    lib.xp_take_back(queue.worker)
    assert batch.sent_tag.tolist() == [2]


def test_more_times_than_a_batch_holds_are_counted_as_lost() -> None:
    queue = queue_that_tells(capacity=1)
    for tag in range(10):
        batch = receive(queue, [DATA])
        batch.want_tx_time(np.array([True]), tag)
        lib.xp_dispatch(queue.worker)
    kernel_sends(queue, 5)
    lib.xp_take_back(queue.worker)
    assert queue.batch.sent_tag.tolist() == list(range(8))
    assert queue.count("tx_times_lost") == 2


def test_a_next_worker_is_told_nothing_that_the_one_before_asked_for() -> None:
    queue = queue_that_tells()
    batch = receive(queue, [DATA], [DATA])
    batch.want_tx_time(np.array([True, True]), [1, 2])
    lib.xp_dispatch(queue.worker)
    kernel_sends(queue, 5)  # they come back to the next worker
    queue.new_worker(batch=32)
    queue.worker.multi_buffer = 1
    lib.xp_batch_tells_tx_times(queue.batch.c)
    queue.worker.default_verdict = TX
    assert lib.xp_adopt(queue.worker, ffi.new("uint8_t[]", queue.n_frames)) == 0
    batch = receive(queue, [DATA])
    batch.want_tx_time(np.array([True]), 3)
    lib.xp_dispatch(queue.worker)
    kernel_sends(queue, 6)
    lib.xp_take_back(queue.worker)
    assert (batch.sent_tag.tolist(), batch.sent_time_ns.tolist()) == ([3], [6])
