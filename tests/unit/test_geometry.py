"""The frame size that an interface's MTU and driver ask for."""

from dataclasses import replace
from itertools import pairwise

import pytest

from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.link import Link
from xdpipe.umem import Geometry, Umem

LINK = Link(
    name="eth9", index=9, mac="02:00:00:00:00:09", mtu=1500, up=True, carrier=True, driver="ice",
    n_rx_queues=1, n_tx_queues=1, xdp_program_id=None, xdp_mode=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "mtu", "frame_size"),
    [
        ("ice", 1500, 2048),
        ("ice", 2048 - 256 - 22, 2048),
        ("ice", 2048 - 256 - 21, 4096),
        ("ice", 4096 - 256 - 22, 4096),
        ("igb", 1024 - 22, 2048),  # of the 1792 bytes of a small frame it fills 1024
        ("igb", 1500, 4096),
        ("igb", 3 * 1024 - 22, 4096),
    ],
)
def test_a_packet_of_the_mtu_fits_in_what_the_driver_fills_of_a_frame(
    driver: str, mtu: int, frame_size: int
) -> None:
    assert Geometry.for_link(replace(LINK, driver=driver, mtu=mtu)).frame_size == frame_size


@pytest.mark.parametrize(
    ("driver", "mtu", "most"), [("ice", 9000, 4096 - 256 - 22), ("igb", 3 * 1024 - 21, 3050)]
)
def test_an_mtu_beyond_a_page_is_told_with_the_largest_that_fits(
    driver: str, mtu: int, most: int
) -> None:
    with pytest.raises(XdpipeError, match=f"ip link set eth9 mtu {most}$"):
        Geometry.for_link(replace(LINK, driver=driver, mtu=mtu))
    assert Geometry.for_link(replace(LINK, driver=driver, mtu=most)).frame_size == 4096


@pytest.mark.parametrize("frame_size", [2048, 2049, 3000, 3072, 4095, 4096])
def test_frames_lie_apart_and_none_across_two_huge_pages(frame_size: int) -> None:
    geometry = Geometry(frame_size=frame_size)
    umem = Umem(geometry)
    begins = [lib.xp_frame_addr(umem.c, i) for i in range(geometry.n_frames)]
    assert all(b - a >= frame_size for a, b in pairwise(begins))
    last = [begin + frame_size - 1 for begin in begins]
    assert all(a // lib.XP_BLOCK == b // lib.XP_BLOCK for a, b in zip(begins, last, strict=True))
    assert last[-1] < len(umem.memory) == geometry.size
    umem.close()


def test_a_frame_size_of_ones_own_is_taken_if_the_mtu_fits() -> None:
    assert Geometry.for_link(LINK, 3000, huge_pages=True) == Geometry(
        frame_size=3000, huge_pages=True
    )
    with pytest.raises(XdpipeError, match="add --huge-pages"):
        Geometry.for_link(LINK, 3000)
    with pytest.raises(XdpipeError, match="mtu 2722, or leave --frame-size out"):
        Geometry.for_link(replace(LINK, mtu=2723), 3000, huge_pages=True)
    with pytest.raises(XdpipeError, match="frame size 1024: the kernel takes 2048 to 4096"):
        Geometry.for_link(LINK, 1024)
