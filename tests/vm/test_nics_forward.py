"""Packets that come by one NIC and go out of another, in zero copy, in their frames."""

from pathlib import Path

import pytest

from hosts import EXAMPLES, HOST4, HOST6, nic_crossing, nics, until

PATIENT = ["ping", "-c", "10", "-i", "0.2", "-W", "10"]


@pytest.mark.parametrize(
    ("inside", "outside"), [("virtio", "igb"), ("igb", "virtio")], ids=["there", "back"]
)
def test_two_kinds_of_nics_are_one_cable_in_zero_copy(
    tmp_path: Path, inside: str, outside: str
) -> None:
    if not {inside, outside} <= set(nics()):
        pytest.skip("this VM has not both: ./dev vm run --nic virtio --nic igb …")
    with nic_crossing(inside, outside, tmp_path) as bench:
        running = bench.run(EXAMPLES / "inline_filter.py", "--mode", "zerocopy")

        def ping(address: str) -> bool:
            done = bench.client.run(
                [*PATIENT, "-s", "1400", address], check=False, capture_output=True, text=True
            )
            return " 0% packet loss" in done.stdout

        for address in (HOST4, HOST6):  # both NICs may be without carrier for a while
            until(lambda address=address: ping(address), f"{address} answers")
        final = running.end()
    assert {worker["mode"] for worker in final["workers"]} == {"zerocopy"}
    assert {port["driver"] for port in final["ports"]} == {"virtio_net", "igb"}
    ledger = final["ledger"]
    assert ledger["residual"] == 0, ledger
    assert ledger["forwarded"] == ledger["verdicts"]["FORWARD"] >= 40
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"], worker
