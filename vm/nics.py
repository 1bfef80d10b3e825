"""The VM's NICs: pairs of the same kind, the one joined to the other outside of the guest.

For benchmarks also such as hang on a tap alone, by which the host sends to them.

virtio, over two multi-queue taps in a bridge. It has zero copy only with iommu_platform=on and
disable-legacy=on. A tap gets exactly the queues that are used: with spare ones virtio takes one
more for each CPU for XDP_TX, and half of the packets go where nobody listens. (Over a hubport there
is one queue, and zero copy stalls where the peer gives no receive buffers.)

igb, over a hubport of QEMU's own, with as many queues as CPUs. Each sits behind a root port of its
own, else QEMU says "PCI: slot 20 function 0 not available for igbvf".

vmxnet3, over a hubport: native XDP, no zero copy. e1000e: no native XDP.

Without romfile= QEMU would look for boot ROMs, of packages that are not needed here.
"""

import fcntl
import os
import struct
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from vm.cache import VmError
from xdpipe.netns import Namespace

KINDS = ("virtio", "igb", "vmxnet3", "e1000e")

MTU = 9000
"""Of the cable: what the guest's NICs may be set to. A bridge has the least of its ports'."""

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE, _IFF_VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000


@dataclass
class Nics:
    """Pairs of NICs, and what they hang on; a bridge and taps in a private network namespace.

    The NICs of each pair have the MAC addresses 02:00:00:00:00:01 and :02.
    """

    namespace: Namespace
    n_queues: int
    options: list[str] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    """Of taps, for QEMU to inherit."""

    def add(self, kind: str, place: int) -> None:
        """Add a pair.

        Args:
            kind: of KINDS.
            place: of the kind among those of the machine.
        """
        if kind == "virtio":
            self._bridge(f"br{place}")
        for end in (1, 2):
            backend = f"hubport,hubid={place}"
            if kind == "virtio":
                backend = self._tap(f"tap{place}{end}", f"br{place}")
            self._device(kind, backend, place, end)

    def add_fed(self, kind: str, place: int) -> None:
        """Add a NIC, the first of a pair, that gets what is sent to `fed{place}` of the namespace.

        Args:
            kind: of KINDS.
            place: of the kind among those of the machine.
        """
        self._device(kind, self._tap(f"fed{place}", None), place, 1)

    def _device(self, kind: str, backend: str, place: int, end: int) -> None:
        name = f"n{place}{end}"
        settings = [f"netdev={name}", f"mac=02:00:00:00:00:{end:02x}", "romfile="]
        if kind == "virtio":
            device = "virtio-net-pci"
            settings += ["rx_queue_size=1024", "iommu_platform=on", "disable-legacy=on"]
            if self.n_queues > 1:
                settings += ["mq=on", f"vectors={2 * self.n_queues + 2}"]
        else:
            device = kind
            settings.append(f"bus=port{name}")
            port = f"pcie-root-port,id=port{name},chassis={place * 2 + end}"
            self.options += ["-device", port]
        self.options += [
            "-netdev", f"{backend},id={name}", "-device", ",".join([device, *settings]),
        ]  # fmt: skip

    def _bridge(self, name: str) -> None:
        def make() -> None:
            with IPRoute() as route:
                # No MAC learning and no ageing: packets of any address pass, as on a cable.
                route.link("add", ifname=name, kind="bridge", br_ageing_time=0, br_mcast_snooping=0)
                [index] = route.link_lookup(ifname=name)
                _quiet(name)
                route.link("set", index=index, state="up")

        self.namespace.call(make)

    def _tap(self, name: str, bridge: str | None) -> str:
        """Make a tap; return what QEMU is told of it."""

        def make() -> list[int]:
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            if self.n_queues > 1:
                flags |= _IFF_MULTI_QUEUE
            fds = []
            for _ in range(self.n_queues):
                try:
                    fd = os.open("/dev/net/tun", os.O_RDWR)
                except OSError as error:
                    raise VmError(
                        f"/dev/net/tun: {error.strerror}; load the module tun, or use --nic igb"
                    ) from error
                fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                os.set_inheritable(fd, True)
                fds.append(fd)
            _quiet(name)
            with IPRoute() as route:
                [index] = route.link_lookup(ifname=name)
                master = route.link_lookup(ifname=bridge)[0] if bridge else 0
                route.link("set", index=index, master=master, mtu=MTU, state="up")
            return fds

        fds = self.namespace.call(make)
        self.fds += fds
        which = "fds" if self.n_queues > 1 else "fd"
        return f"tap,{which}={':'.join(map(str, fds))},vhost=off"

    def close(self) -> None:
        """Close the taps, which end with that."""
        while self.fds:
            os.close(self.fds.pop())


def _quiet(name: str) -> None:
    """Have the host say nothing of its own accord on an interface."""
    with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
        file.write("1")
