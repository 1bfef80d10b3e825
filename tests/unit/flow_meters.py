"""A FlowMeter behind Headers, packets at times of one's own, and what it tells of them."""

import mmap
from collections.abc import Iterable
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.core._core import lib
from xdpipe.flow_records import rows
from xdpipe.stages import FlowMeter, Headers

ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
S = 1_000_000_000
A, B = "10.1.0.2", "10.1.0.1"


def udp(src: str = A, dst: str = B, sport: int = 5000, dport: int = 53, size: int = 10) -> Packet:
    return ETHER / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / bytes(size)


def tcp(flags: str, *, back: bool = False, sport: int = 5000, size: int = 0) -> Packet:
    ends, ports = ((A, B), (sport, 80)) if not back else ((B, A), (80, sport))
    segment = TCP(sport=ports[0], dport=ports[1], flags=flags)
    return ETHER / IP(src=ends[0], dst=ends[1]) / segment / bytes(size)


def tagged(*tags: Packet) -> bytes:
    """Return a packet behind these VLAN tags."""
    packet = ETHER.copy()
    for tag in tags:
        packet = packet / tag
    return bytes(packet / IP(src=A, dst=B) / UDP(sport=1, dport=2))


_QUICK = bytes(udp())


def quick(sport: int, dport: int = 53) -> bytes:
    """Return what `udp` makes of these ports, but for the checksum, a thousand times as fast."""
    return _QUICK[:34] + sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + _QUICK[38:]


class Meter:
    """A chain of Headers and FlowMeter with nothing to write to."""

    def __init__(self, **options: Any) -> None:
        self.stage = FlowMeter(**options)
        self.batch = Batch(mmap.mmap(-1, 1 << 20), 256)
        self.chain = Chain([Headers(), self.stage], self.batch)

    def sees(self, *timed: tuple[int, Packet | bytes]) -> None:
        """Have one batch come by, of packets at times (ns)."""
        self.batch.load([bytes(packet) for _, packet in timed])
        with self.batch._unlocked():
            self.batch._columns["time_ns"][: len(timed)] = [time for time, _ in timed]
        self.chain.run()

    def sees_each(self, timed: Iterable[tuple[int, Packet | bytes]]) -> None:
        """Have packets come by, a batch each."""
        for each in timed:
            self.sees(each)

    def idles(self, now_ns: int) -> None:
        """Have no packet come until now."""
        lib.xp_batch_none(self.batch.c, now_ns)
        lib.xp_run_stages(self.batch.c, self.stage.entry, 1)

    def told(self) -> list[dict[str, Any]]:
        """Return what waits to be written."""
        return rows(self.stage.take(), self.stage.options)

    def finish(self) -> list[dict[str, Any]]:
        """Return what is told at the end."""
        return [row for some in self.stage.finish() for row in rows(some, self.stage.options)]

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.chain.read_counts()[1]["counters"])


def exchange(reasons: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """Return of each record: packets there, packets back, end reason."""
    return [
        (row["packetDeltaCount"], row["reversePacketDeltaCount"], row["flowEndReason"])
        for row in reasons
    ]
