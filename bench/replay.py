"""Sending a capture over a veth, beside tcpreplay and trafgen, counted at the other end.

The other end drops by a native XDP program, so that its work, which the sender's core does, is as
little as can be; its interface counts what came. Each contestant has core 0 and sends one capture
again and again; two looks at the count, so many seconds apart, make the rate: starting up is not in
it. Sizes are those of frames with FCS, as the field says them: 64, IMIX (7 of 64, 4 of 594, 1 of
1518) and 1400 bytes.

For the pace a capture of random gaps is sent at its own times, and arrivals are taken by the
kernel's stamps at the other end. The error is how far each is from where it should be, seen from
their median.
"""

import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import harness
import numpy as np

from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_program import Program
from xdpipe.capture import CaptureWriter
from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd, veth_pair

SIZES = {"64": [60], "imix": [60] * 7 + [590] * 4 + [1514], "1400": [1396]}
N_PACKETS, N_FLOWS = 12_000, 1000
AIMS = {("live", "64"): "≥ 8", ("live", "1400"): "≥ 3", ("xdp", "64"): "≥ 1.5"}
ENGINES = ("live", "xdp", "socket")
DROP = bytes.fromhex("b700000001000000 9500000000000000")  # r0 = XDP_DROP; exit
LARGE = 4_000_000_000  # bytes of a capture that is not to be in memory
MEMORY_MIB = 256
PACED_S, MEAN_GAP_S = 4.0, 0.001
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
Start = Callable[["Path"], list[str]]


def packets(size: str) -> Iterator[bytes]:
    """Yield the packets of a capture: UDP of many flows, none like another."""
    for i in range(N_PACKETS):
        n = SIZES[size][i % len(SIZES[size])]
        flow = i % N_FLOWS
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, n - 14, i & 0xFFFF, 0, 64, 17, 0,
                         0x0A020000 + flow, 0x0A090001)  # fmt: skip
        udp = struct.pack(">HHHHI", 1024 + flow, 9, n - 34, 0, i)
        ethernet = bytes.fromhex("0200000000010200000000020800")
        yield (ethernet + ip + udp).ljust(n, b"\0")


def trafgen_config(size: str) -> str:
    """Return the same packets in trafgen's language."""
    return "\n".join(
        "{ " + ", ".join(f"0x{byte:02x}" for byte in packet) + " }" for packet in packets(size)
    )


class Wire:
    """A veth pair whose other end drops and counts."""

    def __init__(self, *, drops: bool = True) -> None:
        self.host, self.client = Namespace(), Namespace()
        veth_pair(VethEnd("h0", self.host), VethEnd("c0", self.client), n_queues=1)
        if drops:
            with Program.load(DROP, "drop") as program, self.host:
                self._link = XdpLink(program, Link.find("h0").index, "h0", "native")

    def arrived(self) -> int:
        shown = self.host.run(
            ["ip", "-json", "-s", "link", "show", "h0"], stdout=subprocess.PIPE
        ).stdout
        return int(json.loads(shown)[0]["stats64"]["rx"]["packets"])

    def close(self) -> None:
        self.host.close()
        self.client.close()


@contextmanager
def sending(wire: Wire, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    with wire.client.popen(
        ["taskset", "--cpu-list", "0", *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def xdpipe(engine: str, *args: str) -> Start:
    return lambda capture: [
        sys.executable, "-P", "-m", "xdpipe", "replay", str(capture), "--dev", "c0",
        "--engine", engine, *args,
    ]  # fmt: skip


def rate(wire: Wire, command: list[str], seconds: float) -> dict[str, float]:
    with sending(wire, command) as process:
        before = wire.arrived()
        while wire.arrived() - before < N_PACKETS:
            if process.poll() is not None:
                harness.fail(f"{command[0]} ended with {process.returncode}")
            time.sleep(0.05)
        waited = harness.waited(process.pid)
        first, start = wire.arrived(), time.perf_counter()
        time.sleep(seconds)
        last, end = wire.arrived(), time.perf_counter()
        waited = harness.waited(process.pid) - waited
    return {"pps": (last - first) / (end - start), "waited": waited / (end - start)}


def measure_rate(start: Start, capture: Path, seconds: float) -> dict[str, float]:
    wire = Wire()
    try:
        return rate(wire, start(capture), seconds)
    finally:
        wire.close()


def paced_capture(path: Path) -> np.ndarray:
    """Write packets of random gaps; return their times, nanoseconds."""
    rng = np.random.default_rng(1)
    n = int(PACED_S / MEAN_GAP_S)
    times = np.cumsum(rng.exponential(MEAN_GAP_S * 1e9, n)).astype(np.int64)
    times -= times[0]
    times = times // 1000 * 1000  # tcpreplay reads microseconds
    with CaptureWriter(path) as writer:
        for i, at in enumerate(times.tolist()):
            writer.write(10**18 + at, bytes.fromhex("02" * 12 + "88b5") + struct.pack(">I", i) * 12)
    return times


def measure_pace(start: Start, capture: Path, times: np.ndarray) -> dict[str, float]:
    wire = Wire(drops=False)
    try:
        with wire.host.call(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        ) as sock:
            sock.bind(("h0", 0x88B5))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.settimeout(10)
            stamps = []
            with sending(wire, start(capture)) as process:
                for _ in times:
                    _, ((_, _, stamp),), _, _ = sock.recvmsg(2048, 64)
                    seconds, nanoseconds = struct.unpack("qq", stamp)
                    stamps.append(seconds * 10**9 + nanoseconds)
                waited = harness.waited(process.pid)
    finally:
        wire.close()
    late = np.array(stamps) - stamps[0] - times
    error = np.abs(late - np.median(late)) / 1000
    return {
        "p50": float(np.percentile(error, 50)), "p99": float(np.percentile(error, 99)),
        "pace_waited": waited,
    }  # fmt: skip


def large_capture(path: Path) -> int:
    """Write a capture of some 4 GB; return how many packets it has."""
    record = b"".join(
        struct.pack("<IIII", 0, i, len(packet), len(packet)) + packet
        for i, packet in enumerate(packets("1400"))
    )
    times = LARGE // len(record)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for _ in range(times):
            file.write(record)
    return times * N_PACKETS


def peak_memory(engine: str, capture: Path, n: int) -> float:
    """Stream a capture; return the most memory that the sender had, MiB."""
    wire = Wire()
    try:
        process = wire.client.popen(
            [*xdpipe(engine, "--top-speed", "--json")(capture)], stdout=subprocess.PIPE
        )
        peak = 0
        while process.poll() is None:  # getrusage(2) would tell of who started it, too
            status = Path(f"/proc/{process.pid}/status").read_text()
            lines = dict(line.split(":", 1) for line in status.splitlines())
            peak = max(peak, int(lines.get("VmHWM", "0 kB").split()[0]))
            time.sleep(0.02)
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
    finally:
        wire.close()
    if told["sent"] + told["refused"] != n:
        harness.fail(f"{engine}: {told['sent']} sent and {told['refused']} refused of {n}")
    return peak / 1024


def contestants(directory: Path, seconds: float) -> dict[str, harness.Measure]:
    found: dict[str, harness.Measure] = {}
    for size in SIZES:
        capture, config = directory / f"{size}.pcap", directory / f"{size}.cfg"
        with CaptureWriter(capture) as writer:
            for i, packet in enumerate(packets(size)):
                writer.write(10**18 + 1000 * i, packet)
        config.write_text(trafgen_config(size))
        starts: dict[str, Start] = {
            engine: xdpipe(engine, "--top-speed", "--loop", "0") for engine in ENGINES
        }
        starts["tcpreplay"] = lambda path: [
            "tcpreplay", "--topspeed", "--preload-pcap", "--loop=0", "--intf1=c0", str(path)
        ]  # fmt: skip
        starts["trafgen"] = lambda path: [
            "trafgen", "--in", str(path.with_suffix(".cfg")), "--out", "c0", "--cpus", "1",
            "--num", "0", "--qdisc-path",
        ]  # fmt: skip
        for name, start in starts.items():
            found[f"{name} {size}"] = lambda start=start, capture=capture: measure_rate(
                start, capture, seconds
            )
    paced = directory / "paced.pcap"
    times = paced_capture(paced)
    own = {f"pace {engine}": xdpipe(engine) for engine in ("xdp", "socket")}
    own["pace tcpreplay"] = lambda path: ["tcpreplay", "--intf1=c0", str(path)]
    for name, start in own.items():
        found[name] = lambda start=start: measure_pace(start, paced, times)
    return found


def main() -> None:
    given = harness.options(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as directory:
        results = harness.alternate(
            contestants(Path(directory), given.seconds), given.rounds,
            harness.Console(stderr=True),
        )  # fmt: skip
        large = Path(directory) / "large.pcap"
        n_large = large_capture(large)
        memory = {engine: peak_memory(engine, large, n_large) for engine in ENGINES}
    rows = []
    for size in SIZES:
        for engine in ENGINES:
            for peer in ("tcpreplay", "trafgen"):
                aim = AIMS.get((engine, size), "") if peer == "tcpreplay" else ""
                rows.append(harness.compare(
                    f"{engine} {size}", "pkt/s", harness.series(results[f"{engine} {size}"], "pps"),
                    peer, harness.series(results[f"{peer} {size}"], "pps"), aim,
                ))  # fmt: skip
    for engine in ("xdp", "socket"):
        for part in ("p50", "p99"):
            rows.append(harness.compare(
                f"pace error {part} {engine}", "us",
                harness.series(results[f"pace {engine}"], part), "tcpreplay",
                harness.series(results["pace tcpreplay"], part), "≤ 0.5" if part == "p99" else "",
            ))  # fmt: skip
    rows += [
        harness.alone(f"peak memory, 4 GB {engine}", "MiB", [mib], f"≤ {MEMORY_MIB}")
        for engine, mib in memory.items()
    ]
    facts = {"driver": "veth", "mode": "copy, live frames, packet socket", "queues": "1"}
    facts["disturbance"] = harness.disturbance(results)
    harness.report("replay", rows, facts, given)


if __name__ == "__main__":
    main()
