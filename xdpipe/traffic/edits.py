"""What is changed in packets on their way from a capture to a link, as options say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from xdpipe.errors import XdpipeError
from xdpipe.stages import FitMtu, FixChecksums, MapAddresses, SetVlan, Where
from xdpipe.stages.set_addresses import read_mac
from xdpipe.verdict import DROP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdpipe.stage import Stage

IpMap: TypeAlias = tuple[IPv4Network | IPv6Network, IPv4Network | IPv6Network]
MacMap: TypeAlias = tuple[bytes, bytes]
PortMap: TypeAlias = tuple[range, range]

FILTER, EDIT, TOO_LONG = "filter", "edit", "too_long"
"""Reasons for which packets are left out."""


class Vlan(NamedTuple):
    """The VLAN that packets are to be in.

    Attributes:
        vid: 0 to 4094; None: without a tag.
        pcp: priority, 0 to 7; None: as it is, 0 in a tag that is new.
    """

    vid: int | None
    pcp: int | None = None


class EditStages(NamedTuple):
    """Edits as stages, which stand behind Headers.

    Attributes:
        chain: in order.
        left_out: by reason, what tells how many packets were given the verdict DROP so far.
    """

    chain: list[Stage]
    left_out: dict[str, Callable[[], int]]


@dataclass(frozen=True)
class Edits:
    """What is changed in packets, and which are left out; in the order in which it is done.

    Attributes:
        filter: tcpdump filter: of the capture, only packets that it takes; "": all.
        edit: Python file with a function `edit` (edit_file.py); None: none.
        map_ip: pairs of networks, from and to (MapAddresses).
        map_mac: pairs of MAC addresses, 6 bytes each.
        map_port: pairs of ranges of ports.
        vlan: the VLAN that packets are put into; None: they stay where they are.
        mtu: the most that packets may have behind Ethernet header and tags; bytes; None: what the
            link has.
        truncate: cut packets that have more, rather than leave them out.
        fix_checksums: compute the checksums of all packets anew.
    """

    filter: str = ""
    edit: Path | None = None
    map_ip: tuple[IpMap, ...] = ()
    map_mac: tuple[MacMap, ...] = ()
    map_port: tuple[PortMap, ...] = ()
    vlan: Vlan | None = None
    mtu: int | None = None
    truncate: bool = False
    fix_checksums: bool = False

    def stages(self, link_mtu: int | None = None) -> EditStages:
        """Return the edits as stages, new ones with each call; but for `edit` and what is before.

        Where there is a function, a capture was made by it of what the filter takes: the filter is
        not among the stages then.

        Args:
            link_mtu: of the link that packets go to; bytes; None: there is none.

        Raises:
            XdpipeError: there is no such filter, or the like.
        """
        chain: list[Stage] = []
        left_out: dict[str, Callable[[], int]] = {}
        if self.filter and self.edit is None:
            where = Where(self.filter, otherwise=DROP)
            chain.append(where)
            left_out[FILTER] = lambda: where.counted("other")
        if self.map_ip or self.map_mac or self.map_port:
            chain.append(MapAddresses(self.map_ip, self.map_mac, self.map_port))
        if self.vlan is not None:
            chain.extend(_vlan(self.vlan))
        mtu = link_mtu if self.mtu is None else self.mtu
        if mtu is not None:
            fit = FitMtu(mtu, truncate=self.truncate)
            chain.append(fit)
            left_out[TOO_LONG] = lambda: fit.counted("left_out")
        elif self.truncate:
            raise XdpipeError("--truncate: there is no link whose MTU would count; say --mtu BYTES")
        if self.fix_checksums:
            chain.append(FixChecksums())
        return EditStages(chain, left_out)


NO_EDITS = Edits()


def _vlan(vlan: Vlan) -> list[Stage]:
    if vlan.vid is None:
        return [SetVlan(pop=True), SetVlan(pop=True)]
    return [SetVlan(vlan.vid, vlan.pcp, put=True)]


def _pair(option: str, text: str, example: str) -> tuple[str, str]:
    was, equals, new = text.partition("=")
    if not was or not equals or not new:
        raise XdpipeError(f"{option} {text}: write FROM=TO, such as {example}")
    return was.strip(), new.strip()


def parse_map_ip(text: str) -> IpMap:
    """Read NETWORK=NETWORK, of IPv4 or IPv6; an address is the smallest network.

    Raises:
        XdpipeError: it is no such pair.
    """
    pair = _pair("--map-ip", text, "10.0.0.0/8=192.168.0.0/16")
    try:
        was, new = map(ip_network, pair)
    except ValueError as error:
        raise XdpipeError(f"--map-ip {text}: {error}") from error
    if was.version != new.version:
        raise XdpipeError(f"--map-ip {text}: one is IPv4 and one IPv6; a pair is of one version")
    return was, new


def parse_map_mac(text: str) -> MacMap:
    """Read MAC=MAC.

    Raises:
        XdpipeError: it is no such pair.
    """
    was, new = _pair("--map-mac", text, "02:00:00:00:00:01=02:00:00:00:00:02")
    return read_mac("--map-mac: FROM", was), read_mac("--map-mac: TO", new)


_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse_map_port(text: str) -> PortMap:
    """Read PORT=PORT, FIRST-LAST=FIRST-LAST of as many, or FIRST-LAST=PORT.

    Raises:
        XdpipeError: it is no such pair.
    """
    sides = []
    for side in _pair("--map-port", text, "80=8080 or 8000-8009=9000-9009"):
        found = _PORTS.fullmatch(side)
        ports = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
        if not ports or ports[-1] > 0xFFFF:
            raise XdpipeError(f"--map-port {text}: {side}: a port, 0 to 65535, or FIRST-LAST")
        sides.append(ports)
    was, new = sides
    if len(new) not in (1, len(was)):
        raise XdpipeError(
            f"--map-port {text}: {len(was)} ports to {len(new)}: as many, or a single one"
        )
    return was, new


_VLAN = re.compile(r"(\d{1,4})(?::([0-7]))?")


def parse_vlan(text: str) -> Vlan:
    """Read VID, VID:PRIORITY or `none`.

    Raises:
        XdpipeError: it is none of these.
    """
    if text == "none":
        return Vlan(None)
    found = _VLAN.fullmatch(text)
    if found is None or int(found[1]) > 4094:
        raise XdpipeError(f"--vlan {text}: a VLAN, 0 to 4094, as 5 or with a priority 5:3; or none")
    return Vlan(int(found[1]), None if found[2] is None else int(found[2]))
