"""Attaching to interfaces of private namespaces, and what redirects that fail are counted as."""

import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from pyroute2 import IPRoute
from steered import AF_XDP, unbound_xsk

from xdpipe import bpf_link
from xdpipe.bpf import BpfError
from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_program import Program, program_info
from xdpipe.errors import XdpipeError
from xdpipe.netns import Namespace, VethEnd, veth_pair
from xdpipe.steering import Steering, SteerProgram

pytestmark = pytest.mark.veth

N_QUEUES = 2
# r0 = XDP_PASS; exit (linux/bpf.h, struct bpf_insn: code, registers, offset, immediate)
PASS_ALL = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)
# Type 0x88b5 is for experiments: nothing else sends it, so counts are exact.
PACKET = bytes.fromhex("020000000001 020000000002 88b5") + bytes(46)
EXPERIMENT = Steering("ether proto 0x88b5")

# linux/if_xdp.h
SOL_XDP = 283
XDP_RX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 2, 4, 5, 6
XDP_STATISTICS = 7
XDP_COPY = 1 << 1

libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Wire:
    """Two namespaces with a veth pair between them; `h0` is where programs are attached."""

    host: Namespace
    client: Namespace
    ifindex: int

    def send(self, n: int) -> None:
        """Send n packets from the other side."""
        with self.client, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("c0", 0))
            for _ in range(n):
                assert sender.send(PACKET) == len(PACKET)


@pytest.fixture
def wire() -> Iterator[Wire]:
    try:
        host, client = Namespace(), Namespace()
    except XdpipeError as error:
        pytest.skip(f"no network namespaces here: {error}")
    veth_pair(
        VethEnd("h0", host, [], mac="02:00:00:00:00:01"),
        VethEnd("c0", client, [], mac="02:00:00:00:00:02"),
        n_queues=N_QUEUES,
    )
    with host:
        yield Wire(host, client, socket.if_nametoindex("h0"))
    host.close()
    client.close()


@pytest.fixture
def program() -> Iterator[SteerProgram]:
    with SteerProgram(EXPERIMENT, None, N_QUEUES) as program:
        yield program


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "did not come true within 10 s"
        select.select([], [], [], 0.001)


def describe(ifindex: int) -> list[tuple[str, str]]:
    return [(program.name, program.mode) for program in bpf_link.attached(ifindex)]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("asked", "obtained"), [("auto", "native"), ("native", "native"), ("generic", "generic")]
)
def test_program_is_attached_in_the_mode_asked_for_until_it_is_closed(
    wire: Wire, asked: str, obtained: str
) -> None:
    with SteerProgram(EXPERIMENT, None, N_QUEUES) as program:
        assert program.attach(wire.ifindex, "h0", asked) == obtained
        assert describe(wire.ifindex) == [("steer", obtained)]
        wire.send(7)
        until(lambda: program.counters().to_kernel["no_socket"] == 7)
    assert describe(wire.ifindex) == []


def test_program_can_be_detached_and_attached_again(wire: Wire, program: SteerProgram) -> None:
    program.attach(wire.ifindex, "h0")
    program.detach()
    assert describe(wire.ifindex) == []
    assert program.attach(wire.ifindex, "h0", "generic") == "generic"
    program.close()
    assert describe(wire.ifindex) == []
    program.close()


def test_auto_is_generic_where_the_driver_has_no_native_xdp(
    wire: Wire, program: SteerProgram
) -> None:
    lo = socket.if_nametoindex("lo")
    assert program.attach(lo, "lo") == "generic"
    assert describe(lo) == [("steer", "generic")]
    program.detach()
    with pytest.raises(XdpipeError, match=r"attach lo: its driver has no native XDP.*generic$"):
        program.attach(lo, "lo", "native")


@pytest.mark.parametrize("mode", ["auto", "native", "generic"])
@pytest.mark.parametrize(("foreign", "flag"), [("native", "xdpdrv"), ("generic", "xdpgeneric")])
def test_foreign_link_is_refused_by_name_and_id(
    wire: Wire, program: SteerProgram, foreign: str, flag: str, mode: str
) -> None:
    other = Program.load(PASS_ALL, "xdp_dispatcher")
    number = program_info(other).id
    with XdpLink(other, wire.ifindex, "h0", foreign):
        with pytest.raises(XdpipeError) as refused:
            program.attach(wire.ifindex, "h0", mode)
        assert describe(wire.ifindex) == [("xdp_dispatcher", foreign)]
    assert str(refused.value) == (
        f'attach h0: XDP program "xdp_dispatcher" (id {number}) is attached already, in {foreign} '
        f"mode; detach it first: ip link set dev h0 {flag} off, or end the process that holds it "
        "(bpftool link)"
    )
    other.close()
    program.attach(wire.ifindex, "h0", "native")  # refused was not half attached


def test_foreign_program_attached_by_netlink_is_refused_too(
    wire: Wire, program: SteerProgram
) -> None:
    with Program.load(PASS_ALL, "by_netlink") as other, IPRoute() as route:
        route.link("set", index=wire.ifindex, xdp_fd=other.fd)
        with pytest.raises(XdpipeError, match=r'program "by_netlink" \(id \d+\) is attached'):
            program.attach(wire.ifindex, "h0")
        route.link("set", index=wire.ifindex, xdp_fd=-1)
    assert program.attach(wire.ifindex, "h0") == "native"


def test_second_attach_is_refused_like_a_foreign_program(wire: Wire, program: SteerProgram) -> None:
    program.attach(wire.ifindex, "h0")
    with (
        SteerProgram(EXPERIMENT, None, N_QUEUES) as second,
        pytest.raises(XdpipeError, match=r'attach h0: XDP program "steer" \(id \d+\) is attached'),
    ):
        second.attach(wire.ifindex, "h0")
    assert describe(wire.ifindex) == [("steer", "native")]


def test_link_swaps_its_program(wire: Wire) -> None:
    with Program.load(PASS_ALL, "old") as old, Program.load(PASS_ALL, "new") as new:
        with XdpLink(old, wire.ifindex, "h0") as link:
            assert describe(wire.ifindex) == [("old", "native")]
            link.update(new)
            assert describe(wire.ifindex) == [("new", "native")]
        assert describe(wire.ifindex) == []


def test_missing_interface_and_mode_are_told(wire: Wire, program: SteerProgram) -> None:
    with pytest.raises(XdpipeError, match="attach h9: no such interface in this network namespace"):
        program.attach(987654, "h9")
    with pytest.raises(XdpipeError, match="attach h0: no mode 'fast'; there are auto, native,"):
        program.attach(wire.ifindex, "h0", "fast")


def test_native_mode_that_the_driver_refuses_is_told_with_what_may_be_the_cause(
    wire: Wire, program: SteerProgram
) -> None:
    with IPRoute() as route:
        route.link("set", index=wire.ifindex, mtu=9000)
    with wire.client, IPRoute() as route:
        route.link("set", index=socket.if_nametoindex("c0"), mtu=9000)
    with pytest.raises(XdpipeError, match=r"attach h0: .*the MTU may be too large.*generic$"):
        program.attach(wire.ifindex, "h0")
    assert describe(wire.ifindex) == []


def test_run_can_pretend_any_queue_of_an_interface(wire: Wire, program: SteerProgram) -> None:
    program.attach(wire.ifindex, "h0")
    with unbound_xsk() as xsk:
        program.take(1, xsk.fileno())
        assert program.run(PACKET, queue=0, ifindex=wire.ifindex) == 2
        assert program.run(PACKET, queue=1, ifindex=wire.ifindex) == 4
    with pytest.raises(BpfError):
        program.run(PACKET, queue=N_QUEUES, ifindex=wire.ifindex)


@pytest.mark.kernel
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_redirect_to_a_socket_that_is_not_bound_is_counted_as_failed(
    wire: Wire, program: SteerProgram, mode: str
) -> None:
    assert program.redirect_errors_known
    program.attach(wire.ifindex, "h0", mode)
    with unbound_xsk() as xsk:
        for queue in range(N_QUEUES):
            program.take(queue, xsk.fileno())
        wire.send(100)
        until(lambda: program.counters().redirected == 100)
        until(lambda: program.counters().redirect_failed == 100)
    counters = program.counters()
    assert counters.redirect_dropped == 0
    assert sum(counters.to_kernel.values()) + counters.redirected == counters.seen


@pytest.mark.kernel
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_redirect_that_the_socket_drops_is_counted_by_both_alike(
    wire: Wire, program: SteerProgram, mode: str
) -> None:
    program.attach(wire.ifindex, "h0", mode)
    with (
        bound_without_frames(wire.ifindex, 0) as first,
        bound_without_frames(wire.ifindex, 1) as second,
    ):
        program.take(0, first.fileno())
        program.take(1, second.fileno())
        wire.send(100)
        until(lambda: program.counters().redirect_dropped == 100)
        # rx_dropped is the first of struct xdp_statistics
        dropped = [struct.unpack_from("=Q", xsk.getsockopt(SOL_XDP, XDP_STATISTICS, 48))[0]
                   for xsk in (first, second)]  # fmt: skip
    assert sum(dropped) == 100
    counters = program.counters()
    assert (counters.redirected, counters.redirect_failed) == (100, 0)


def test_redirect_to_another_queues_socket_is_counted_as_failed(
    wire: Wire, program: SteerProgram
) -> None:
    program.attach(wire.ifindex, "h0")
    with (
        bound_without_frames(wire.ifindex, 0) as first,
        bound_without_frames(wire.ifindex, 1) as second,
    ):
        program.take(0, second.fileno())
        program.take(1, first.fileno())
        wire.send(100)
        until(lambda: program.counters().redirect_failed == 100)
    assert program.counters().redirect_dropped == 0


def test_failures_of_other_programs_are_not_counted(wire: Wire, program: SteerProgram) -> None:
    program.attach(wire.ifindex, "h0")
    with (
        SteerProgram(EXPERIMENT, None, N_QUEUES) as bystander,
        unbound_xsk() as xsk,
    ):
        for queue in range(N_QUEUES):
            program.take(queue, xsk.fileno())
        wire.send(20)
        until(lambda: program.counters().redirect_failed == 20)
        assert bystander.counters().redirect_failed == 0


class bound_without_frames:
    """An AF_XDP socket bound to a queue in copy mode, with nothing in its fill ring."""

    def __init__(self, ifindex: int, queue: int) -> None:
        self.memory = ctypes.create_string_buffer(3 * 4096)
        self.xsk = socket.socket(AF_XDP, socket.SOCK_RAW)
        start = -(-ctypes.addressof(self.memory) // 4096) * 4096
        # struct xdp_umem_reg: addr, len, chunk_size, headroom, flags
        register = struct.pack("=QQIII4x", start, 2 * 4096, 4096, 0, 0)
        self.xsk.setsockopt(SOL_XDP, XDP_UMEM_REG, register)
        for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
            self.xsk.setsockopt(SOL_XDP, ring, struct.pack("=I", 64))
        # struct sockaddr_xdp: family, flags, ifindex, queue, shared umem; Python's bind knows none
        address = struct.pack("=HHIII", AF_XDP, XDP_COPY, ifindex, queue, 0)
        if libc.bind(self.xsk.fileno(), address, len(address)) != 0:
            number = ctypes.get_errno()
            self.xsk.close()
            raise OSError(number, f"bind queue {queue}: {errno.errorcode[number]}")

    def __enter__(self) -> socket.socket:
        return self.xsk

    def __exit__(self, *_: object) -> None:
        self.xsk.close()


def test_nothing_is_left_open_by_a_program_that_was_closed(wire: Wire) -> None:
    def use() -> None:
        with SteerProgram(EXPERIMENT, None, N_QUEUES) as program:
            program.attach(wire.ifindex, "h0")

    use()  # what is opened once and for all, is now
    before = sorted(os.listdir("/proc/self/fd"))
    use()
    assert sorted(os.listdir("/proc/self/fd")) == before
