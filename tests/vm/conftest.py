"""The host and the client of this tier: joined by NICs of the VM, each kind in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import Bench, nic_bench, nics

ZERO_COPY = ("virtio", "igb")
COPY_ONLY = ("vmxnet3",)


def _bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param not in nics():
        pytest.skip(f"this VM has no {request.param}: ./dev vm run --nic {request.param} …")
    with nic_bench(request.param, tmp_path) as bench:
        yield bench


@pytest.fixture(params=ZERO_COPY)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Return a host and a client over a pair of NICs with zero copy, two queues each."""
    yield from _bench(request, tmp_path)


@pytest.fixture(params=COPY_ONLY)
def copy_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Return a host and a client over NICs whose driver has XDP, but no zero copy."""
    yield from _bench(request, tmp_path)
