"""What the supervisor tells a worker when it hands it a queue."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from xdpipe.umem import Geometry


@dataclass(frozen=True)
class Assignment:
    """What the supervisor has a worker serve; the descriptors come beside it.

    Attributes:
        queue: number of the receive queue.
        core: CPU to be pinned to.
        batch_size: packets in a batch at the most.
        spin_us: how long to look at an empty rx ring before poll; microseconds.
        geometry: of UMEM and rings.
        adopt: another worker has worked on this socket before; else all frames are on its fill
            ring or with the driver.
        need_wakeup: the rings say when the driver must be woken.
        busy_poll: the driver's receive work is ours.
        hints: what the NIC tells stands before each packet.
        partial_checksums: packets may come with checksums that nobody filled in.
        way_back: number of the interface that packets are given back on, as two more descriptors
            allow; 0: they are not.
        before: fields *_before of struct xp_worker: the counters when the socket was new.
    """

    queue: int
    core: int
    batch_size: int
    spin_us: int
    geometry: Geometry
    adopt: bool
    need_wakeup: bool
    busy_poll: bool
    hints: bool
    partial_checksums: bool
    way_back: int
    before: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Assignment:
        """Undo to_dict."""
        return cls(**{**data, "geometry": Geometry(**data["geometry"])})
