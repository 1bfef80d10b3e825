"""Have addresses and ports be others, by lists; core/stages/map_addresses.c does it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, ClassVar, TypeAlias

from xdpipe.errors import XdpipeError
from xdpipe.stages.rewriting import Rewriting, is_number
from xdpipe.stages.set_addresses import read_mac

Network: TypeAlias = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network
Mac: TypeAlias = str | bytes
Ports: TypeAlias = int | range

_MOST = 64


class MapAddresses(Rewriting):
    """Have the addresses and ports of the undecided packets be others, by lists of which.

    Source and destination alike: each address, and each port of TCP or UDP, becomes what the first
    pair of its list says that it is in. In ARP (IPv4 over Ethernet) the addresses of sender and
    target are mapped as well. Addresses that no pair has stay, and so do broadcast and multicast
    ones, unless a pair has them.

    Of two networks the host bits of the narrower one are kept: with ("10.0.0.0/8",
    "192.168.0.0/16") 10.7.8.9 becomes 192.168.8.9, and so does 10.1.8.9; with the two the other way
    round 192.168.8.9 becomes 10.0.8.9. A whole address is the narrowest: all that is mapped to it
    becomes that one.

    The checksums of IPv4, TCP, UDP and ICMPv6 are brought up to date (RFC 1624): one that was wrong
    stays wrong by as much. What else speaks of addresses is not touched: the packet within an ICMP
    error, neighbour discovery behind its IP header, routing headers and options, payload. Of a
    packet that is malformed behind a whole IP header, as those are that were cut when they were
    captured, the header's addresses are mapped all the same.

    The columns say what the packet says afterwards: `src`, `dst`, `l4_sport`, `l4_dport` and
    `flow_hash`. A packet of which something was mapped is counted as `mapped`, one that no pair
    fits as `unmatched`, and one in which Decap has entered a tunnel, that has fewer than 12
    bytes, or whose first of several frames ends within a header, is left alone, and counted as
    `left_alone`.

    Args:
        ip: pairs of networks or addresses, from and to, both of one version.
        mac: pairs of MAC addresses: "02:00:00:00:00:01", or their 6 bytes.
        port: pairs of ports, or of ranges of as many: (80, 8080), (range(8000, 8010), range(9000,
            9010)); or a range and a port, which all of the range become.
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: something is no such pair or mark; more than 64 of a kind; or none at all.
    """

    requires: ClassVar[tuple[str, ...]] = (
        "flags", "malformed", "ip_version", "l3", "l4", "src", "dst", "l4_sport", "l4_dport",
        "ip_proto", "flow_hash", "n_vlans",
    )  # fmt: skip
    counters: ClassVar[tuple[str, ...]] = ("mapped", "unmatched", "left_alone")
    function: ClassVar[str] = "xp_stage_map_addresses"
    state_type: ClassVar[str] = "struct xp_map_addresses_state"

    def __init__(
        self,
        ip: Sequence[tuple[Network, Network]] = (),
        mac: Sequence[tuple[Mac, Mac]] = (),
        port: Sequence[tuple[Ports, Ports]] = (),
        only: int | None = None,
    ) -> None:
        super().__init__(only)
        if not (ip or mac or port):
            raise XdpipeError(f"{self.name}: nothing to map; give ip, mac or port")
        by_version: dict[int, list[dict[str, Any]]] = {4: [], 6: []}
        for pair in ip:
            first, entry = self._ip(pair)
            by_version[first].append(entry)
        lists = {
            "ipv4": by_version[4],
            "ipv6": by_version[6],
            "macs": [self._mac(pair) for pair in mac],
            "ports": [self._port(pair) for pair in port],
        }
        for name, entries in lists.items():
            if len(entries) > _MOST:
                raise XdpipeError(f"{self.name}: {len(entries)} {name}; {_MOST} are the most")
        self._values = {**lists, **{f"n_{name}": len(entries) for name, entries in lists.items()}}

    def values(self) -> dict[str, Any]:
        """Return the fields of its state besides `counters` and `only`."""
        return self._values

    def _pair(self, name: str, pair: object) -> tuple[Any, Any]:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise XdpipeError(f"{self.name}: {name}: {pair!r}: write a pair, (from, to)")
        return pair

    def _ip(self, pair: object) -> tuple[int, dict[str, Any]]:
        """Return the version, and a struct xp_ip_map."""
        networks = []
        for each in self._pair("ip", pair):
            try:
                if not isinstance(each, Network):
                    raise ValueError("it is no address")
                networks.append(ip_network(each))
            except ValueError as error:
                raise XdpipeError(
                    f"{self.name}: ip: {each!r}: an IPv4 or IPv6 address, or a network: {error}"
                ) from error
        was, new = networks
        if was.version != new.version:
            raise XdpipeError(f"{self.name}: ip: {was} and {new}: both IPv4, or both IPv6")
        keep = min(int(was.hostmask), int(new.hostmask))
        size = was.max_prefixlen // 8
        return was.version, {
            "from": was.network_address.packed,
            "care": was.netmask.packed,
            "to": {
                "wanted": 1,
                "keep": keep.to_bytes(size, "big"),
                "set": (int(new.network_address) & ~keep).to_bytes(size, "big"),
            },
        }

    def _mac(self, pair: object) -> dict[str, bytes]:
        """Return a struct xp_mac_map."""
        was, new = (read_mac(f"{self.name}: mac", each) for each in self._pair("mac", pair))
        return {"from": was, "to": new}

    def _port(self, pair: object) -> dict[str, int]:
        """Return a struct xp_port_map."""
        was, new = (self._ports(each) for each in self._pair("port", pair))
        if len(new) not in (1, len(was)):
            raise XdpipeError(
                f"{self.name}: port: {len(was)} ports and {len(new)}: as many, or a single one"
            )
        return {
            "first": was[0], "last": was[-1], "to": new[0], "step": int(len(new) == len(was)),
        }  # fmt: skip

    def _ports(self, given: object) -> range:
        if isinstance(given, range) and given and given.step == 1:
            if given[0] >= 0 and given[-1] <= 0xFFFF:
                return given
        elif isinstance(given, int) and is_number(given, 0, 0xFFFF):
            return range(given, given + 1)
        raise XdpipeError(
            f"{self.name}: port: {given!r}: a port, 0 to 65535, or a range of them by ones"
        )
