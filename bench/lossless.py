"""How many packets/s a capture takes without losing one: dumpcap, a stage Record, xdpipe tap.

All that a contestant runs has core 1 to itself, and 64 MiB of memory for packets that wait; the
generator has core 0. A trial loses nothing if all that was sent is in the file.
"""

import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import fail
from running import RunningPipeline
from wire import Wire

BUFFER_MIB = 64
FRAMES = ("--frames", "16384")  # the worker shares its core with who writes
CORE = ["taskset", "--cpu-list", "1"]
STEPS = 5  # of halving: the rate is known to 1/32 of what is sent at the most
AGAIN = 2  # trials at a rate that loses, before it counts as one

RECORD = """
from xdpipe import DROP, Pipeline, Steering
from xdpipe.stages import Record

pipeline = Pipeline(Steering("udp"), [Record({directory!r}, buffer_mib={buffer})], default=DROP)
"""

Captured = Callable[[], int]


@contextmanager
def recording(wire: Wire, directory: Path) -> Iterator[Captured]:
    file = directory / "record.py"
    captures = directory / "captures"
    file.write_text(RECORD.format(directory=str(captures), buffer=BUFFER_MIB))
    running = RunningPipeline(wire.host, file, within="1", more=FRAMES)
    running.wait_ready()

    def captured() -> int:
        final = running.end()
        if final["ledger"]["residual"]:
            fail(f"residual {final['ledger']['residual']}")
        return sum(each["packets"] for each in final["recordings"])

    yield captured


@contextmanager
def tapping(wire: Wire, directory: Path) -> Iterator[Captured]:
    running = RunningPipeline(wire.host, "empty", within="1", more=FRAMES)
    running.wait_ready()
    tap = wire.host.popen(
        [*CORE, sys.executable, "-P", "-m", "xdpipe", "tap", "h0", "--json",
         "-w", str(directory / "tap.pcapng"), "--buffer-mib", str(BUFFER_MIB)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    running.wait(lambda: bool((running.status() or {"taps": []})["taps"]))

    def captured() -> int:
        time.sleep(0.1)  # it looks 50 times a second
        tap.send_signal(signal.SIGINT)
        told = json.loads(tap.communicate(timeout=60)[0])
        running.end()
        return int(told["packets"])

    yield captured


@contextmanager
def dumpcap(wire: Wire, directory: Path) -> Iterator[Captured]:
    # without a program, a veth takes live frames only while GRO has it poll (veth_xdp_xmit)
    wire.host.run(["ethtool", "-K", "h0", "gro", "on"])
    popen = wire.host.popen(
        [*CORE, "dumpcap", "-q", "-i", "h0", "-f", "udp port 9", "-B", str(BUFFER_MIB),
         "-w", str(directory / "dumpcap.pcapng")],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert popen.stderr is not None
    while "File: " not in popen.stderr.readline():
        if popen.poll() is not None:
            fail("dumpcap ended before it captured")

    def captured() -> int:
        time.sleep(0.5)  # of the kernel's block that is not full yet, dumpcap learns by then
        popen.send_signal(signal.SIGINT)
        told = popen.communicate(timeout=60)[1]
        found = re.search(r"Packets captured: (\d+)", told)
        if found is None:
            fail(f"dumpcap says: {told}")
        return int(found[1])

    yield captured


CONTESTANTS = {"record": recording, "tap": tapping, "dumpcap": dumpcap}


def trial(name: str, seconds: float, pps: float) -> tuple[float, bool]:
    """Return how many packets/s were sent, and whether all were captured."""
    wire = Wire()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        with CONTESTANTS[name](wire, Path(place)) as captured:
            sent = wire.generate(seconds, pps)
            lost = sent["sent"] - captured()
    wire.close()
    return sent["sent"] / sent["seconds"], lost == 0


def measure_lossless(name: str, seconds: float) -> dict[str, float]:
    """Return the highest rate found at which nothing is lost, by halving."""
    low, high = 0.0, math.inf
    for _ in range(STEPS + 1):
        pps = (low + high) / 2
        for _ in range(AGAIN):
            rate, whole = trial(name, seconds, pps)
            if whole:
                break
        if whole:
            low = rate
            if math.isinf(pps):
                break
        else:
            high = min(rate, pps)
    return {"pps": low}
