"""Inside the VM: take one of its NICs (vm/nics.py) as the end of a test or benchmark."""

import subprocess

from pyroute2 import IPRoute

from xdpipe.link import Link
from xdpipe.netns import VethEnd, configure


def find_nic(kind: str, mac: str | None) -> Link | None:
    """Return the NIC of that kind and MAC address in this namespace, or None."""
    driver = {"virtio": "virtio_net"}.get(kind, kind)
    found = [link for link in Link.all() if (link.driver, link.mac) == (driver, mac)]
    return found[0] if found else None


def take_nic(nic: Link, end: VethEnd, n_queues: int) -> None:
    """Move a NIC into the namespace of an end, with its name, addresses and so many queues.

    It comes back when the namespace is gone.
    """
    with IPRoute() as route:
        route.link("set", index=nic.index, state="down")
        route.link("set", index=nic.index, net_ns_fd=end.namespace.fd)

    def dress() -> None:
        with IPRoute() as route:
            route.link("set", index=nic.index, ifname=end.name)
        for settings in (
            ["-L", end.name, "combined", str(n_queues)],
            ["-N", end.name, "rx-flow-hash", "udp4", "sdfn"],  # spread flows of one pair of hosts
            ["-N", end.name, "rx-flow-hash", "udp6", "sdfn"],
        ):  # what a driver has so already, or has not at all, it refuses
            subprocess.run(["ethtool", *settings], check=False, capture_output=True)
        configure(end)

    end.namespace.call(dress)
