"""FlowMeter: the table and its memory, its ring, and the texts that flows keep."""

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_meters import ETHER, A, B, Meter, S, exchange, quick, tagged, tcp, udp
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q
from scapy.packet import Packet, Raw
from test_multi_buffer import Queue, cut

import xdpipe.core
from guard_page import GuardedBatch
from xdpipe.batch import COLUMNS, Batch
from xdpipe.block_ring import BlockRing, ring_size
from xdpipe.chain import Chain
from xdpipe.core._core import ffi, lib
from xdpipe.flow_records import record_dtype, rows, to_ndjson
from xdpipe.flow_table import FlowTable, record_bytes, table_bytes
from xdpipe.process import shared_memory
from xdpipe.stage import ServedQueue
from xdpipe.stages import FlowMeter, Headers

# Room


def test_exactly_as_many_flows_as_stated_find_room_and_the_rest_is_counted() -> None:
    meter = Meter(n_flows=4)
    meter.sees(*[(S, udp(sport=port)) for port in (1, 2, 3, 4, 5, 6, 1, 5, 5, 6)])
    counters = meter.counters
    assert (counters["no_room_flows"], counters["no_room_packets"]) == (2, 5)
    assert (counters["flows"], counters["metered"]) == (4, 5)
    assert sorted(exchange(meter.finish())) == [(1, 0, 4), (1, 0, 4), (1, 0, 4), (2, 0, 4)]


def test_a_flow_that_is_over_makes_room_before_the_sweep_comes_by() -> None:
    meter = Meter(n_flows=100, idle_s=10)
    meter.sees(*[(S, udp(sport=port)) for port in range(100)])
    meter.sees(*[(11 * S, udp(sport=1000 + port)) for port in range(100)])
    assert exchange(meter.told()) == [(1, 0, 1)] * 100
    assert meter.counters["no_room_flows"] == 0
    assert len(meter.finish()) == 100


def test_the_quietest_goes_where_one_must() -> None:
    meter = Meter(n_flows=4, evict=True)
    meter.sees_each([(t * S // 10, udp(sport=port)) for t, port in enumerate((1, 2, 3, 4, 1), 10)])
    meter.sees((S + S // 2, udp(sport=5)))
    [row] = meter.told()
    assert (row["sourceTransportPort"], row["flowEndReason"]) == (2, 5)
    assert {row["sourceTransportPort"] for row in meter.finish()} == {1, 3, 4, 5}
    assert meter.counters["resources"] == 1
    assert meter.counters["no_room_flows"] == 0


def test_entries_are_used_again_for_as_long_as_flows_come() -> None:
    meter = Meter(n_flows=64, idle_s=1)
    for second in range(200):
        meter.sees(*[(second * 2 * S, quick(second * 64 + k)) for k in range(64)])
        meter.stage.take()
    counters = meter.counters
    assert (counters["flows"], counters["no_room_flows"]) == (200 * 64, 0)
    assert (counters["idle"], counters["exported"]) == (199 * 64, 199 * 64)


def test_a_full_ring_loses_records_which_are_counted_and_the_sweep_waits() -> None:
    meter = Meter(n_flows=150_000, idle_s=10, buffer_mib=1)  # but no less than for 32,768
    ring = meter.stage._ring
    assert ring is not None
    room = ring.size // record_bytes(meter.stage.options)
    for first in range(0, room + 512, 256):
        meter.sees(*[(S, quick(k % 60_000, k // 60_000)) for k in range(first, first + 256)])
    n_flows = meter.counters["flows"]
    for _ in range(30):  # the sweep stops where it would lose
        meter.idles(60 * S)
    assert meter.counters["exported"] == room
    assert meter.counters["lost"] == 0
    assert meter.stage.report()["flows"] == n_flows - room
    last = (n_flows - 1) % 60_000, (n_flows - 1) // 60_000
    meter.sees((61 * S, quick(*last)))  # it begins anew: that cannot wait
    assert meter.counters["lost"] == 1
    assert len(meter.told()) == room
    rest = meter.finish()
    assert len(rest) == n_flows - room
    assert meter.counters["exported"] == n_flows


# Labels

SOURCE = """
#include "xp_batch.h"

/* Fill a column of eight bytes a packet with the payload, as columns of texts are filled. */
void fill(struct xp_batch *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t n = b->payload_len[i] > 0 ? (uint32_t)b->payload_len[i] : 0;
        xp_text_t text = xp_copy_text(b, xp_packet(b, i) + b->payload[i], n);

        memcpy(&b->tx_tag[i], &text, sizeof(text));
        text.at = 0xfffffff0; /* and one that nobody could believe */
        memcpy(&b->nic_time_ns[i], &text, sizeof(text));
    }
}
"""


class Labelled(Meter):
    """A meter behind a stage that gives each packet its payload as a text."""

    def __init__(self, fill: Any, **options: Any) -> None:
        super().__init__(labels=("tx_tag", "nic_time_ns"), **options)
        self.headers = Headers()
        self.fill = fill

    def sees(self, *timed: tuple[int, Packet | bytes]) -> None:
        run, self.chain.run = self.chain.run, lambda: None  # type: ignore[method-assign]
        super().sees(*timed)
        self.chain.run = run  # type: ignore[method-assign]
        self.headers.process(self.batch)
        self.fill(ctypes.c_void_p(int(ffi.cast("uintptr_t", self.batch.c))))
        self.chain.run()


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a C function that fills columns with texts."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    directory = tmp_path_factory.mktemp("fill")
    (directory / "fill.c").write_text(SOURCE)
    include = Path(xdpipe.core.__file__).parent
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", f"-I{include}", "-o", "fill.so", "fill.c"],
        cwd=directory, check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(directory / "fill.so")).fill


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two columns of eight bytes be texts."""
    for name in ("tx_tag", "nic_time_ns"):
        monkeypatch.setattr(COLUMNS[name], "text", True)


def say(text: bytes, sport: int = 1) -> Packet:
    return ETHER / IP(src=A, dst=B) / UDP(sport=sport, dport=2) / Raw(text)


@pytest.mark.usefixtures("texts")
def test_the_first_text_of_each_flow_is_kept_bounded(fill: Any) -> None:
    meter = Labelled(fill, label_bytes=8)
    meter.sees(
        (S, say(b"")), (S, say(b"one")), (S, say(b"other")), (S, say(b"123456789", 2)),
        (S, say(b"\xff\n\"\\", 3)), (S, say(b"", 4)),
    )  # fmt: skip
    rows = meter.finish()
    assert [row.get("tx_tag") for row in rows] == ["one", "12345678", '\\xff\n"\\', None]
    assert not any("nic_time_ns" in row for row in rows)  # not one that lies beyond all texts


@pytest.mark.usefixtures("texts")
def test_labels_stay_at_the_active_timeout_and_go_with_the_flow(fill: Any) -> None:
    meter = Labelled(fill, active_s=10, idle_s=20)
    meter.sees((S, say(b"one")))
    meter.sees((12 * S, say(b"two")))
    meter.sees((40 * S, say(b"")))
    told = [(row.get("tx_tag"), row["flowEndReason"]) for row in meter.told() + meter.finish()]
    assert told == [("one", 2), ("one", 1), (None, 4)]


# Memory


def test_no_byte_behind_a_packet_is_read() -> None:
    guarded = GuardedBatch(128)
    stages = Headers(), FlowMeter()
    for packet in (bytes(udp()), bytes(tcp("S")), tagged(Dot1AD(vlan=9), Dot1Q(vlan=6))):
        batch = guarded.load_cuts(packet, list(range(min(len(packet), 127) + 1)))
        for stage in stages:
            stage.process(batch)
    assert len(list(stages[1].finish())[-1]) == 3


def test_a_packet_in_several_frames_counts_with_all_its_bytes() -> None:
    queue = Queue()
    packet = bytes(udp(size=3000))
    queue.arrives(cut(packet, 1000, 2000))
    assert lib.xp_receive(queue.worker) == 1
    stages = Headers(), FlowMeter()
    for stage in stages:
        stage.process(queue.batch)
    records = list(stages[1].finish())[-1]
    assert records["bytes"].tolist() == [[3028, 0]]


def test_numpy_sees_records_as_the_core_writes_them() -> None:
    options = FlowMeter().options
    assert record_dtype(options).itemsize == record_bytes(options) == 112
    assert rows(np.zeros(0, record_dtype(options)), options) == []


def test_a_table_of_nonsense_harms_nobody_who_goes_on_with_it() -> None:
    """A worker that was taken over can write anything there: the next one and the recorder live."""
    rng = np.random.default_rng(1)
    options = FlowMeter(n_flows=500, idle_s=10, labels=()).options
    size = table_bytes(options)
    for round_ in range(30):
        fd = shared_memory("flows", size)
        ring = BlockRing(ring_size(200 * record_bytes(options)))
        known = FlowTable(options, ring, fd)
        memory = mmap.mmap(fd, size)
        raw = np.frombuffer(memory, np.uint8)
        whole = 8 + ffi.sizeof("struct xp_flow_options")  # who goes on looks for these
        raw[whole:] = rng.integers(0, 256, size - whole, np.uint8)
        if round_ % 2:
            raw[whole : whole + 80] = 0xFF
        stage = FlowMeter(n_flows=500, idle_s=10)
        stage.serve(BlockRing(ring.size, os.dup(ring.fd)), [fd], ServedQueue([], 0, 1))
        batch = Batch(mmap.mmap(-1, 1 << 20), 256)
        chain = Chain([Headers(), stage], batch)
        for second in range(40):
            batch.load([quick(port) for port in range(round_, round_ + 256)], second * S)
            chain.run()
        left = FlowTable(options, BlockRing(ring.size, os.dup(ring.fd)), fd)
        for _ in range(10):
            position = ring.position
            data, n = ring.peek_records(position.consumer, record_bytes(options), 1 << 40)
            records = np.frombuffer(bytes(data), record_dtype(options), n)
            assert len(to_ndjson(records, options).splitlines()) == n
            ring.release(position._replace(consumer=position.consumer + len(data)))
            if not left.finish(1000):
                break
        assert left.n_now == 0
        assert known.n_bytes == size
        ring.close()
        os.close(fd)
