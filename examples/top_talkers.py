"""Show the flows that carry the most bytes; both directions of a flow count as one.

xdpipe check examples/top_talkers.py --pcap traffic.pcap
sudo xdpipe run examples/top_talkers.py --dev mirror0
"""

from ipaddress import ip_address

import numpy as np

from xdpipe import DROP, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers

SHOWN = 10
SLOTS = 1 << 16  # flows told apart; where two share a slot, the one that came first names it


class TopTalkers(Stage):
    """Sum packets and bytes per flow, in memory that does not grow."""

    requires = ("flow_hash", "src", "dst", "l4_sport", "l4_dport", "ip_proto")
    counters = ("flows",)

    def __init__(self) -> None:
        self.n_packets = np.zeros(SLOTS, np.int64)
        self.n_bytes = np.zeros(SLOTS, np.int64)
        self.ends = np.zeros((SLOTS, 37), np.uint8)  # src 16, dst 16, sport 2, dport 2, proto 1

    def process(self, batch: Batch) -> None:
        slots, first, inverse = np.unique(
            batch.flow_hash % SLOTS, return_index=True, return_inverse=True
        )
        new = self.n_packets[slots] == 0
        for slot, i in zip(slots[new], first[new], strict=True):  # once per flow, not per packet
            ports = np.array([batch.l4_sport[i], batch.l4_dport[i]], ">u2").view(np.uint8)
            self.ends[slot] = np.hstack([batch.src[i], batch.dst[i], ports, batch.ip_proto[i]])
        self.n_packets[slots] += np.bincount(inverse)
        self.n_bytes[slots] += np.bincount(inverse, batch.len).astype(np.int64)
        self.count("flows", np.count_nonzero(new))

    def report(self) -> dict[str, list[str]]:
        order = np.argsort(self.n_bytes)[::-1][:SHOWN]
        return {"top": [self._line(slot) for slot in order if self.n_packets[slot]]}

    def _line(self, slot: int) -> str:
        end = self.ends[slot].tobytes()
        src, dst = (ip_address(end[i : i + 16]) for i in (0, 16))
        sport, dport = (int.from_bytes(end[i : i + 2], "big") for i in (32, 34))
        names = [
            f"[{getattr(a, 'ipv4_mapped', None) or a}]:{p}" for a, p in ((src, sport), (dst, dport))
        ]
        return (
            f"{self.n_bytes[slot]:>12,} bytes {self.n_packets[slot]:>9,} packets  "
            f"{names[0]} - {names[1]} protocol {end[36]}"
        )


pipeline = Pipeline(steering=Steering(""), stages=[Headers(), TopTalkers()], default=DROP)
