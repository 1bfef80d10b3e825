"""What options say about edits: what they are read as, and the stages that come of it."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from xdpipe.errors import XdpipeError
from xdpipe.traffic.edits import (
    Edits,
    Vlan,
    parse_map_ip,
    parse_map_mac,
    parse_map_port,
    parse_vlan,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_map_ip, "10.0.0.0/8=192.168.0.0/16",
         (ip_network("10.0.0.0/8"), ip_network("192.168.0.0/16"))),
        (parse_map_ip, "10.0.0.1=10.0.0.2", (ip_network("10.0.0.1/32"), ip_network("10.0.0.2/32"))),
        (parse_map_ip, "::/0 = fd00::/8", (ip_network("::/0"), ip_network("fd00::/8"))),
        (parse_map_mac, "02:00:00:00:00:01=FF:ff:00:00:00:02",
         (b"\x02\0\0\0\0\1", b"\xff\xff\0\0\0\2")),
        (parse_map_port, "80=8080", (range(80, 81), range(8080, 8081))),
        (parse_map_port, "8000-8009=9000-9009", (range(8000, 8010), range(9000, 9010))),
        (parse_map_port, "0-65535=7", (range(65536), range(7, 8))),
        (parse_vlan, "none", Vlan(None)),
        (parse_vlan, "0", Vlan(0)),
        (parse_vlan, "4094:7", Vlan(4094, 7)),
    ],
)  # fmt: skip
def test_options_are_read(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (parse_map_ip, "10.0.0.0/8", "--map-ip 10.0.0.0/8: write FROM=TO, such as 10.0.0.0/8="),
        (parse_map_ip, "=10.0.0.0/8", "write FROM=TO"),
        (parse_map_ip, "10.0.0.0/8=", "write FROM=TO"),
        (parse_map_ip, "10.0.0.1/8=11.0.0.0/8", "10.0.0.1/8 has host bits set"),
        (parse_map_ip, "10.0.0.0/33=11.0.0.0/8", "--map-ip 10.0.0.0/33=11.0.0.0/8: '10.0.0.0/33'"),
        (parse_map_ip, "10.0.0.0/8=fd00::/8", "one is IPv4 and one IPv6"),
        (parse_map_mac, "02:00:00:00:00:01", "write FROM=TO"),
        (parse_map_mac, "02:00:00:00:00:01=2", "--map-mac: TO='2': write a MAC address"),
        (parse_map_port, "80", "write FROM=TO, such as 80=8080"),
        (parse_map_port, "http=8080", "--map-port http=8080: http: a port, 0 to 65535"),
        (parse_map_port, "80=65536", "80=65536: 65536: a port"),
        (parse_map_port, "90-80=1", "90-80: a port, 0 to 65535, or FIRST-LAST"),
        (parse_map_port, "1-3=5-6", "3 ports to 2: as many, or a single one"),
        (parse_vlan, "4095", "--vlan 4095: a VLAN, 0 to 4094"),
        (parse_vlan, "5:8", "--vlan 5:8"),
        (parse_vlan, "", "or none"),
        (parse_vlan, "-1", "--vlan -1"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(
    parse: Callable[[str], Any], text: str, told: str
) -> None:
    with pytest.raises(XdpipeError) as raised:
        parse(text)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


ALL = Edits(
    filter="udp", map_ip=(parse_map_ip("10.0.0.0/8=11.0.0.0/8"),), vlan=Vlan(5), mtu=1400,
    truncate=True, fix_checksums=True,
)  # fmt: skip


def names(edits: Edits, link_mtu: int | None = None) -> list[str]:
    return [type(stage).__name__ for stage in edits.stages(link_mtu).chain]


def test_the_order_of_edits() -> None:
    assert names(ALL) == ["Where", "MapAddresses", "SetVlan", "FitMtu", "FixChecksums"]
    assert names(Edits()) == []
    assert list(ALL.stages().left_out) == ["filter", "too_long"]


@pytest.mark.parametrize(
    ("edits", "link_mtu", "mtu", "truncate"),
    [
        (Edits(), 1500, 1500, False),
        (Edits(mtu=1400), 1500, 1400, False),
        (Edits(mtu=9000), 1500, 9000, False),
        (Edits(truncate=True), 1500, 1500, True),
        (Edits(mtu=1400, truncate=True), None, 1400, True),
    ],
)
def test_the_mtu_is_the_links_unless_it_is_said(
    edits: Edits, link_mtu: int | None, mtu: int, truncate: bool
) -> None:
    stages = edits.stages(link_mtu)
    assert [stage.values() for stage in stages.chain] == [  # type: ignore[attr-defined]
        {"mtu": mtu, "truncate": truncate}
    ]


def test_without_a_link_nothing_says_to_what_to_cut() -> None:
    assert names(Edits()) == []
    with pytest.raises(XdpipeError, match=r"--truncate: there is no link .*; say --mtu BYTES"):
        Edits(truncate=True).stages()


def test_more_maps_than_a_stage_has_room_for_are_refused() -> None:
    edits = Edits(map_port=((range(80, 81), range(81, 82)),) * 65)
    with pytest.raises(XdpipeError, match="65 ports; 64 are the most"):
        edits.stages()
