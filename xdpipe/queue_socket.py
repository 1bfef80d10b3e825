"""A worker's socket on a queue of one port, with what outlives the worker and the socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpipe.assignment import PortAssignment
from xdpipe.drivers import quirks
from xdpipe.netdev import XSK_TX_CHECKSUM, XSK_TX_TIMESTAMP, xsk_features
from xdpipe.xsk import Xsk, XskStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpipe.inject import Injector
    from xdpipe.link import Link
    from xdpipe.run_options import RunOptions
    from xdpipe.umem import Umem

_BEFORE = (
    "received_before", "received_more_before", "filled_before", "tx_submitted_before",
    "tx_submitted_more_before", "tx_completed_before", "tx_completed_more_before",
)  # fmt: skip
"""Fields of struct xp_port: the counters that go with the ring indices, as the socket began."""


class QueueSocket:
    """The socket on one queue of one interface; the supervisor's, and owned by it.

    Args:
        link: the interface.
        queue: number of the queue.
        options: how the pipeline runs.
        injector: by which the worker gives packets back that came by here, owned by this object
            now; None: it cannot.
        hints: what the NIC tells stands before each packet.

    Attributes:
        xsk: the AF_XDP socket; there is one after `open`.
        mode: what bind gave: `zerocopy` or `copy`; empty while the socket is not bound.
        tx_checksum: NIC or kernel fill in checksums of packets that leave.
        tx_times: they tell when packets leave.
        partial_checksums: packets may come with checksums that nobody filled in.
    """

    def __init__(
        self,
        link: Link,
        queue: int,
        options: RunOptions,
        injector: Injector | None,
        *,
        hints: bool,
    ) -> None:
        self.queue = queue
        self._link = link
        self._options = options
        self.injector = injector
        self.hints = hints
        self.partial_checksums = quirks(link.driver).partial_checksums
        self.mode = ""
        self.tx_checksum = self.tx_times = False
        self.xsk: Xsk
        self._past = XskStatistics()
        self._before = dict.fromkeys(_BEFORE, 0)

    def make(self, umem: Umem, shares_with: Xsk | None) -> Xsk:
        """Return a socket over a UMEM for this queue, not bound yet; see Xsk.open."""
        xsk = Xsk.open(umem, shares_with, tx_metadata=True)
        if self._options.busy_poll:
            try:
                xsk.busy_poll()
            except BaseException:
                xsk.close()
                raise
        return xsk

    def replace(self, xsk: Xsk, counters: Mapping[str, int]) -> None:
        """Put a fresh socket in the place of one that nobody can take over; that is closed.

        Args:
            xsk: the new one, owned by this object now.
            counters: the port's, as the new one begins.
        """
        past, old = self.statistics(), self.xsk
        self.xsk, self.mode = xsk, ""
        old.close()
        self._past = past
        self._before = {name: counters[name.removesuffix("_before")] for name in _BEFORE}

    def bind(self, mode: str, patience_s: float) -> None:
        """Bind to the queue unless it is bound, and learn what is done for packets that leave.

        Raises:
            XdpipeError: see Xsk.bind.
        """
        if self.mode:
            return
        self.mode = self.xsk.bind(
            self._link, self.queue, mode, patience_s, need_wakeup=self._options.need_wakeup
        )
        features = 0
        if self.xsk.tx_metadata:  # in copy mode the kernel itself does both
            copy = self.mode == "copy"
            features = XSK_TX_CHECKSUM | XSK_TX_TIMESTAMP if copy else xsk_features(self._link)
        self.tx_checksum = bool(features & XSK_TX_CHECKSUM)
        self.tx_times = bool(features & XSK_TX_TIMESTAMP)

    def statistics(self) -> XskStatistics:
        """Return what the kernel counted on this socket, and on those before it."""
        return self._past + self.xsk.statistics()

    @property
    def assignment(self) -> PortAssignment:
        """What the worker is told of it."""
        way_back = 0 if self.injector is None else self.injector.way_back.ifindex
        return PortAssignment(way_back, self.hints, self._before)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that the worker is handed, in the order that it takes them in."""
        return (self.xsk.fd, *(() if self.injector is None else self.injector.way_back.fds))

    def to_c(self, counters: Any) -> dict[str, Any]:
        """Return the fields of struct xp_port, as the supervisor closes the books."""
        way_back = {} if self.injector is None else {"pass": self.injector.way_back.c}
        return {"xsk": self.xsk.c, "counters": counters, **way_back, **self._before}

    def close(self) -> None:
        """Close socket and injector. May be called twice."""
        for name in ("xsk", "injector"):
            owner = getattr(self, name, None)
            if owner is not None:
                owner.close()
