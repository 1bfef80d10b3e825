"""What became of the packets of a run: counts, latencies, and how they went over time."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from xdpipe.log_bins import first_of, percentile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

PERCENTILES = (50, 90, 99, 99.9, 99.99)
_NEVER = (1 << 64) - 1
_N_SLOT_VALUES = 4
_TICKS = 8
"""Points of the curve of percentiles for each halving of what is above."""


@dataclass
class StreamCounts:
    """What came of one stream, which counts its packets from 0 on.

    Attributes:
        next: one more than the highest number that came.
        lowest: the lowest number that came.
        in_order: packets with a higher number than all before.
        reordered: packets with a lower one, the first time that they came (RFC 4737, 3.3).
        duplicates: packets that had come before.
        too_late: packets so late that nobody knows whether they had.
        extent_sum: of all reordered ones, by how many packets they were late (RFC 4737, 4.2.2).
        extent_max: by how many the latest was.
    """

    next: int
    lowest: int
    in_order: int = 0
    reordered: int = 0
    duplicates: int = 0
    too_late: int = 0
    extent_sum: int = 0
    extent_max: int = 0

    @property
    def packets(self) -> int:
        """Packets that came, each once."""
        return self.in_order + self.reordered

    def add(self, other: Self) -> None:
        """Add what came by another queue."""
        highest, lowest = max(self.next, other.next), min(self.lowest, other.lowest)
        extent_max = max(self.extent_max, other.extent_max)
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        self.next, self.lowest, self.extent_max = highest, lowest, extent_max


@dataclass
class Measurement:
    """What became of the packets of a run, which came by one queue or by several.

    Attributes:
        run: its number.
        sub_bits: of the bins, see xdpipe.log_bins.
        bins: uint64, how many latencies (ns) are in each.
        packets: that came, each once.
        bytes: of them.
        early: of them, how many had not been stamped yet by the clock here: clocks differ. They
            have no latency.
        first_ns: when the first came; CLOCK_REALTIME.
        last_ns: when the last one did.
        latency_sum: ns.
        least: latency, ns.
        greatest: latency, ns.
        slot_shift: slots of time are 2 ** slot_shift ns wide.
        slot_base: number of the first one, counted from the clock's 0.
        slots: uint64 of shape (n, 4): packets, bytes, sum of latencies, greatest latency; ns.
        streams: what came of each stream, by its number.
        sent: packets that were sent with a stamp, if that is known.
        receiver_dropped: packets, of any kind, that were lost where they arrived, before they were
            looked at: the receiver was too slow, and what it measured is its own loss.
    """

    run: int
    sub_bits: int
    bins: NDArray[np.uint64]
    packets: int = 0
    bytes: int = 0
    early: int = 0
    first_ns: int = 0
    last_ns: int = 0
    latency_sum: int = 0
    least: int = _NEVER
    greatest: int = 0
    slot_shift: int = 0
    slot_base: int = 0
    slots: NDArray[np.uint64] = field(
        default_factory=lambda: np.zeros((0, _N_SLOT_VALUES), np.uint64)
    )
    streams: dict[int, StreamCounts] = field(default_factory=dict)
    sent: int | None = None
    receiver_dropped: int = 0

    @classmethod
    def nothing(cls, run: int, sent: int | None = None) -> Self:
        """Return the measurement of a run of which nothing came."""
        return cls(run=run, sub_bits=0, bins=np.zeros(0, np.uint64), sent=sent)

    # Counts

    def _sum(self, name: str) -> int:
        return sum(getattr(stream, name) for stream in self.streams.values())

    @property
    def gaps(self) -> int:
        """Numbers between the lowest and the highest of each stream that did not come."""
        return sum(each.next - each.lowest - each.packets for each in self.streams.values())

    @property
    def lost(self) -> int:
        """Packets that were sent and did not come; where nobody says how many were, the gaps.

        What was lost before the first one that came, and behind the last one, is in no gap.
        """
        return self.gaps if self.sent is None else max(self.sent - self.packets, 0)

    @property
    def lost_share(self) -> float:
        """What of the packets was lost, 0 to 1."""
        whole = self.packets + self.lost
        return self.lost / whole if whole else 0.0

    @property
    def seconds(self) -> float:
        """From the first packet that came to the last one."""
        return max(self.last_ns - self.first_ns, 0) / 1e9

    @property
    def pps(self) -> float:
        """Packets a second between the first and the last one that came."""
        return (self.packets - 1) / self.seconds if self.seconds and self.packets > 1 else 0.0

    @property
    def bits_per_s(self) -> float:
        """Bits a second in Ethernet frames, without their checksum, gap and preamble."""
        return 8 * self.bytes / self.packets * self.pps if self.packets else 0.0

    # Latencies

    @property
    def n_latencies(self) -> int:
        """How many packets have one."""
        return self.packets - self.early

    @property
    def mean_ns(self) -> float | None:
        """The mean latency; None: there are none."""
        return self.latency_sum / self.n_latencies if self.n_latencies else None

    def percentile_ns(self, percent: float) -> float | None:
        """Return the latency that `percent` of a hundred packets do not exceed; None: no packets.

        With the stage's default, three digits of it are right; that of 100 is exact.
        """
        if not self.n_latencies:
            return None
        if percent >= 100:
            return self.greatest
        return percentile(self.bins, self.sub_bits, percent, self.least, self.greatest)

    def percentile_curve(self) -> list[tuple[float, float]]:
        """Return percentiles and their latencies (ns), close together towards 100; [] for none.

        As HdrHistogram draws it: evenly many for each halving of what is above, up to where one
        packet is left.
        """
        n = self.n_latencies
        if not n:
            return []
        cumulative = np.cumsum(self.bins)
        curve = []
        step = 0
        while True:
            percent = 100 * (1 - 2 ** -(step / _TICKS))
            wanted = max(1, int(np.ceil(n * percent / 100)))
            index = int(np.searchsorted(cumulative, wanted))
            last = min(first_of(index + 1, self.sub_bits) - 1, self.greatest)
            curve.append((percent, float(max(last, self.least))))
            if 2 ** (step / _TICKS) > n:
                return [*curve, (100.0, float(self.greatest))]
            step += 1

    def latency_bins(self) -> list[tuple[int, int, int]]:
        """Return bins that are not empty: first value, the first behind it (ns), packets."""
        return [
            (first_of(k, self.sub_bits), first_of(k + 1, self.sub_bits), int(self.bins[k]))
            for k in np.flatnonzero(self.bins).tolist()
        ]

    # Over time

    @property
    def slot_s(self) -> float:
        """Seconds of a slot of time."""
        return (1 << self.slot_shift) / 1e9

    def used_slots(self) -> NDArray[np.uint64]:
        """Return the slots from the first to the last one that is not empty."""
        used = np.flatnonzero(self.slots[:, 0])
        return self.slots[used[0] : used[-1] + 1] if len(used) else self.slots[:0]

    def _widened(self, shift: int) -> tuple[int, NDArray[np.uint64]]:
        """Return base and slots of a width of 2 ** shift ns, which is no less than ours."""
        places = (self.slot_base + np.arange(len(self.slots))) >> (shift - self.slot_shift)
        base = self.slot_base >> (shift - self.slot_shift)
        n = int(places[-1]) - base + 1 if len(places) else 0
        wide = np.zeros((n, _N_SLOT_VALUES), np.uint64)
        np.add.at(wide[:, :3], places - base, self.slots[:, :3])
        np.maximum.at(wide[:, 3], places - base, self.slots[:, 3])
        return base, wide

    # Several queues

    def add(self, other: Measurement) -> None:
        """Add what came of the same run by another queue; it stays as it is."""
        if not other.packets and not other.streams:
            return
        if not self.packets and not self.streams:
            vars(self).update({**vars(other), "streams": {}, "sent": self.sent,
                               "receiver_dropped": self.receiver_dropped})  # fmt: skip
        else:
            self._add_slots(other)
            self.bins = self.bins + other.bins
            for name in ("packets", "bytes", "early", "latency_sum"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
            self.first_ns = min(self.first_ns, other.first_ns)
            self.last_ns = max(self.last_ns, other.last_ns)
            self.least = min(self.least, other.least)
            self.greatest = max(self.greatest, other.greatest)
        for number, counts in other.streams.items():
            if number in self.streams:
                self.streams[number].add(counts)
            else:
                self.streams[number] = StreamCounts(**asdict(counts))

    def _add_slots(self, other: Measurement) -> None:
        shift = max(self.slot_shift, other.slot_shift)
        mine, theirs = self._widened(shift), other._widened(shift)
        base = min(mine[0], theirs[0])
        end = max(first + len(slots) for first, slots in (mine, theirs))
        # clocks that were set in between could make this as long as years
        together = np.zeros((min(end - base, 1 << 20), _N_SLOT_VALUES), np.uint64)
        for first, slots in (mine, theirs):
            there = together[first - base : first - base + len(slots)]
            there[:, :3] += slots[: len(there), :3]
            np.maximum(there[:, 3], slots[: len(there), 3], out=there[:, 3])
        self.slot_shift, self.slot_base, self.slots = shift, base, together

    # Told

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table, latencies in us."""
        told = {
            "run": f"{self.run:#06x}",
            "packets": self.packets,
            "lost": self.lost,
            "duplicates": self._sum("duplicates"),
            "reordered": self._sum("reordered"),
            "too_late": self._sum("too_late"),
        }
        for percent in (50, 99, 99.9, 100):
            value = self.percentile_ns(percent)
            name = "max_us" if percent == 100 else f"p{percent:g}_us"
            told[name] = None if value is None else round(value / 1e3, 3)
        return told

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` shows of it; times in ns unless their names say otherwise."""
        reordered = self._sum("reordered")
        whole = self.packets + self._sum("duplicates")
        return {
            "run": f"{self.run:#06x}",
            "sent": self.sent,
            "received": self.packets,
            "received_bytes": self.bytes,
            "lost": self.lost,
            "lost_share": self.lost_share,
            "lost_by": "gaps" if self.sent is None else "sent",
            "duplicates": self._sum("duplicates"),
            "duplicates_share": self._sum("duplicates") / whole if whole else 0.0,
            "reordered": reordered,
            "reordered_share": reordered / self.packets if self.packets else 0.0,
            "reordered_extent_mean": self._sum("extent_sum") / reordered if reordered else 0.0,
            "reordered_extent_max": max(
                (each.extent_max for each in self.streams.values()), default=0
            ),
            "too_late": self._sum("too_late"),
            "receiver_dropped": self.receiver_dropped,
            "seconds": round(self.seconds, 9),
            "pps": round(self.pps, 1),
            "bits_per_s": round(self.bits_per_s),
            "latency": {
                "packets": self.n_latencies,
                "early": self.early,
                "min": self.least if self.n_latencies else None,
                "mean": None if self.mean_ns is None else round(self.mean_ns, 1),
                **{f"p{percent:g}": self.percentile_ns(percent) for percent in PERCENTILES},
                "max": self.greatest if self.n_latencies else None,
                "curve": [[round(p, 6), value] for p, value in self.percentile_curve()],
            },
            "streams": [
                {"stream": number, **asdict(each)} for number, each in sorted(self.streams.items())
            ],
        }


def merged(parts: Iterable[Measurement]) -> list[Measurement]:
    """Add up what several queues measured, run by run; the parts stay as they are.

    Returns:
        A measurement of each run, the one of which a packet came last first.
    """
    found: dict[int, Measurement] = {}
    for part in parts:
        found.setdefault(part.run, Measurement.nothing(part.run)).add(part)
    return sorted(found.values(), key=lambda one: one.last_ns, reverse=True)


_NUMBERS = (
    "run", "sub_bits", "packets", "bytes", "early", "first_ns", "last_ns", "latency_sum", "least",
    "greatest", "slot_shift", "slot_base",
)  # fmt: skip


def packed(measurement: Measurement) -> str:
    """Return a measurement as short text, for a message between processes."""
    places = np.flatnonzero(measurement.bins)
    used = np.flatnonzero(measurement.slots[:, 0])
    slots = measurement.slots[: used[-1] + 1] if len(used) else measurement.slots[:0]
    told = {
        **{name: getattr(measurement, name) for name in _NUMBERS},
        "n_bins": len(measurement.bins),
        "bins": [places.tolist(), measurement.bins[places].tolist()],
        "slots": slots.tolist(),
        "streams": {number: asdict(each) for number, each in measurement.streams.items()},
    }
    return base64.b64encode(zlib.compress(json.dumps(told).encode())).decode()


def unpacked(text: str) -> Measurement:
    """Return the measurement that was packed."""
    told = json.loads(zlib.decompress(base64.b64decode(text)))
    bins = np.zeros(told["n_bins"], np.uint64)
    places, counts = told["bins"]
    bins[places] = np.array(counts, np.uint64)
    return Measurement(
        **{name: told[name] for name in _NUMBERS},
        bins=bins,
        slots=np.array(told["slots"], np.uint64).reshape(-1, _N_SLOT_VALUES),
        streams={int(number): StreamCounts(**each) for number, each in told["streams"].items()},
    )
