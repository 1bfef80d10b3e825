"""What the kernel knows of an interface: the facts that decide whether a pipeline can run on it."""

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xdpipe import ethtool
from xdpipe.errors import XdpipeError
from xdpipe.ranges import format_ranges

# linux/if.h
_IFF_UP = 0x1

# pyroute2's names of IFLA_XDP_ATTACHED (linux/if_link.h) and xdpipe's. "several": more than one
# program is attached, by different modes; then the one of native mode is told.
_XDP_MODES = {
    "xdp": "native",
    "xdpgeneric": "generic",
    "xdpoffload": "offload",
    "xdpmulti": "several",
}


@dataclass(frozen=True)
class Link:
    """An interface of the calling thread's network namespace, as it was at one moment.

    Attributes:
        name: of the interface.
        index: the kernel's number for it (ifindex).
        mac: its hardware address, or an empty string.
        mtu: bytes of the largest packet, without the Ethernet header.
        up: somebody set it up.
        carrier: the other side is there.
        driver: such as `veth`; empty where there is none (`lo`).
        n_rx_queues: receive queues in use at present (the kernel's real_num_rx_queues).
        n_tx_queues: transmit queues in use at present.
        xdp_program_id: of the program that is attached, or None.
        xdp_mode: `native`, `generic`, `offload`, `several`, or None.
    """

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    carrier: bool
    driver: str
    n_rx_queues: int
    n_tx_queues: int
    xdp_program_id: int | None
    xdp_mode: str | None

    @classmethod
    def find(cls, name: str) -> Self:
        """Return the interface of that name.

        Raises:
            XdpipeError: there is none; the message names those that there are.
        """
        with IPRoute() as route:
            try:
                [message] = route.link("get", ifname=name)
            except NetlinkError as error:
                # ERANGE and EINVAL: longer than any name.
                if error.code not in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
                    raise XdpipeError(f"{name}: {error}") from error
                names = ", ".join(link.get("ifname") for link in route.get_links())
                raise XdpipeError(f"{name}: no such interface; there are: {names}") from error
        return cls._from_message(message)

    def again(self) -> Self | None:
        """Look at it once more, whatever it is called by now; None if it is not there any more."""
        with IPRoute() as route:
            try:
                [message] = route.link("get", index=self.index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise XdpipeError(f"{self.name}: {error}") from error
                return None
        return self._from_message(message)

    @classmethod
    def all(cls) -> list[Self]:
        """Return every interface of the namespace, in the kernel's order."""
        with IPRoute() as route:
            messages = list(route.get_links())
        return [cls._from_message(message) for message in messages]

    @classmethod
    def _from_message(cls, message: Any) -> Self:
        name: str = message.get("ifname")
        n_rx_queues, n_tx_queues = _count_queues(name, message)
        xdp = message.get_attr("IFLA_XDP")
        mode = _XDP_MODES.get(xdp.get_attr("IFLA_XDP_ATTACHED")) if xdp is not None else None
        program_id = None
        if mode is not None:
            program_id = xdp.get_attr("IFLA_XDP_PROG_ID") or xdp.get_attr("IFLA_XDP_DRV_PROG_ID")
        return cls(
            name=name,
            index=message["index"],
            mac=message.get("address") or "",
            mtu=message.get("mtu"),
            up=bool(message["flags"] & _IFF_UP),
            carrier=bool(message.get("carrier")),
            driver=ethtool.driver(name),
            n_rx_queues=n_rx_queues,
            n_tx_queues=n_tx_queues,
            xdp_program_id=program_id,
            xdp_mode=mode,
        )

    @property
    def queues(self) -> list[int]:
        """All receive queues."""
        return list(range(self.n_rx_queues))

    def require_up(self) -> None:
        """Check that packets can come.

        Raises:
            XdpipeError: it is down, or has no carrier.
        """
        if not self.up:
            raise XdpipeError(f"{self.name} is down; set it up with: ip link set {self.name} up")
        if not self.carrier:
            raise XdpipeError(
                f"{self.name} has no carrier; is the cable plugged in, and the other side up?"
            )

    def with_carrier(self, timeout_s: float, interrupted: Callable[[], bool]) -> Self:
        """Wait until its carrier is there, and return the link as it is then.

        Raises:
            XdpipeError: it is gone, has no carrier for timeout_s, or we were interrupted.
        """
        end = time.monotonic() + timeout_s
        while True:
            now = self.again()
            if now is None:
                raise XdpipeError(f"{self.name} is gone")
            if now.carrier:
                return now
            if interrupted():
                raise XdpipeError("interrupted before it ran")
            if time.monotonic() > end:
                now.require_up()
            time.sleep(0.1)  # asking takes 1 ms, and in an emulated machine ten

    def check_queues(self, queues: Iterable[int]) -> None:
        """Check that each of these is a receive queue in use.

        Raises:
            XdpipeError: one is not.
        """
        for queue in queues:
            if not 0 <= queue < self.n_rx_queues:
                noun = "queue" if self.n_rx_queues == 1 else "queues"
                have = f"{self.n_rx_queues} {noun} ({format_ranges(self.queues)})"
                raise XdpipeError(
                    f"{self.name} queue {queue}: no such queue; {self.name} has {have}"
                )


def _count_queues(name: str, message: Any) -> tuple[int, int]:
    """Return how many RX and TX queues are in use.

    Netlink's IFLA_NUM_RX_QUEUES is how many the driver allocated (dev->num_rx_queues, 64 for many a
    NIC with 8 cores), while AF_XDP's bind and the NIC's own steering know only those in use
    (dev->real_num_rx_queues). The drivers with native XDP tell that as their channels, veth from
    Linux 5.13 on among them; for others the allocated number stands, which is the one in use for
    all that have just one.
    """
    channels = ethtool.channels(name)
    if channels is not None:
        return channels.n_rx, channels.n_tx
    return message.get("num_rx_queues") or 1, message.get("num_tx_queues") or 1
