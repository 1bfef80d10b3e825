"""What the supervisor tells a worker when it hands it a queue."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from xdpipe.umem import Geometry


@dataclass(frozen=True)
class PortAssignment:
    """One of the ports that a worker serves its queue of.

    Attributes:
        way_back: number of the interface that packets are given back on, as two more descriptors
            allow; 0: they are not.
        hints: what the NIC tells stands before each packet.
        before: fields *_before of struct xp_port: the counters when the socket was new.
    """

    way_back: int
    hints: bool
    before: dict[str, int]


@dataclass(frozen=True)
class Assignment:
    """What the supervisor has a worker serve.

    The descriptors come beside it: UMEM, counters page; for each port its socket and, where packets
    are given back, program and map for that.

    Attributes:
        queue: number of the receive queue, of each port.
        core: CPU to be pinned to.
        batch_size: packets in a batch at the most.
        spin_us: how long to look at empty rx rings before poll; microseconds.
        geometry: of UMEM and rings.
        adopt: another worker has worked on these sockets before; else all frames are on their fill
            rings or with the driver.
        need_wakeup: the rings say when the driver must be woken.
        busy_poll: the driver's receive work is ours.
        partial_checksums: packets may come with checksums that nobody filled in.
        sets: there are sets of addresses, and two more descriptors behind the page's: of the ring
            for keys, and of an eventfd.
        n_recordings: stages that have files written, and behind those the descriptors of their
            memory (RecordMemory).
        ports: in the order of the pipeline's.
    """

    queue: int
    core: int
    batch_size: int
    spin_us: int
    geometry: Geometry
    adopt: bool
    need_wakeup: bool
    busy_poll: bool
    partial_checksums: bool
    sets: bool
    n_recordings: int
    ports: tuple[PortAssignment, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Assignment:
        """Undo to_dict."""
        ports = tuple(PortAssignment(**port) for port in data["ports"])
        return cls(**{**data, "geometry": Geometry(**data["geometry"]), "ports": ports})
