"""Attach XDP programs to interfaces by BPF links.

A BPF link (BPF_LINK_CREATE, Linux 5.9 for XDP; net/core/dev.c, bpf_xdp_link_attach) detaches when
its last descriptor closes, so also when the process is killed; it refuses to replace a program that
somebody else attached; and it swaps its own program atomically. The interface is looked up in the
network namespace of the calling thread.
"""

import ctypes
import errno
from dataclasses import dataclass
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xdpipe.bpf import BpfError, Descriptor, call
from xdpipe.bpf_program import ATTACH_TYPE_XDP, Program, program_by_id
from xdpipe.errors import XdpipeError

# linux/bpf.h, enum bpf_cmd
_LINK_CREATE = 28
_LINK_UPDATE = 29

# linux/if_link.h
_XDP_FLAGS_SKB_MODE = 1 << 1
_XDP_FLAGS_DRV_MODE = 1 << 2
MODES: Final = {"native": _XDP_FLAGS_DRV_MODE, "generic": _XDP_FLAGS_SKB_MODE}

_U32 = ctypes.c_uint32


class _LinkCreate(ctypes.Structure):
    _fields_ = (
        ("prog_fd", _U32), ("target_ifindex", _U32), ("attach_type", _U32), ("flags", _U32),
    )  # fmt: skip


class _LinkUpdate(ctypes.Structure):
    _fields_ = (
        ("link_fd", _U32), ("new_prog_fd", _U32), ("flags", _U32), ("old_prog_fd", _U32),
    )  # fmt: skip


@dataclass(frozen=True)
class Attached:
    """An XDP program that is attached to an interface.

    Attributes:
        id: the kernel's number for it.
        name: given when it was loaded; empty where it cannot be asked for.
        mode: `native`, `generic` or `offload`.
    """

    id: int
    name: str
    mode: str


class XdpLink(Descriptor):
    """A program attached to an interface, for as long as the descriptor is open.

    Attributes:
        mode: the one obtained, `native` or `generic`.
    """

    def __init__(self, program: Program, ifindex: int, ifname: str, mode: str = "auto") -> None:
        """Attach.

        Args:
            program: of type XDP.
            ifindex: of the interface, in the calling thread's network namespace.
            ifname: its name, for messages.
            mode: `native`, `generic`, or `auto`: native, and generic where the driver has none.

        Raises:
            XdpipeError: the driver refuses, or another program is attached; the message names it.
        """
        self.fd = -1
        if mode not in ("auto", *MODES):
            raise XdpipeError(f"attach {ifname}: no mode {mode!r}; there are auto, native, generic")
        for self.mode in ("native", "generic") if mode == "auto" else (mode,):
            attributes = _LinkCreate(program.fd, ifindex, ATTACH_TYPE_XDP, MODES[self.mode])
            try:
                super().__init__(call(_LINK_CREATE, attributes, f"attach {ifname}"))
                return
            except BpfError as error:
                if not (mode == "auto" and self.mode == "native" and _lacks_native(error)):
                    raise _explain(error, ifindex, ifname, self.mode) from error

    def update(self, program: Program) -> None:
        """Swap in another program: each packet meets the one or the other, none neither."""
        call(_LINK_UPDATE, _LinkUpdate(self.fd, program.fd), "swap the XDP program")


def attached(ifindex: int) -> list[Attached]:
    """Return the XDP programs of an interface; two at the most, one native and one offloaded.

    Raises:
        XdpipeError: there is no such interface.
    """
    try:
        with IPRoute() as route:
            [message] = route.get_links(ifindex)
    except NetlinkError as error:
        raise XdpipeError(f"interface number {ifindex}: {error}") from error
    xdp = message.get_attr("IFLA_XDP")
    if xdp is None:
        return []
    found = []
    for mode, name in (("native", "DRV"), ("generic", "SKB"), ("offload", "HW")):
        number = xdp.get_attr(f"IFLA_XDP_{name}_PROG_ID")
        if number:
            try:
                found.append(Attached(number, program_by_id(number).name, mode))
            except BpfError:
                found.append(Attached(number, "", mode))
    return found


def _lacks_native(error: BpfError) -> bool:
    return error.errno == errno.EOPNOTSUPP


def _explain(error: BpfError, ifindex: int, ifname: str, mode: str) -> XdpipeError:
    """Say what an errno means here; it is net/core/dev.c's (dev_xdp_attach), or the driver's."""
    what = f"attach {ifname}"
    if error.errno in (errno.EBUSY, errno.EEXIST):
        for other in attached(ifindex):
            name = f'"{other.name}" ' if other.name else ""
            off = {"native": "xdpdrv", "generic": "xdpgeneric"}.get(other.mode, "xdpoffload")
            return XdpipeError(
                f"{what}: XDP program {name}(id {other.id}) is attached already, in {other.mode} "
                f"mode; detach it first: ip link set dev {ifname} {off} off, or end the process "
                "that holds it (bpftool link)"
            )
    if error.errno in (errno.ENODEV, errno.EINVAL) and not _exists(ifindex):
        return XdpipeError(f"{what}: no such interface in this network namespace")
    if mode == "native" and error.errno == errno.EOPNOTSUPP:
        return XdpipeError(
            f"{what}: its driver has no native XDP, or not as it is set up; use --attach generic"
        )
    if mode == "native" and error.errno != errno.EPERM:
        return XdpipeError(
            f"{error}: its driver refuses native XDP as it is set up; the MTU may be too large, "
            "queues too few, or LRO on (dmesg may tell); or use --attach generic"
        )
    return error


def _exists(ifindex: int) -> bool:
    try:
        attached(ifindex)
    except XdpipeError:
        return False
    return True
