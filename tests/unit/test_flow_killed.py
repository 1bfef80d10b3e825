"""No flow is lost or doubled by a worker that is killed, at whatever instruction."""

import mmap
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from flow_meters import quick

from xdpipe.batch import Batch
from xdpipe.block_ring import BlockRing
from xdpipe.chain import Chain
from xdpipe.flow_records import record_dtype, rows
from xdpipe.flow_table import FlowTable, record_bytes, table_bytes
from xdpipe.process import shared_memory
from xdpipe.stage import OWN
from xdpipe.stages import FlowMeter, Headers

MIB = 1 << 20

WORKER = """
import mmap, sys
from xdpipe.batch import Batch
from xdpipe.block_ring import BlockRing
from xdpipe.chain import Chain
from xdpipe.stage import ServedQueue
from xdpipe.stages import FlowMeter, Headers

ring_fd, ring_size, table_fd, counts_fd, base = map(int, sys.argv[1:6])
packet = bytes.fromhex(sys.argv[6])
stage = FlowMeter("x", n_flows=4096, idle_s=1)
stage.serve(BlockRing(ring_size, ring_fd), [table_fd], ServedQueue([], 0, 1))
batch = Batch(mmap.mmap(-1, 1 << 20), 256)
counts = memoryview(mmap.mmap(counts_fd, 4096)).cast("Q")
chain = Chain([Headers(), stage], batch, counts)
n = base
while True:
    batch.load(
        [packet[:34] + (k & 0xFFFF).to_bytes(2, "big") + (k >> 16).to_bytes(2, "big") + packet[38:]
         for k in range(n, n + 256)], n * 1000 * 1000 * 1000 // 1000)
    chain.run()
    n += 256
"""


def test_no_flow_is_lost_or_doubled_when_its_worker_is_killed(tmp_path: Path) -> None:
    """Killed as soon as so many records were written, which may be at any instruction."""
    stage = FlowMeter("x", n_flows=4096, idle_s=1)
    assert stage.recording is not None
    ring = BlockRing(stage.recording.ring_bytes)
    table = shared_memory("flows", table_bytes(stage.options))
    counts_fd = shared_memory("counts", 4096)
    counts = memoryview(mmap.mmap(counts_fd, 4096)).cast("Q")
    infos = Chain([Headers(), stage], Batch(mmap.mmap(-1, MIB), 8)).infos
    metered_at = infos[0].n_counts + OWN
    size = record_bytes(stage.options)
    ports: Counter[int] = Counter()

    def take() -> int:
        position = ring.position
        data, n = ring.peek_records(position.consumer, size, 1 << 62)
        for row in rows(_records(data, stage), stage.options):
            assert row["packetDeltaCount"] == 1
            ports[row["sourceTransportPort"] | row["destinationTransportPort"] << 16] += 1
        ring.release(position._replace(consumer=position.consumer + n * size))
        return n

    n_kills = 12
    for kill in range(n_kills):
        before = ring.n_packets
        child = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, (
                ring.fd, ring.size, table, counts_fd, kill << 24)), quick(0).hex()],
            pass_fds=(ring.fd, table, counts_fd), cwd=Path(__file__).parents[2],
        )  # fmt: skip
        while ring.n_packets < before + 3000 + 37 * kill:
            assert child.poll() is None
            take()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        take()
    writer = BlockRing(ring.size, os.dup(ring.fd))
    writer.attach()
    left = FlowTable(stage.options, writer, table)
    assert left.n_adopted == left.n_now > 500
    while left.finish(1000):
        take()
    take()
    assert max(ports.values()) == 1
    assert counts[metered_at] <= len(ports) <= counts[metered_at] + n_kills
    for each in (ring, writer):
        each.close()
    for fd in (table, counts_fd):
        os.close(fd)


def _records(data: memoryview, stage: FlowMeter) -> Any:
    return np.frombuffer(bytes(data), record_dtype(stage.options))
