"""Private namespaces: what they hold, that they are silent, and that nothing of them is left."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdpipe import ethtool
from xdpipe.errors import XdpipeError
from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd, open_sysfs, veth_pair


def here() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def namespaces() -> set[str]:
    """Return every network namespace that a process is in or holds a descriptor of."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        for link in [*path.glob("task/*/ns/net"), *path.glob("fd/*")]:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("net:["):
                found.add(target)
    return found


def identity(namespace: Namespace) -> str:
    return os.readlink(f"/proc/self/fd/{namespace.fd}")


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    a, b = Namespace(), Namespace()
    yield a, b
    a.close()
    b.close()


def test_a_namespace_has_lo_up_and_nothing_else(pair: tuple[Namespace, Namespace]) -> None:
    with pair[0]:
        [lo] = Link.all()
    assert (lo.name, lo.up) == ("lo", True)


def test_entering_returns_to_where_one_was_also_nested_and_after_an_error(
    pair: tuple[Namespace, Namespace],
) -> None:
    a, b = pair
    start = here()
    with a:
        assert here() == identity(a) != start
        with b:
            assert here() == identity(b)
            with a:
                assert here() == identity(a)
            assert here() == identity(b)
        assert here() == identity(a)
    assert here() == start
    with pytest.raises(KeyError), a:
        raise KeyError
    assert here() == start


def test_entering_moves_one_thread_only(pair: tuple[Namespace, Namespace]) -> None:
    a, b = pair
    start = here()
    seen = {}
    both_in = threading.Barrier(2)

    def enter(name: str, namespace: Namespace) -> None:
        before = here()
        with namespace:
            both_in.wait(10)
            seen[name] = (before, here())
        seen[name] = (*seen[name], here())

    threads = [threading.Thread(target=enter, args=item) for item in (("a", a), ("b", b))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == {"a": (start, identity(a), start), "b": (start, identity(b), start)}
    assert here() == start


def test_call_runs_a_function_inside_and_leaves_the_caller_outside(
    pair: tuple[Namespace, Namespace],
) -> None:
    start = here()
    assert pair[0].call(here) == identity(pair[0])
    assert here() == start
    with pytest.raises(ZeroDivisionError):
        pair[0].call(lambda: 1 // 0)
    assert here() == start


def test_a_program_runs_inside(pair: tuple[Namespace, Namespace]) -> None:
    a, _ = pair
    command = ["readlink", "/proc/self/ns/net"]
    assert a.run(command, capture_output=True, text=True).stdout.strip() == identity(a)
    with a.popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read().strip() == identity(a)
    with pytest.raises(subprocess.CalledProcessError):
        a.run(["false"])


def test_a_program_inherits_no_descriptor(pair: tuple[Namespace, Namespace]) -> None:
    command = ["sh", "-c", "ls -l /proc/$$/fd"]
    listing = pair[0].run(command, capture_output=True, text=True).stdout
    assert "net:[" not in listing


def test_a_closed_namespace_cannot_be_entered(pair: tuple[Namespace, Namespace]) -> None:
    pair[0].close()
    with pytest.raises(XdpipeError, match="closed already"), pair[0]:
        pass


def test_without_privilege_the_error_says_what_it_takes() -> None:
    code = (
        "from xdpipe.netns import Namespace\n"
        "from xdpipe.errors import XdpipeError\n"
        "try: Namespace()\n"
        "except XdpipeError as error: print(error)\n"
    )
    result = subprocess.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == (
        "make a network namespace: Operation not permitted; it takes root (CAP_SYS_ADMIN)\n"
    )


def test_a_pair_is_as_it_was_ordered(pair: tuple[Namespace, Namespace]) -> None:
    a, b = pair
    veth_pair(
        VethEnd("left", a, ["10.0.0.1/24", "fd00::1/64"], mac="02:00:00:00:00:01"),
        VethEnd("right", b, ["10.0.0.2/24", "fd00::2/64"], mac="02:00:00:00:00:02"),
        n_queues=3,
        mtu=1400,
    )
    for namespace, name, mac in [(a, "left", "01"), (b, "right", "02")]:
        with namespace:
            link = Link.find(name)
        assert link.mac == f"02:00:00:00:00:{mac}"
        assert (link.n_rx_queues, link.n_tx_queues, link.mtu) == (3, 3, 1400)
        assert (link.up, link.carrier, link.driver) == (True, True, "veth")


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00::2")]
)
def test_datagrams_cross_a_pair_at_once(
    pair: tuple[Namespace, Namespace], family: socket.AddressFamily, address: str
) -> None:
    a, b = pair
    veth_pair(
        VethEnd("left", a, ["10.0.0.1/24", "fd00::1/64"], offloads=False),
        VethEnd("right", b, ["10.0.0.2/24", "fd00::2/64"], offloads=False),
    )

    def make() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    with b.call(make) as receiver, a.call(make) as sender:
        receiver.settimeout(10)
        receiver.bind((address, 7))  # refused while an address is tentative
        sender.sendto(b"hello", (address, 7))
        assert receiver.recv(100) == b"hello"


def test_an_interface_without_ipv6_address_has_no_ipv6(pair: tuple[Namespace, Namespace]) -> None:
    a, b = pair
    veth_pair(VethEnd("left", a, ["10.0.0.1/24"]), VethEnd("right", b))
    for namespace in pair:
        with namespace:
            lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
        assert [line.split()[-1] for line in lines] == ["lo"]


def features(namespace: Namespace, name: str) -> dict[str, str]:
    text = namespace.run(["ethtool", "-k", name], capture_output=True, text=True).stdout
    return dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)


def test_offloads_are_off_where_that_was_ordered(pair: tuple[Namespace, Namespace]) -> None:
    a, b = pair
    veth_pair(VethEnd("left", a, offloads=False), VethEnd("right", b))
    names = [
        "tx-checksum-ip-generic",
        "tx-tcp-segmentation",
        "generic-segmentation-offload",
        "tx-vlan-offload",
        "rx-vlan-offload",
    ]
    left, right = features(a, "left"), features(b, "right")
    assert [left[name] for name in names] == ["off"] * 5
    assert left["generic-receive-offload"] == "off"
    assert [right[name] for name in names] == ["on"] * 5
    with a:
        ethtool.set_offloads("left", on=True)
    left = features(a, "left")
    assert [left[name] for name in names] == ["on"] * 5
    assert left["generic-receive-offload"] == "on"


def test_threaded_napi_is_on_where_that_was_ordered(pair: tuple[Namespace, Namespace]) -> None:
    a, b = pair
    veth_pair(VethEnd("left", a, threaded=True), VethEnd("right", b))
    for namespace, name, expected in [(a, "left", b"1\n"), (b, "right", b"0\n")]:
        with namespace, open(open_sysfs(f"class/net/{name}/threaded", os.O_RDONLY), "rb") as file:
            assert file.read() == expected
    assert features(a, "left")["generic-receive-offload"] == "off"


def test_a_name_that_is_taken_is_told(pair: tuple[Namespace, Namespace]) -> None:
    a, b = pair
    veth_pair(VethEnd("left", a), VethEnd("right", b))
    with pytest.raises(XdpipeError) as raised:
        veth_pair(VethEnd("left", a), VethEnd("other", b))
    assert str(raised.value) == "veth pair left, other with 2 queues: File exists"


def test_nothing_leaks() -> None:
    def one() -> None:
        with_two = [Namespace(), Namespace()]
        veth_pair(
            VethEnd("left", with_two[0], ["10.0.0.1/24"], threaded=True),
            VethEnd("right", with_two[1], ["fd00::1/64"]),
        )
        with with_two[0]:
            Link.all()
        with_two[0].run(["true"])
        for namespace in with_two:
            namespace.close()

    one()  # what is made once and kept is made now
    before = os.listdir("/proc/self/fd"), threading.active_count(), namespaces()
    mounts = Path("/proc/self/mountinfo").read_text()
    for _ in range(5):
        one()
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before[:2]
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not Path("/run/netns").exists() or not list(Path("/run/netns").glob("xdpipe*"))


HOLDER = """
import signal, sys
from xdpipe.netns import Namespace, VethEnd, veth_pair
a, b = Namespace(), Namespace()
veth_pair(VethEnd("left", a), VethEnd("right", b))
children = [namespace.popen(["sleep", "600"]) for namespace in (a, b)]
for namespace in (a, b):
    namespace.run(["readlink", "/proc/self/ns/net"])
print(*(child.pid for child in children), flush=True)
signal.pause()
"""


def test_after_sigkill_no_namespace_and_no_program_is_left() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout as out:
        theirs = {out.readline().strip(), out.readline().strip()}
        children = [int(pid) for pid in out.readline().split()]
        descriptors = [os.pidfd_open(pid) for pid in children]
    assert len(theirs) == 2
    assert theirs <= namespaces()
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    for descriptor in descriptors:  # readable once the process is gone
        assert wait_for_end(descriptor)
        os.close(descriptor)
    assert not theirs & namespaces()


def wait_for_end(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))
