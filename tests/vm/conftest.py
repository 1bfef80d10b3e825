"""The host and the client of this tier: joined by NICs of the VM, each kind in turn.

To hand NICs over takes seconds where they are emulated, so the tests of a file have them one after
the other; each leaves them as it found them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import Bench, await_carrier, nic_link, nics, stop_all
from xdpipe.netns import Namespace

ZERO_COPY = ("virtio", "igb")
COPY_ONLY = ("vmxnet3",)
Joined = tuple[Namespace, Namespace]


def _link(request: pytest.FixtureRequest) -> Iterator[Joined]:
    if request.param not in nics():
        pytest.skip(f"this VM has no {request.param}: ./dev vm run --nic {request.param} …")
    with nic_link(request.param) as joined:
        yield joined


@pytest.fixture(params=ZERO_COPY, scope="module")
def link(request: pytest.FixtureRequest) -> Iterator[Joined]:
    """Return a host and a client over a pair of NICs with zero copy, two queues each."""
    yield from _link(request)


@pytest.fixture(params=COPY_ONLY, scope="module")
def copy_link(request: pytest.FixtureRequest) -> Iterator[Joined]:
    """Return a host and a client over NICs whose driver has XDP, but no zero copy."""
    yield from _link(request)


def _bench(joined: Joined, tmp_path: Path) -> Iterator[Bench]:
    for namespace, dev in zip(joined, ("h0", "c0"), strict=True):
        await_carrier(namespace, dev)
    bench = Bench(*joined, tmp_path / "run")
    yield bench
    stop_all(bench)


@pytest.fixture
def bench(link: Joined, tmp_path: Path) -> Iterator[Bench]:
    """Return the bench over NICs with zero copy."""
    yield from _bench(link, tmp_path)


@pytest.fixture
def copy_bench(copy_link: Joined, tmp_path: Path) -> Iterator[Bench]:
    """Return the bench over NICs without zero copy."""
    yield from _bench(copy_link, tmp_path)
