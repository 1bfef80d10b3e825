"""FlowMeter and nfstream over a capture file: the flows, and the time that all of it takes.

CPU time of this process and of those that it started, since nfstream meters in one of its own.
"""

import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packets import again

HERE = Path(__file__).resolve().parent
CAPTURE = HERE.parent / "build" / "bench" / "flows.pcap"
PACKETS = 100_000
"""So many that the start of nfstream's processes hardly shows."""


def write_capture(packets: list[bytes]) -> int:
    """Write the packets again and again, each time between other hosts; return how many.

    A microsecond lies between two packets, so that no flow times out.
    """
    CAPTURE.parent.mkdir(parents=True, exist_ok=True)
    with CAPTURE.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
        for n in range(PACKETS):
            turn, place = divmod(n, len(packets))
            packet = again(packets[place], turn)
            stamp = struct.pack("<IIII", 1_700_000_000, n, len(packet), len(packet))
            file.write(stamp + packet)
    return PACKETS


@contextmanager
def quiet() -> Iterator[None]:
    """What nfstream's processes print is no result."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended; seconds."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def nfstream() -> dict[str, float]:
    """Return what nfstream makes of the capture: ns (per packet), flows, packets, bytes (of IP).

    Without dissection, statistics and a look into tunnels, with one process that meters.
    """
    from nfstream import NFStreamer

    began = cpu_s()
    flows = packets = n_bytes = 0
    with quiet():
        for flow in NFStreamer(
            source=str(CAPTURE), n_dissections=0, statistical_analysis=False, n_meters=1,
            decode_tunnels=False, accounting_mode=1,
        ):  # fmt: skip
            flows += 1
            packets += flow.bidirectional_packets
            n_bytes += flow.bidirectional_bytes
    ns = (cpu_s() - began) * 1e9
    return {"ns": ns / packets, "flows": flows, "packets": packets, "bytes": n_bytes}


def flow_meter() -> dict[str, float]:
    """Return the same of FlowMeter, behind Headers; TCP ends no flow, as with nfstream."""
    from xdpipe.chain import Chain
    from xdpipe.check import CaptureBatches
    from xdpipe.stages import FlowMeter, Headers

    began = cpu_s()
    meter = FlowMeter(n_flows=1 << 16, idle_s=120, active_s=1800, linger_s=None)
    batches = CaptureBatches(CAPTURE, 512)
    chain = Chain([Headers(), meter], batches.batch)
    found = []
    for _ in batches:
        chain.run()
        found.append(meter.take())
    found += meter.finish()
    batches.close()
    totals = {
        "flows": sum(len(records) for records in found),
        "packets": sum(int(records["packets"].sum()) for records in found),
        "bytes": sum(int(records["bytes"].sum()) for records in found),
    }
    return {"ns": (cpu_s() - began) * 1e9 / totals["packets"], **totals}
