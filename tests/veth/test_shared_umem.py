"""One UMEM under several sockets: on two queues, and on two interfaces."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import Bench, veth_bench
from ports import check_forwarding, check_own_frames, receive_all, send, shared
from xdpipe.umem import Geometry, Umem


@pytest.fixture
def umem() -> Iterator[Umem]:
    umem = Umem(Geometry())
    yield umem
    umem.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Bench]:
    """Return two more hosts, with a link of their own."""
    with veth_bench(tmp_path) as bench:
        yield bench


def test_two_queues_fill_each_its_own_frames(bench: Bench, umem: Umem) -> None:
    with shared(umem, [(bench, 0), (bench, 1)]) as ports:
        send(bench, 40)
        check_own_frames(umem, receive_all(ports, 40), 40)


def test_a_packet_goes_from_one_interface_to_another_in_its_frame(
    bench: Bench, other: Bench, umem: Umem
) -> None:
    with shared(umem, [(bench, 0), (bench, 1), (other, 0)]) as ports:
        check_forwarding(umem, ports, bench, other)
