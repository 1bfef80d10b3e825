"""Write other addresses and ports into packets; core/stages/set_addresses.c does it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, ClassVar, TypeAlias

from xdpipe.errors import XdpipeError
from xdpipe.stages.rewriting import Rewriting, is_number

Address: TypeAlias = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def read_mac(who: str, given: object) -> bytes:
    """Return the 6 bytes of a MAC address.

    Raises:
        XdpipeError: it is none; the message begins with `who`.
    """
    if isinstance(given, str) and _MAC.fullmatch(given):
        return bytes.fromhex(given.replace(":", ""))
    if isinstance(given, bytes) and len(given) == 6:
        return given
    raise XdpipeError(f'{who}={given!r}: write a MAC address, "02:00:00:00:00:01", or 6 bytes')


class SetAddresses(Rewriting):
    """Set addresses of Ethernet and IP and ports of TCP and UDP in the undecided packets.

    Each that is given is set where a packet has it: an IPv4 address in IPv4 packets, an IPv6 one in
    IPv6 packets, both if there is a tuple of the two; a port where there is TCP or UDP, but not in
    a later fragment, which has none. VLAN tags stay.

    The checksums of IPv4, TCP, UDP and ICMPv6 are brought up to date (RFC 1624): one that was wrong
    stays wrong by as much, and a UDP checksum of 0, which says that there is none, stays. Of a
    fragmented datagram the first fragment has it, and it is right if all of them are rewritten.
    What else speaks of addresses is not touched: the packet within an ICMP error, routing headers
    and options, ARP; nor what else covers them: AH (RFC 4302), TCP's signatures (RFC 5925), DCCP,
    UDP-Lite.

    The columns say what the packet says afterwards: `src`, `dst`, `l4_sport`, `l4_dport` and
    `flow_hash`. Malformed packets and those in which Decap has entered a tunnel are left alone, and
    counted as `left_alone`, as are those that have nothing of what is given; `partly` counts those
    that have some of it.

    Args:
        eth_src: source MAC address: "02:00:00:00:00:01", or its 6 bytes.
        eth_dst: destination MAC address.
        src: source address: "192.0.2.1", "2001:db8::1", or a tuple of both kinds. Of a network,
            "192.0.2.0/24", the network's part is set, and the host's part stays as it is.
        dst: destination address.
        sport: source port, 0 to 65535.
        dport: destination port.
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: something is no such address, port or mark, or nothing is given.
    """

    requires: ClassVar[tuple[str, ...]] = (
        "flags", "malformed", "ip_version", "l3", "l4", "src", "dst", "l4_sport", "l4_dport",
        "ip_proto", "flow_hash",
    )  # fmt: skip
    counters: ClassVar[tuple[str, ...]] = ("set", "partly", "left_alone")
    function: ClassVar[str] = "xp_stage_set_addresses"
    state_type: ClassVar[str] = "struct xp_set_addresses_state"

    def __init__(
        self,
        eth_src: str | bytes | None = None,
        eth_dst: str | bytes | None = None,
        src: Address | tuple[Address, Address] | None = None,
        dst: Address | tuple[Address, Address] | None = None,
        sport: int | None = None,
        dport: int | None = None,
        only: int | None = None,
    ) -> None:
        super().__init__(only)
        given = (eth_src, eth_dst, src, dst, sport, dport)
        if all(value is None for value in given):
            raise XdpipeError(f"{self.name}: nothing to set; give eth_src, src, sport, or the like")
        macs = [self._mac("eth_src", eth_src), self._mac("eth_dst", eth_dst)]
        ends = [self._networks("src", src), self._networks("dst", dst)]
        ports = [self._port("sport", sport), self._port("dport", dport)]
        self._values = {
            "mac_wanted": [mac is not None for mac in macs],
            "mac": [mac or bytes(6) for mac in macs],
            "ipv4": [_new_address(end.get(4)) for end in ends],
            "ipv6": [_new_address(end.get(6)) for end in ends],
            "port_wanted": [port is not None for port in ports],
            "port": [(port or 0).to_bytes(2, "big") for port in ports],
        }

    def values(self) -> dict[str, Any]:
        """Return the fields of its state besides `counters` and `only`."""
        return self._values

    def _mac(self, name: str, given: object) -> bytes | None:
        return None if given is None else read_mac(f"{self.name}: {name}", given)

    def _networks(self, name: str, given: object) -> dict[int, IPv4Network | IPv6Network]:
        """Return by version what an address is to lie in; a whole address is the smallest."""
        found: dict[int, IPv4Network | IPv6Network] = {}
        if given is None:
            return found
        for each in given if isinstance(given, tuple) and given else (given,):
            try:
                if not isinstance(each, Address):
                    raise ValueError("it is no address")
                network = ip_network(each)
            except ValueError as error:
                raise XdpipeError(
                    f"{self.name}: {name}={each!r}: an IPv4 or IPv6 address, or a network: {error}"
                ) from error
            if network.version in found:
                raise XdpipeError(
                    f"{self.name}: {name}={given!r}: two of one kind; a tuple has an IPv4 address "
                    "and an IPv6 one"
                )
            found[network.version] = network
        return found

    def _port(self, name: str, given: object) -> int | None:
        if given is None or is_number(given, 0, 0xFFFF):
            return given  # type: ignore[return-value]
        raise XdpipeError(f"{self.name}: {name}={given!r}: a port, 0 to 65535")


def _new_address(network: IPv4Network | IPv6Network | None) -> dict[str, Any]:
    """Return a struct xp_new_address."""
    if network is None:
        return {"wanted": 0}
    return {
        "wanted": 1,
        "keep": network.hostmask.packed,
        "set": network.network_address.packed,
    }
