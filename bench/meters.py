"""nfstream over a capture file, as FlowMeter does it: the flows, and how long it takes."""

import os
import struct
import time
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


def nfstream() -> dict[str, float]:
    """Return what nfstream makes of the capture: ns (per packet, by the clock), flows, packets.

    Without dissection, statistics and a look into tunnels, with one process that meters.
    """
    from nfstream import NFStreamer

    began = time.perf_counter_ns()
    flows = packets = n_bytes = 0
    with quiet():
        for flow in NFStreamer(
            source=str(CAPTURE), n_dissections=0, statistical_analysis=False, n_meters=1,
            decode_tunnels=False,
        ):  # fmt: skip
            flows += 1
            packets += flow.bidirectional_packets
            n_bytes += flow.bidirectional_bytes
    ns = time.perf_counter_ns() - began
    return {"ns": ns / packets, "flows": flows, "packets": packets, "bytes": n_bytes}
