"""Packets with stamps, and a plain model of what a receiver is to say of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from crafted import batch_of, udp
from hosts import CLIENT4, HOST4
from xdpipe.batch import Batch
from xdpipe.capture import CaptureWriter
from xdpipe.traffic import probe

RUN = 0x1234
NOW = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Stamp:
    """What a packet says, and when it arrives; ns."""

    number: int
    sent: int = NOW
    came: int = NOW
    stream: int = 0
    run: int = RUN
    size: int = 18


@cache
def _template(run: int, size: int) -> tuple[bytes, int]:
    batch = batch_of([udp(CLIENT4, HOST4, dport=9, size=size)])
    (at,) = probe.place(batch, run)
    return bytes(batch.packet(0)), int(at)


def stamped_packet(stamp: Stamp) -> bytes:
    """Return a UDP packet with this stamp."""
    template, at = _template(stamp.run, stamp.size)
    packet = bytearray(template)
    probe.write(packet, at, stamp.stream, stamp.number, stamp.sent)
    return bytes(packet)


def stamped(stamps: Sequence[Stamp]) -> Batch:
    """Return a batch of such packets, their headers parsed."""
    return batch_of([stamped_packet(s) for s in stamps], [s.came for s in stamps])


def stamped_capture(path: Path, stamps: Sequence[Stamp]) -> Path:
    """Write such packets to a capture."""
    with CaptureWriter(path) as writer:
        for stamp in stamps:
            writer.write(stamp.came, stamped_packet(stamp))
    return path


@dataclass
class Model:
    """What RFC 4737 says of numbers as they arrive, by looking at all that arrived before."""

    window: int
    arrived: list[int] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    extents: list[int] = field(default_factory=list)

    def arrive(self, number: int) -> None:
        """Take the next number that arrives."""
        highest = max(self.arrived, default=number - 1)
        if number > highest:
            self.outcomes.append("in_order")
            self.arrived.append(number)
        elif highest + 1 - number > self.window:
            self.outcomes.append("too_late")
        elif number in self.arrived:
            self.outcomes.append("duplicates")
        else:
            self.outcomes.append("reordered")
            first_above = next(j for j, other in enumerate(self.arrived) if other > number)
            self.extents.append(len(self.arrived) - first_above)
            self.arrived.append(number)

    @property
    def gaps(self) -> int:
        """Numbers between the lowest and the highest that did not arrive."""
        if not self.arrived:
            return 0
        return max(self.arrived) - min(self.arrived) + 1 - len(self.arrived)
