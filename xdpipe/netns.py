"""Private network namespaces with veth pairs, for the demonstration, tests and benchmarks.

Facts that this rests on:
- A network namespace lives as long as a process is in it or a descriptor of it is open
  (namespaces(7)). Held by a descriptor alone it dies with the process that made it, by SIGKILL as
  well, and its veths with it. Nothing is mounted in /run/netns, so nothing can be left there.
- unshare(2) and setns(2) with CLONE_NEWNET act on the calling thread. A socket belongs for good to
  the namespace that its thread was in when it was made. A forked child starts in the namespace of
  the thread that forked it, so a program is started in a namespace by entering it around fork;
  nsenter is not needed.
- /proc/sys/net and /proc/thread-self/net show the namespace of the thread that opens them, but
  /sys/class/net that of whoever mounted it.
"""

import ctypes
import errno
import functools
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Interface, ip_interface
from types import TracebackType
from typing import Any, Self, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xdpipe import ethtool
from xdpipe.errors import XdpipeError

_T = TypeVar("_T")

# linux/sched.h
_CLONE_NEWNET = 0x40000000
# linux/mount.h; the system calls have these numbers on every architecture
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6
_FSMOUNT_CLOEXEC = 1

# linux/if_addr.h: use the address at once, without duplicate address detection.
_IFA_F_NODAD = 0x02

_THREAD_NAMESPACE = "/proc/thread-self/ns/net"

_indexes = itertools.count(1001)

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A private network namespace with `lo` up, held only by a file descriptor of this process.

    `with namespace:` enters it on the calling thread and returns to the former one at the end. It
    may be entered again within, and by several threads at once.

    Attributes:
        fd: the descriptor, owned by this object; close-on-exec; -1 once closed.
    """

    def __init__(self) -> None:
        """Make the namespace.

        Raises:
            XdpipeError: the privilege is missing (CAP_SYS_ADMIN), or the kernel has no namespaces.
        """
        self.fd = -1
        self._former = threading.local()
        self.fd = _in_thread(_make_namespace)

    def close(self) -> None:
        """Let go of the namespace, which ends with the last process in it. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Namespace(fd={self.fd})"

    def __enter__(self) -> Self:
        if self.fd < 0:
            raise XdpipeError("the network namespace is closed already")
        stack: list[int] = self._former.__dict__.setdefault("fds", [])
        former = os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(self.fd)
        except BaseException:
            os.close(former)
            raise
        stack.append(former)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        former = self._former.fds.pop()
        try:
            _set_namespace(former)
        finally:
            os.close(former)

    def popen(
        self, argv: Sequence[str], *, die_with_parent: bool = True, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a program in the namespace.

        Args:
            argv: the program and its arguments.
            die_with_parent: have the kernel kill the program with the *thread* that started it, so
                that a SIGKILL to this process leaves none behind (PR_SET_PDEATHSIG, through
                setpriv(1)). A program that changes its user, as tcpdump and dnsmasq do unless told
                not to, loses this.
            options: what subprocess.Popen takes.
        """
        if die_with_parent:
            argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        with self:
            return subprocess.Popen(argv, **options)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a program in the namespace to its end.

        Args:
            argv: the program and its arguments.
            timeout: seconds until it is killed and subprocess.TimeoutExpired raised.
            check: raise subprocess.CalledProcessError where it exits with another status than 0.
            options: what subprocess.run takes.
        """
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        with self:
            return subprocess.run(argv, timeout=timeout, check=check, **options)

    def call(self, function: Callable[[], _T]) -> _T:
        """Return what `function()` returns on a thread of its own in the namespace.

        The calling thread stays where it is, so a socket that the function makes and returns lies
        in the namespace, and nothing else does.
        """

        def inside() -> _T:
            with self:
                return function()

        return _in_thread(inside)


@dataclass(frozen=True)
class VethEnd:
    """One end of a veth pair, as it shall be.

    Attributes:
        name: of the interface.
        namespace: that it lies in.
        addresses: IPv4 and IPv6 with their prefix lengths, such as `10.0.0.1/24`. Without an IPv6
            address IPv6 is off on the interface, so it sends nothing of its own accord.
        mac: such as `02:00:00:00:00:01`; None lets the kernel draw one.
        offloads: False switches off TX checksums, TSO, GSO, GRO and VLAN tags, so that packets are
            what they would be on a cable. With them a veth leaves checksums unfilled and sends up
            to 64 KiB at once.
        threaded: run the receive work in a kernel thread of its own instead of on the sending CPU
            (Documentation/networking/napi.rst). veth has NAPI only while it has an XDP program or
            GRO; the NAPI of a program that is attached later inherits the setting.
    """

    name: str
    namespace: Namespace
    addresses: Sequence[str] = ()
    mac: str | None = None
    offloads: bool = True
    threaded: bool = False


def veth_pair(a: VethEnd, b: VethEnd, *, n_queues: int = 2, mtu: int = 1500) -> None:
    """Make a veth pair with `n_queues` RX and as many TX queues at each end, and set both ends up.

    It ends with either namespace.

    Raises:
        XdpipeError: the kernel refused, by a name that is taken for example.
    """
    # Left alone, both ends would have the same number in fresh namespaces, and then the kernel
    # takes them for an interface that is nobody's peer, whose carrier may wait a second until IPv6
    # hears of it (net/core/link_watch.c, linkwatch_urgent_event).
    index = next(_indexes)

    def make() -> None:
        def end(veth: VethEnd) -> dict[str, Any]:
            wanted: dict[str, Any] = {
                "ifname": veth.name,
                "num_rx_queues": n_queues,
                "num_tx_queues": n_queues,
                "mtu": mtu,
            }
            return wanted if veth.mac is None else wanted | {"address": veth.mac}

        peer = end(b) | {"net_ns_fd": b.namespace.fd}
        with IPRoute() as route:
            route.link("add", kind="veth", peer=peer, index=index, **end(a))

    try:
        a.namespace.call(make)
        for veth in (a, b):
            veth.namespace.call(functools.partial(configure, veth))
    except NetlinkError as error:
        raise XdpipeError(
            f"veth pair {a.name}, {b.name} with {n_queues} queues: {os.strerror(error.code)}"
        ) from error


def configure(veth: VethEnd) -> None:
    """Give an interface its addresses and settings and set it up, on a thread in its namespace."""
    addresses = [ip_interface(address) for address in veth.addresses]
    has_ipv6 = any(isinstance(address, IPv6Interface) for address in addresses)
    # Before the interface goes up, since that is when it would start to speak.
    ipv6 = f"net/ipv6/conf/{veth.name}"
    if not has_ipv6:
        _sysctl(f"{ipv6}/disable_ipv6", 1)
    else:
        _sysctl(f"{ipv6}/accept_ra", 0)
        _sysctl(f"{ipv6}/accept_dad", 0)
        _sysctl(f"{ipv6}/router_solicitations", 0)
        _sysctl(f"{ipv6}/addr_gen_mode", 1)  # no link-local address, so no report of its group
        _sysctl("net/ipv6/mld_qrv", 1)  # say that an address's group is joined once, not twice
    if not veth.offloads:
        ethtool.set_offloads(veth.name, on=False)
    gro = ethtool.get_gro(veth.name)
    if veth.threaded:
        ethtool.set_gro(veth.name, on=True)  # the setting is refused while there is no NAPI
    with IPRoute() as route:
        [index] = route.link_lookup(ifname=veth.name)
        for address in addresses:
            flags = {"flags": _IFA_F_NODAD} if isinstance(address, IPv6Interface) else {}
            route.addr(
                "add",
                index=index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                **flags,
            )
        route.link("set", index=index, state="up")
    if veth.threaded:
        fd = open_sysfs(f"class/net/{veth.name}/threaded", os.O_WRONLY)
        try:
            os.write(fd, b"1")
        except OSError as error:
            raise XdpipeError(f"{veth.name}: threaded NAPI: {error.strerror}") from error
        finally:
            os.close(fd)
        ethtool.set_gro(veth.name, on=gro)


def _sysctl(path: str, value: int) -> None:
    """Write a sysctl of the thread's namespace; one that this kernel lacks is passed over."""
    try:
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(str(value))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise XdpipeError(
            f"sysctl {path}={value}: {error.strerror}; is /proc/sys read-only?"
        ) from error


def open_sysfs(path: str, flags: int) -> int:
    """Return a descriptor of a file below /sys as the calling thread's network namespace has it.

    By a mount of sysfs that is attached nowhere and ends when this returns (fsmount(2), Linux 5.2).
    """
    context = _check(_libc.syscall(_SYS_FSOPEN, b"sysfs", _FSOPEN_CLOEXEC), "fsopen sysfs")
    try:
        created = _libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        _check(created, "create sysfs")
        mount = _check(_libc.syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0), "mount sysfs")
    finally:
        os.close(context)
    try:
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _make_namespace() -> int:
    """Move the calling thread to a new namespace; return a descriptor of it."""
    _check(_libc.unshare(_CLONE_NEWNET), "make a network namespace")
    ethtool.set_up("lo")
    return os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def _set_namespace(fd: int) -> None:
    _check(_libc.setns(fd, _CLONE_NEWNET), "enter a network namespace")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        cure = "; it takes root (CAP_SYS_ADMIN)" if number == errno.EPERM else ""
        raise XdpipeError(f"{what}: {os.strerror(number)}{cure}")
    return result


def _in_thread(function: Callable[[], _T]) -> _T:
    """Return what the function returns on a thread that exists for it alone."""
    result: list[_T] = []
    error: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as exception:
            error.append(exception)

    thread = threading.Thread(target=body, name="xdpipe-netns")
    thread.start()
    thread.join()
    if error:
        try:
            raise error[0]
        finally:
            error.clear()
    return result[0]
