"""What Link tells of interfaces of a private namespace, and the errors that name the cure."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from xdpipe.errors import XdpipeError
from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd, veth_pair


@pytest.fixture
def left() -> Iterator[Namespace]:
    """Return a namespace with the veth `left`, of four queues, entered."""
    a, b = Namespace(), Namespace()
    veth_pair(VethEnd("left", a, ["10.0.0.1/24"]), VethEnd("right", b), n_queues=4)
    with a:
        yield a
    a.close()
    b.close()


def test_a_veth_is_told_as_it_is(left: Namespace) -> None:
    link = Link.find("left")
    assert (link.name, link.mtu, link.driver) == ("left", 1500, "veth")
    assert link.index == socket.if_nametoindex("left")
    assert (link.up, link.carrier) == (True, True)
    assert (link.n_rx_queues, link.n_tx_queues, link.queues) == (4, 4, [0, 1, 2, 3])
    assert (link.xdp_program_id, link.xdp_mode) == (None, None)
    assert [each.name for each in Link.all()] == ["lo", "left"]


def test_lo_has_one_queue_and_no_driver(left: Namespace) -> None:
    link = Link.find("lo")
    assert (link.driver, link.n_rx_queues, link.n_tx_queues) == ("", 1, 1)


def test_the_queues_in_use_count_and_not_those_allocated(left: Namespace) -> None:
    left.run(["ethtool", "-L", "left", "rx", "2", "tx", "3"])
    link = Link.find("left")
    assert (link.n_rx_queues, link.n_tx_queues) == (2, 3)
    with IPRoute() as route:
        [message] = route.link("get", ifname="left")
    assert message.get("num_rx_queues") == 4


@pytest.mark.parametrize("name", ["eth9", "", "a/b", "a-name-longer-than-any-interface-has"])
def test_an_interface_that_does_not_exist_is_told_with_those_that_do(
    left: Namespace, name: str
) -> None:
    with pytest.raises(XdpipeError) as raised:
        Link.find(name)
    assert str(raised.value) == f"{name}: no such interface; there are: lo, left"


def test_down_and_without_carrier_are_told_with_the_cure(left: Namespace) -> None:
    Link.find("left").require_up()
    left.run(["ip", "link", "set", "left", "down"])
    with pytest.raises(XdpipeError) as raised:
        Link.find("left").require_up()
    assert str(raised.value) == "left is down; set it up with: ip link set left up"


def test_a_peer_that_is_down_leaves_no_carrier() -> None:
    with Namespace() as namespace:
        veth_pair(VethEnd("left", namespace), VethEnd("right", namespace))
        namespace.run(["ip", "link", "set", "right", "down"])
        with pytest.raises(XdpipeError, match=r"^left has no carrier; "):
            Link.find("left").require_up()
    namespace.close()


def test_a_queue_that_does_not_exist_is_told_with_those_that_do(left: Namespace) -> None:
    link = Link.find("left")
    link.check_queues([0, 3])
    for queue in (4, -1):
        with pytest.raises(XdpipeError) as raised:
            link.check_queues([0, queue])
        assert str(raised.value) == (f"left queue {queue}: no such queue; left has 4 queues (0-3)")
    with pytest.raises(XdpipeError, match=r"lo has 1 queue \(0\)$"):
        Link.find("lo").check_queues([1])


def load_xdp_pass() -> int:
    """Return a descriptor of an XDP program that returns XDP_PASS, loaded with bpf(2)."""
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    # r0 = 2; exit
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
    text = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(
        struct.pack("=IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(text)), 128
    )
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, 5, attr, len(attr))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return int(fd)


@pytest.mark.parametrize(("flags", "mode"), [(1 << 2, "native"), (1 << 1, "generic")])
def test_an_attached_program_is_told_with_its_mode(left: Namespace, flags: int, mode: str) -> None:
    fd = load_xdp_pass()
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    [program_id] = [int(line.split()[1]) for line in info.splitlines() if "prog_id" in line]

    def attach(fd: int) -> Link:
        xdp = {"attrs": [["IFLA_XDP_FD", fd], ["IFLA_XDP_FLAGS", flags]]}
        with IPRoute() as route:
            route.link("set", index=Link.find("left").index, xdp=xdp)
        return Link.find("left")

    link = attach(fd)
    os.close(fd)
    assert (link.xdp_program_id, link.xdp_mode) == (program_id, mode)
    link = attach(-1)
    assert (link.xdp_program_id, link.xdp_mode) == (None, None)
