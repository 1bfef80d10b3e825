"""What a NIC tells of a packet besides its bytes, as columns. A veth tells hash and VLAN tag."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from hosts import CLIENT4, EXAMPLES, HOST4, KERNEL, PIPELINES, Bench, echoes

Test = Callable[..., Any]
PORTS = range(2001, 2009)
EACH = 10


@pytest.fixture
def vlan(bench: Bench) -> str:
    """Have VLAN 5 between the two, its tags beside the packets, as between NICs with offloads."""
    for namespace, dev, address in (
        (bench.host, "h0", "10.5.0.1/24"), (bench.client, "c0", "10.5.0.2/24"),
    ):  # fmt: skip
        namespace.run(["ethtool", "-K", dev, "rxvlan", "on", "txvlan", "on"])
        add = ["ip", "link", "add", "v5", "link", dev, "type", "vlan", "id", "5"]
        if namespace.run(add, check=False, capture_output=True).returncode != 0:
            pytest.skip("this kernel has no VLAN interfaces (module 8021q)")
        namespace.run(["ip", "address", "add", address, "dev", "v5"])
        namespace.run(["ip", "link", "set", "v5", "up"])
    return "10.5.0.1"


def send(bench: Bench, address: str) -> int:
    n = 0
    for port in PORTS:
        with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.bind(("", port))
            for _ in range(EACH):
                sock.sendto(b"x", (address, 9))
                n += 1
    return n


def kernel_without_tags(test: Test) -> Test:
    """Mark a test of which another one, of VLAN tags, asks the same where the kernel tells them."""
    return test if KERNEL >= (6, 8) else pytest.mark.kernel(test)


@kernel_without_tags
def test_columns_say_what_the_nic_told_and_what_it_did_not(bench: Bench) -> None:
    running = bench.run(PIPELINES / "nic_told.py")
    n = send(bench, HOST4)
    final = running.end()
    counted = final["stages"][1]["counters"]
    told = KERNEL >= (6, 3)
    assert counted["packets"] == counted["untold_is_0"] == counted["one_hash_a_flow"] == n
    assert counted["hash"] == (n if told else 0)
    assert counted["time"] == counted["vlan"] == 0
    assert final["hints"] is told
    if told:
        assert final["stderr"] == ""
    else:
        assert "h0 tells nothing of its packets (columns nic_…): " in final["stderr"]
    assert final["ledger"]["residual"] == 0


@pytest.mark.kernel
@pytest.mark.skipif(KERNEL < (6, 8), reason="NICs tell of VLAN tags from Linux 6.8 on")
def test_a_vlan_tag_that_the_nic_took_out_is_told(bench: Bench, vlan: str) -> None:
    running = bench.run(PIPELINES / "nic_told.py")
    n = send(bench, HOST4)
    n_tagged = send(bench, vlan)
    counted = running.end()["stages"][1]["counters"]
    assert counted["packets"] == counted["untold_is_0"] == n + n_tagged
    assert counted["hash"] == n + n_tagged
    assert counted["vlan"] == counted["vlan_5"] == n_tagged


@pytest.mark.kernel
@pytest.mark.skipif(KERNEL < (6, 8), reason="NICs tell of VLAN tags from Linux 6.8 on")
def test_a_packet_that_is_given_or_sent_back_has_its_tag_again(bench: Bench, vlan: str) -> None:
    running = bench.run(PIPELINES / "back.py")
    bench.reach(vlan)
    n = echoes(bench, CLIENT4, HOST4, [100], rounds=1)
    n += echoes(bench, "10.5.0.2", vlan, [1, 100, 1400])
    ledger = running.end()["ledger"]
    assert ledger["passed"] == 10
    assert ledger["sent"] == n
    assert ledger["residual"] == 0


def test_in_generic_mode_the_columns_are_absent_and_that_is_told(bench: Bench) -> None:
    running = bench.run(PIPELINES / "nic_told.py", "--attach", "generic")
    n = send(bench, HOST4)
    final = running.end()
    counted = final["stages"][1]["counters"]
    assert counted["packets"] == counted["untold_is_0"] == n
    assert counted["hash"] == counted["time"] == counted["vlan"] == 0
    assert final["hints"] is False
    assert final["stderr"] == (
        "h0 tells nothing of its packets (columns nic_…): the program is attached in generic mode\n"
    )


def test_a_pipeline_that_asks_nothing_of_the_nic_is_told_nothing(bench: Bench) -> None:
    running = bench.run(EXAMPLES / "udp_echo.py")
    echoes(bench, CLIENT4, HOST4, [100])
    assert running.end()["hints"] is False
