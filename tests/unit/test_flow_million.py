"""A million flows at once: as much memory as was said, and none lost that there was room for."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from flow_meters import quick

from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.flow_table import table_bytes
from xdpipe.stages import FlowMeter, Headers

MILLION = 1_000_000
N = 4096
STRIDE = 64
SECOND = 1_000_000_000


class Many:
    """A chain, and memory in which packets of numbered flows are made without Python's slowness."""

    def __init__(self, n_flows: int) -> None:
        self.stage = FlowMeter(n_flows=n_flows, idle_s=1000, active_s=10_000)
        memory = mmap.mmap(-1, N * STRIDE)
        self.bytes = np.frombuffer(memory, np.uint8).reshape(N, STRIDE)
        packet = quick(0)
        self.bytes[:, : len(packet)] = np.frombuffer(packet, np.uint8)
        self.batch = Batch(memory, N)
        self.batch.place([i * STRIDE for i in range(N)], [len(packet)] * N)
        with self.batch._unlocked():
            self.batch._columns["time_ns"][:] = SECOND
        self.chain = Chain([Headers(), self.stage], self.batch)

    def sees(self, first: int, end: int) -> None:
        """Have a packet of each of these flows come by; the source address is the number."""
        for start in range(first, end, N):
            numbers = np.arange(start, start + N)
            numbers[numbers >= end] = first  # the batch is always full
            self.bytes[:, 26:30] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
            self.chain.run()

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.chain.read_counts()[1]["counters"])


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE


@pytest.fixture(scope="module")
def many() -> Many:
    before = resident_bytes()
    many = Many(MILLION)
    grown = resident_bytes() - before
    said = table_bytes(many.stage.options)
    assert 136 * MILLION <= said <= 140 * MILLION
    assert said <= grown <= said + (24 << 20)  # with the ring and the marks of what has no room
    return many


def test_a_million_flows_find_room_and_not_one_more(many: Many) -> None:
    before = resident_bytes()
    many.sees(0, MILLION)
    counters = many.counters
    assert (counters["flows"], counters["no_room_flows"]) == (MILLION, 0)
    assert many.stage.report()["flows"] == MILLION
    many.sees(MILLION, MILLION + MILLION // 10)
    counters = many.counters
    assert counters["flows"] == MILLION
    padding = -(MILLION // 10) % N  # packets that repeat the first of them, to fill the batch
    assert counters["no_room_packets"] == MILLION // 10 + padding
    # the first one is told from those before it each time that it comes back
    assert counters["no_room_flows"] in (MILLION // 10, MILLION // 10 + 1)
    many.sees(0, MILLION)  # all that found room are still there
    counters = many.counters
    assert counters["flows"] == MILLION
    assert counters["no_room_packets"] == MILLION // 10 + padding
    assert resident_bytes() - before < 8 << 20


def test_each_of_them_is_told_once_with_its_packets(many: Many) -> None:
    if not many.counters["flows"]:
        many.sees(0, MILLION)
    seen = np.zeros(MILLION, np.uint8)
    n_packets = 0
    for records in many.stage.finish():
        sources = records["src"][:, 12:].copy().view(">u4").ravel()
        seen[sources] += 1
        n_packets += int(records["packets"].sum())
    assert (seen == 1).all()
    assert n_packets == many.counters["metered"]
    assert many.counters["exported"] == MILLION
    assert many.counters["lost"] == 0
