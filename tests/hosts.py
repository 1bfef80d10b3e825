"""A host and a client in namespaces of their own, and xdpipe run on the host as a user runs it.

They are joined by a veth pair or, in the test VM, by a pair of its NICs.
"""

import functools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd, veth_pair
from xdpipe.rundir import RunDir

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PIPELINES = ROOT / "tests" / "veth" / "pipelines"

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
HOST_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HOST4, CLIENT4 = "10.1.0.1", "10.1.0.2"
HOST6, CLIENT6 = "fd01::1", "fd01::2"

KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
"""Major and minor version of the one that we run on."""
PATIENCE = 4 if os.environ.get("XDPIPE_VM") == "tcg" else 1
"""Python is some ten times slower in an emulated machine."""


def pps(rate: int) -> str:
    """Return packets/s that whoever takes a host's `rate` takes in an emulated machine, too."""
    return str(rate // PATIENCE**2)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> Any:
    """Return the condition's first true value; fail, naming what did not come, when time is up.

    It is asked again after ten times as long as it took, so that asking keeps no CPU from what is
    awaited, which may be slow.
    """
    timeout_s *= PATIENCE
    end = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > end:
            pytest.fail(f"{what}: did not come true within {timeout_s} s")
        select.select([], [], [], max(0.02 * PATIENCE, 10 * (now - asked)))


@dataclass
class Running:
    """`xdpipe run` in the host's namespace."""

    popen: subprocess.Popen[str]
    run_dir: Path
    final: dict[str, Any] = field(default_factory=dict)

    def status(self) -> dict[str, Any] | None:
        """Return its live status, None while it starts."""
        for path in self.run_dir.glob("*/control.sock"):
            answer: dict[str, Any] | None = RunDir(path.parent).ask("status", 5.0 * PATIENCE)
            return answer
        return None

    def wait_ready(self) -> dict[str, Any]:
        """Return its status as soon as it takes packets."""

        def ready() -> dict[str, Any] | None:
            if self.popen.poll() is not None:
                out, err = self.popen.communicate()
                pytest.fail(f"xdpipe run ended with {self.popen.returncode}: {out}{err}")
            return self.status()

        status: dict[str, Any] = until(ready, "xdpipe run takes packets")
        return status

    def end(self, number: int = signal.SIGINT) -> dict[str, Any]:
        """End it as Ctrl-C does, and return what it printed: the final status."""
        if self.popen.returncode is None:
            self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=30 * PATIENCE)
        assert self.popen.returncode == 0, err
        self.final = json.loads(out)
        self.final["stderr"] = err
        return self.final


@dataclass
class Bench:
    """The two namespaces `host` (veth `h0`) and `client` (veth `c0`), two queues each."""

    host: Namespace
    client: Namespace
    run_dir: Path
    started: list[Running] = field(default_factory=list)
    devs: tuple[str, ...] = ("h0",)
    """Of the host: what `xdpipe run` is given."""

    def xdpipe(
        self, *args: str, where: Namespace | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of xdpipe to its end, on the host unless told otherwise."""
        return (where or self.host).run(
            [sys.executable, "-P", "-m", "xdpipe", *args],
            timeout=timeout * PATIENCE, check=False, capture_output=True, text=True,
            env=self.env,
        )  # fmt: skip

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "XDPIPE_RUN_DIR": str(self.run_dir)}

    def run(self, file: str | Path, *args: str, ready: bool = True) -> Running:
        """Start `xdpipe run FILE --dev … --json ARGS`, and wait until it takes packets."""
        devs = [word for dev in self.devs for word in ("--dev", dev)]
        popen = self.host.popen(
            [sys.executable, "-P", "-m", "xdpipe", "run", str(file), *devs, "--json", *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env,
        )  # fmt: skip
        running = Running(popen, self.run_dir)
        self.started.append(running)
        if ready:
            running.wait_ready()
        return running

    def replay(self, capture: str | Path, *args: str, timeout: float = 60) -> dict[str, Any]:
        """Send a capture from the client to the host; return what `xdpipe replay` printed."""
        done = self.xdpipe("replay", str(capture), "--dev", "c0", "--json", *args,
                           where=self.client, timeout=timeout)  # fmt: skip
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def ping(self, address: str, *options: str, n: int = 10) -> str:
        """Return what ping says of n packets that the client sends at once.

        With an interval it would wait no longer than that for late answers (iputils, ping.c); and
        its socket's buffer has room for three or four packets, unless told otherwise.
        """
        done = self.client.run(
            ["ping", "-c", str(n), "-l", str(n), "-S", "400000", "-W", str(5 * PATIENCE), *options,
             address],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        return str(done.stdout + done.stderr)

    def reach(self, address: str, *options: str, n: int = 10) -> str:
        """Ping as above; all of it must be answered."""
        told = self.ping(address, *options, n=n)
        if " 0% packet loss" not in told:
            status = self.started[-1].status() if self.started else None
            pytest.fail(f"{told}{json.dumps(status, indent=1)}")
        return told

    def raw_socket(self) -> socket.socket:
        """Return a socket that sees, whole, the IPv4 packets that come in by the host's end."""
        sock = self.host.call(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        )
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        sock.bind(("h0", 0x0800))
        sock.settimeout(10)
        return sock


def stop_all(bench: Bench) -> None:
    for running in bench.started:
        if running.popen.poll() is None:
            running.popen.kill()
            running.popen.communicate()


def close(bench: Bench) -> None:
    stop_all(bench)
    bench.host.close()
    bench.client.close()


def echoes(bench: Bench, local: str, remote: str, sizes: list[int], rounds: int = 3) -> int:
    """Send datagrams of these sizes from several ports; check each answer; return how many."""
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    rng = random.Random(7)
    n = 0
    for _ in range(rounds):
        with bench.client.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
            sock.bind((local, 0))
            sock.connect((remote, 7))
            sock.settimeout(5 * PATIENCE)
            for size in sizes:
                data = rng.randbytes(size)
                sock.send(data)
                try:
                    answer = sock.recv(65535)
                except TimeoutError:
                    status = bench.started[-1].status()
                    pytest.fail(f"no answer to {size} bytes from {remote}, number {n}: {status}")
                assert answer == data
                n += 1
    return n


def ends(host: Namespace, client: Namespace) -> tuple[VethEnd, VethEnd]:
    return (
        VethEnd("h0", host, [f"{HOST4}/24", f"{HOST6}/64"], mac=HOST_MAC, offloads=False),
        VethEnd("c0", client, [f"{CLIENT4}/24", f"{CLIENT6}/64"], mac=CLIENT_MAC, offloads=False),
    )


@contextmanager
def veth_bench(tmp_path: Path) -> Iterator[Bench]:
    """Make a host and a client, joined by a veth pair with two queues."""
    host, client = Namespace(), Namespace()
    veth_pair(*ends(host, client))
    bench = Bench(host, client, tmp_path / "run")
    yield bench
    close(bench)


@dataclass
class Crossing(Bench):
    """A host with two veths, `m0` to the client and `m1` to `far`, which are in one network."""

    far: Namespace = field(default_factory=Namespace)


@contextmanager
def crossing(tmp_path: Path, *, offloads: bool = False, mtu: int = 1500) -> Iterator[Crossing]:
    """Make client and far (addresses of a host and a client elsewhere), and a host between them.

    Args:
        tmp_path: for what a pipeline writes down.
        offloads: of client and far; see VethEnd.
        mtu: of all links.
    """
    bench = Crossing(Namespace(), Namespace(), tmp_path / "run", devs=("inside=m0", "outside=m1"))
    ends = (
        ("m0", bench.client, VethEnd(
            "c0", bench.client, [f"{CLIENT4}/24", f"{CLIENT6}/64"], CLIENT_MAC, offloads)),
        ("m1", bench.far, VethEnd(
            "f0", bench.far, [f"{HOST4}/24", f"{HOST6}/64"], HOST_MAC, offloads)),
    )  # fmt: skip
    for name, _, end in ends:
        veth_pair(VethEnd(name, bench.host, offloads=False), end, mtu=mtu)
    try:
        yield bench
    finally:
        close(bench)
        bench.far.close()


@contextmanager
def vlan_switch(client: Namespace, tag: int, *addresses: str) -> Iterator[None]:
    """Have a VLAN switch before the client, which has these addresses on an interface `t0`."""
    switch = client.popen(
        [sys.executable, str(ROOT / "tests" / "veth" / "vlan_switch.py"), str(tag), *addresses],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert switch.stdout is not None
        assert switch.stdout.readline() == "ready\n"
        yield
    finally:
        switch.communicate(timeout=10)


# In the test VM: vm/nics.py says which NICs there are.


def nics() -> list[str]:
    """Return the kinds of NICs of the test VM that we are in; none elsewhere."""
    return [kind for kind in os.environ.get("XDPIPE_VM_NICS", "").split(",") if kind]


def nic_kind() -> str | None:
    """Return the kind of NIC that is to stand for the veth pair of the tests, or None."""
    return os.environ.get("XDPIPE_TEST_NIC") or None


def take_nics(ends: Sequence[tuple[str, VethEnd]]) -> None:
    """Have the VM's NICs of these kinds, by their MAC addresses, be these ends, two queues each."""
    # Elsewhere the root of the repository need not be among the places that modules come from.
    from vm.inside import find_nic, take_nic

    for kind, end in ends:
        nic = until(functools.partial(find_nic, kind, end.mac), f"the {kind} of {end.name}")
        take_nic(nic, end, n_queues=2)
    for _, end in ends:
        await_carrier(end.namespace, end.name)


def await_carrier(namespace: Namespace, dev: str) -> None:
    """Wait until a link has its carrier, which a NIC loses for a while when it is reset."""
    until(lambda: namespace.call(lambda: Link.find(dev)).carrier, f"carrier of {dev}")


@contextmanager
def nic_crossing(inside: str, outside: str, tmp_path: Path) -> Iterator[Crossing]:
    """Make client, host and far as `crossing` does, joined by two kinds of the VM's NICs."""
    bench = Crossing(Namespace(), Namespace(), tmp_path / "run", devs=("inside=m0", "outside=m1"))
    ends = (
        (inside, HOST_MAC, VethEnd("m0", bench.host)),
        (inside, CLIENT_MAC, VethEnd("c0", bench.client, [f"{CLIENT4}/24", f"{CLIENT6}/64"])),
        (outside, CLIENT_MAC, VethEnd("m1", bench.host)),
        (outside, HOST_MAC, VethEnd("f0", bench.far, [f"{HOST4}/24", f"{HOST6}/64"])),
    )
    take_nics([(kind, replace(end, mac=mac, offloads=False)) for kind, mac, end in ends])
    try:
        yield bench
    finally:
        close(bench)
        bench.far.close()


@contextmanager
def nic_link(kind: str) -> Iterator[tuple[Namespace, Namespace]]:
    """Make a host and a client, joined by the VM's pair of NICs of this kind, two queues each."""
    host, client = Namespace(), Namespace()
    take_nics([(kind, end) for end in ends(host, client)])
    try:
        yield host, client
    finally:
        host.close()  # which gives the NICs back
        client.close()


@contextmanager
def nic_bench(kind: str, tmp_path: Path) -> Iterator[Bench]:
    """Make such a host and a client, for one test."""
    with nic_link(kind) as (host, client):
        bench = Bench(host, client, tmp_path / "run")
        try:
            yield bench
        finally:
            stop_all(bench)
