"""One UMEM under several zero-copy sockets."""

from collections.abc import Iterator

import pytest

from hosts import Bench
from ports import check_own_frames, receive_all, send, shared
from xdpipe.umem import Geometry, Umem


@pytest.fixture
def umem() -> Iterator[Umem]:
    umem = Umem(Geometry(frame_size=4096))  # igb fills whole KiB of a frame
    yield umem
    umem.close()


def test_two_queues_fill_each_its_own_frames(bench: Bench, umem: Umem) -> None:
    with shared(umem, [(bench, 0), (bench, 1)], mode="zerocopy") as ports:
        send(bench, 40)
        check_own_frames(umem, receive_all(ports, 40), 40)
