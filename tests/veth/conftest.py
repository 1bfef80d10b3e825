"""The host and the client that the tests of this tier run between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import Bench, nic_bench, nic_kind, veth_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a host and a client, joined by a veth pair with two queues.

    In the test VM XDPIPE_TEST_NIC may name a kind of NIC to join them by instead.
    """
    kind = nic_kind()
    with nic_bench(kind, tmp_path) if kind else veth_bench(tmp_path) as bench:
        yield bench
