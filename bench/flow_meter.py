"""FlowMeter beside nfstream (n_dissections=0): CPU time for each packet, from one capture file.

Both read the same file, from memory, by libpcap, and end with a record of each flow in Python;
their flows, packets and bytes must be the same. nfstream meters in a process and hands flows to
another: the time of both counts, as does all of xdpipe's. Also: what the stage itself takes, on
packets that lie in memory, in batches of 256.
"""

import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import numpy as np
from rich.console import Console

from xdpipe.batch import Batch
from xdpipe.core._core import lib
from xdpipe.stages import FlowMeter, Headers

TRAFFIC = {"1,000 flows": (1_000_000, 1_000), "200,000 flows": (1_000_000, 200_000)}
"""Packets and flows, at random."""
LENGTH = 60
HEADERS = bytes.fromhex(
    "020000000001 020000000002 0800 4500 002e 0000 4000 4011 0000 0a000000 0aff0001"
    "1234 0035 001a 0000"
)
BATCH = 256

XDPIPE = """
import json, sys
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.stages import FlowMeter, Headers

meter = FlowMeter(n_flows=1 << 18, idle_s=120, active_s=1800)
batches = CaptureBatches(sys.argv[1], 512)
chain = Chain([Headers(), meter], batches.batch)
found = []
for _ in batches:
    chain.run()
    found.append(meter.take())
found += meter.finish()
print(json.dumps([int(sum(len(r) for r in found)), int(sum(r["packets"].sum() for r in found)),
                  int(sum(r["bytes"].sum() for r in found))]))
"""
NFSTREAM = """
import json, sys
from nfstream import NFStreamer

n = packets = size = 0
for flow in NFStreamer(source=sys.argv[1], n_dissections=0, accounting_mode=1, n_meters=1,
                       statistical_analysis=False, idle_timeout=120, active_timeout=1800):
    n, packets, size = n + 1, packets + flow.bidirectional_packets, size + flow.bidirectional_bytes
print(json.dumps([n, packets, size]))
"""


def packets(n: int, n_flows: int) -> np.ndarray:
    """Return UDP packets of flows at random, uint8[n, LENGTH]; a flow is a source address."""
    flow = np.random.default_rng(1).integers(0, n_flows, n)
    out = np.zeros((n, LENGTH), np.uint8)
    out[:, : len(HEADERS)] = np.frombuffer(HEADERS, np.uint8)
    out[:, 26:30] = (0x0A000000 + flow).astype(">u4").view(np.uint8).reshape(-1, 4)
    return out


def write(path: Path, data: np.ndarray) -> None:
    """Write a pcap of packets, ten microseconds apart."""
    n = len(data)
    at = np.arange(n, dtype=np.uint32) * 10
    heads = np.empty((n, 4), "<u4")
    heads[:, 0], heads[:, 1] = 1_700_000_000 + at // 1_000_000, at % 1_000_000
    heads[:, 2:] = LENGTH
    start = np.array([0xA1B2C3D4, 4 << 16 | 2, 0, 0, 65535, 1], "<u4")
    path.write_bytes(start.tobytes() + np.hstack([heads.view(np.uint8), data]).tobytes())


def used() -> float:
    """Return the CPU time of all children that have ended; seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(script: str, path: Path, n: int) -> dict[str, float]:
    """Run it on the capture, and on one packet of it, which is what starting costs."""
    totals = []
    cost = []
    for file in (path.with_suffix(".one"), path):
        before = used()
        done = subprocess.run(
            [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            harness.fail(done.stderr.strip().splitlines()[-1])
        cost.append(used() - before)
        totals.append(json.loads(done.stdout))
    told = dict(zip(("flows", "packets", "bytes"), totals[1], strict=True))
    return {"ns": (cost[1] - cost[0]) / n * 1e9, **told}


def measure_stage(n_flows: int, table: int) -> dict[str, float]:
    """Take the time of each stage by itself, over a million packets, the second time round."""
    data = np.zeros((1 << 20, 64), np.uint8)
    data[:, :LENGTH] = packets(1 << 20, n_flows)
    memory = mmap.mmap(-1, data.nbytes)
    memory.write(data.tobytes())
    batch = Batch(memory, BATCH)
    batch.place([0] * BATCH, [LENGTH] * BATCH)
    headers, meter = Headers(), FlowMeter(n_flows=table)
    counts = [memoryview(bytearray(8 * 64)).cast("Q") for _ in range(2)]
    for stage, count in zip((headers, meter), counts, strict=True):
        stage.bind(count)
    times: list[int] = []
    with batch._unlocked():
        columns = batch._columns
        for round_ in range(2):
            for first in range(0, len(data), BATCH):
                columns["addr"][:] = np.arange(first, first + BATCH) * 64
                columns["time_ns"][:] += 20_000
                before = counts[1][1]
                lib.xp_run_stages(batch.c, headers.entry, 1)
                lib.xp_run_stages(batch.c, meter.entry, 1)
                if round_:
                    times.append(counts[1][1] - before)
    return {"ns": float(np.median(times)) / BATCH}


def main() -> None:
    given = harness.options(__doc__)
    rows = []
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as place:
        contestants: dict[str, Callable[[], dict[str, float]]] = {}
        for name, (n, n_flows) in TRAFFIC.items():
            path = Path(place) / f"{n_flows}.pcap"
            write(path, packets(n, n_flows))
            write(path.with_suffix(".one"), packets(1, 1))
            contestants[f"xdpipe {name}"] = partial(measure, XDPIPE, path, n)
            contestants[f"nfstream {name}"] = partial(measure, NFSTREAM, path, n)
        for n_flows, table in ((16, 1 << 16), (60_000, 1 << 16), (1 << 20, 1 << 20)):
            contestants[f"stage {n_flows:,} flows"] = partial(measure_stage, n_flows, table)
        results = harness.alternate(contestants, given.rounds, Console(stderr=True))
    for name in TRAFFIC:
        ours, theirs = results[f"xdpipe {name}"], results[f"nfstream {name}"]
        for a, b in zip(ours, theirs, strict=True):
            if any(a[key] != b[key] for key in ("flows", "packets", "bytes")):
                harness.fail(f"{name}: xdpipe says {a}, nfstream {b}")
        faster = [b["ns"] / a["ns"] for a, b in zip(ours, theirs, strict=True)]
        ns = [harness.series(each, "ns") for each in (ours, theirs)]
        rows.append(harness.alone(f"{name}, from a file", "ns/packet", ns[0]))
        rows.append(harness.alone(f"{name}, nfstream", "ns/packet", ns[1]))
        rows.append(harness.alone(f"{name}, times faster", "", faster, "≥ 10"))
    for name, each in results.items():
        if name.startswith("stage"):
            rows.append(harness.alone(f"the {name}", "ns/packet", harness.series(each, "ns")))
    harness.report("flow_meter", rows, {"batch": str(BATCH)}, given)


if __name__ == "__main__":
    main()
