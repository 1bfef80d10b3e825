"""Packets that come by one NIC and go out of another, in zero copy, in their frames."""

from contextlib import closing
from pathlib import Path

import pytest

from hosts import EXAMPLES, HOST4, HOST6, await_carrier, nic_bench, nic_crossing, nics
from ports import check_forwarding, shared
from xdpipe.umem import Geometry, Umem


def has_both() -> None:
    """Skip where this VM has not NICs of both kinds."""
    if not {"virtio", "igb"} <= set(nics()):
        pytest.skip("this VM has not both: ./dev vm run --nic virtio --nic igb …")


@pytest.mark.parametrize(
    ("inside", "outside"), [("virtio", "igb"), ("igb", "virtio")], ids=["there", "back"]
)
def test_two_kinds_of_nics_are_one_cable_in_zero_copy(
    tmp_path: Path, inside: str, outside: str
) -> None:
    has_both()
    with nic_crossing(inside, outside, tmp_path) as bench:
        running = bench.run(EXAMPLES / "inline_filter.py", "--mode", "zerocopy")
        for namespace, dev in (
            (bench.host, "m0"), (bench.host, "m1"), (bench.client, "c0"), (bench.far, "f0"),
        ):  # fmt: skip
            await_carrier(namespace, dev)
        for address in (HOST4, HOST6):
            bench.reach(address, "-s", "1400")
        final = running.end()
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    assert {port["driver"] for port in final["ports"]} == {"virtio_net", "igb"}
    ledger = final["ledger"]
    assert ledger["residual"] == 0, ledger
    assert ledger["forwarded"] == ledger["verdicts"]["FORWARD"] >= 40
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker


def test_a_packet_goes_from_one_kind_of_nic_to_another_in_its_frame(tmp_path: Path) -> None:
    has_both()
    with (
        closing(Umem(Geometry(frame_size=4096))) as umem,  # igb fills whole KiB of a frame
        nic_bench("virtio", tmp_path) as virtio,
        nic_bench("igb", tmp_path) as igb,
        shared(umem, [(virtio, 0), (virtio, 1), (igb, 0)], mode="zerocopy") as ports,
    ):
        check_forwarding(umem, ports, virtio, igb)
