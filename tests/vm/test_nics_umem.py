"""One UMEM under several zero-copy sockets: on two queues, and on NICs of two kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import Bench, nic_bench, nics
from ports import check_forwarding, check_own_frames, receive_all, send, shared
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


def test_a_packet_goes_from_one_kind_of_nic_to_another_in_its_frame(
    tmp_path: Path, umem: Umem
) -> None:
    if not {"virtio", "igb"} <= set(nics()):
        pytest.skip("this VM has not both: ./dev vm run --nic virtio --nic igb …")
    with (
        nic_bench("virtio", tmp_path) as virtio,
        nic_bench("igb", tmp_path) as igb,
        shared(umem, [(virtio, 0), (virtio, 1), (igb, 0)], mode="zerocopy") as ports,
    ):
        check_forwarding(umem, ports, virtio, igb)
