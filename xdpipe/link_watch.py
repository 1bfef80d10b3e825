"""What happens to an interface while a pipeline runs on it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Self

from xdpipe.drivers import quirks
from xdpipe.ranges import format_ranges

if TYPE_CHECKING:
    from types import TracebackType

    from xdpipe.link import Link
    from xdpipe.umem import Geometry

_RTMGRP_LINK = 1  # linux/rtnetlink.h


class LinkWatch:
    """Learns from the kernel (rtnetlink(7)) that an interface of this namespace has changed.

    What the kernel sends is only taken as the news that there is some; then the interface is
    looked at. So a message that was lost (ENOBUFS) costs nothing as long as another comes.

    Args:
        link: the interface, as it was when the pipeline started.
        geometry: of the pipeline's UMEM, which was made for the interface's MTU.

    Attributes:
        link: as it is now; None: gone.
    """

    def __init__(self, link: Link, geometry: Geometry) -> None:
        self.link: Link | None = link
        self._geometry = geometry
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, to wait on it."""
        return self._socket.fileno()

    def changes(self) -> list[str]:
        """Take in what came, and tell what is different now, each in one line with the cure."""
        try:
            while self._socket.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: more came than the socket holds
            pass
        before = self.link
        if before is None:
            return []
        self.link = now = before.again()
        if now is None:
            return [f"{before.name} is gone (deleted, or moved to another network namespace)"]
        return _differences(before, now, self._geometry)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _differences(before: Link, now: Link, geometry: Geometry) -> list[str]:
    name = now.name
    lines = []
    if name != before.name:
        lines.append(f"{before.name} is called {name} now")
    if now.up != before.up:
        lines.append(
            f"{name} is up again"
            if now.up
            else f"{name} went down: no packets come until: ip link set {name} up"
        )
    elif now.carrier != before.carrier:
        lines.append(
            f"{name} has its carrier again"
            if now.carrier
            else f"{name} lost its carrier: no packets come until the other side is there again"
        )
    if now.mtu != before.mtu and not geometry.holds(now.mtu, quirks(now.driver).rx_unit):
        lines.append(
            f"{name} has an MTU of {now.mtu} now: packets longer than {geometry.longest_packet} "
            "bytes are dropped (rx_dropped) until the pipeline is started again"
        )
    if now.n_rx_queues > before.n_rx_queues:
        new = range(before.n_rx_queues, now.n_rx_queues)
        lines.append(
            f"{name} has {now.n_rx_queues} queues now: those of {format_ranges(new)} go to the "
            "kernel until the pipeline is started again"
        )
    return lines
