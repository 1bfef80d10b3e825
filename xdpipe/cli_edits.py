"""Options that say what is changed in packets on their way; for commands that send a capture."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.traffic.edits import Edits

_NAMES = (
    "filter", "edit", "map_ip", "map_mac", "map_port", "vlan", "mtu", "truncate", "fix_checksums",
)  # fmt: skip


def edit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which is given one `Edits` as `edits`."""

    @wraps(command)
    def with_edits(**values: Any) -> Any:
        given = {name: values.pop(name) for name in _NAMES}
        return command(edits=_edits(**given), **values)

    for option in reversed(
        (
            click.option(
                "--filter", metavar="EXPR", default="",
                help="Only packets that this tcpdump filter takes, as they are in the capture.",
            ),
            click.option(
                "--edit", metavar="FILE",
                help="Python file with edit(packet): each packet, as scapy's, becomes what it "
                "returns: a packet, a list of them, or None.",
            ),
            click.option(
                "--map-ip", multiple=True, metavar="NET=NET",
                help="Addresses of the first network become ones of the second, in IPv4, IPv6 and "
                "ARP; the host bits of the narrower one stay. May be said several times.",
            ),
            click.option(
                "--map-mac", multiple=True, metavar="MAC=MAC",
                help="The same for MAC addresses, of Ethernet and ARP.",
            ),
            click.option(
                "--map-port", multiple=True, metavar="PORT=PORT",
                help="The same for ports of TCP and UDP, or ranges: 8000-8009=9000-9009.",
            ),
            click.option(
                "--vlan", metavar="VID[:PRIORITY]",
                help="Put packets into this VLAN: the outer tag's, or a new tag's; none: take tags "
                "out.",
            ),
            click.option(
                "--mtu", type=click.IntRange(68, 65536),
                help="Leave out packets that have more bytes behind Ethernet header and tags. "
                "Default: the link's.",
            ),
            click.option(
                "--truncate", is_flag=True,
                help="Cut packets that are too long, rather than leave them out.",
            ),
            click.option(
                "--fix-checksums", is_flag=True,
                help="Compute the checksums of IPv4, TCP, UDP, ICMP and ICMPv6 anew.",
            ),
        )
    ):  # fmt: skip
        with_edits = option(with_edits)
    return with_edits


def _edits(edit: str | None, map_ip: tuple[str, ...], map_mac: tuple[str, ...],
           map_port: tuple[str, ...], vlan: str | None, **others: Any) -> Edits:  # fmt: skip
    from xdpipe.traffic import edits

    return edits.Edits(
        edit=None if edit is None else Path(edit),
        map_ip=tuple(map(edits.parse_map_ip, map_ip)),
        map_mac=tuple(map(edits.parse_map_mac, map_mac)),
        map_port=tuple(map(edits.parse_map_port, map_port)),
        vlan=None if vlan is None else edits.parse_vlan(vlan),
        **others,
    )
