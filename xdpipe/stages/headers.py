"""From Ethernet to TCP, UDP and the like into columns; core/parse.c and core/parse_ip.h parse."""

from typing import ClassVar

from xdpipe.batch import COLUMNS, MALFORMED
from xdpipe.stage import NativeStage


class Headers(NativeStage):
    """Parse the headers of every packet and fill the columns that the other stages build on.

    Read are Ethernet II (IEEE 802.3), up to two VLAN tags (802.1Q, 802.1ad), 802.3 with LLC and
    SNAP (RFC 1042), up to eight MPLS labels (RFC 3032), PPPoE (RFC 2516), ARP (RFC 826), IPv4 with
    options (RFC 791), IPv6 with its extension headers (RFC 8200), TCP (RFC 9293), UDP (RFC 768),
    ICMP (RFC 792), ICMPv6 (RFC 4443), IGMP (RFC 2236). Behind MPLS labels, IP is told by its
    version field. `eth_type` is the EtherType behind the tags; with SNAP (OUI 0) it is the one that
    SNAP tells, else in 802.3 the length. `other` counts what is not IP, ARP included.

    A fragment is flagged; a later one has no ports and no l4.
    On a link of the same machine (veth, tap) a TCP or UDP checksum may be left to the link, which
    never fills it in: counted as partial_checksum, and filled in if the packet leaves.
    What contradicts itself is flagged MALFORMED with a reason and counted; nothing is dropped.
    """

    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "Headers"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "ipv4", "ipv6", "other", "tcp", "udp", "icmp", "icmp6", "igmp", "arp", "vlan", "mpls",
        "pppoe", "llc", "snap", "fragments", "partial_checksum", "malformed",
        *(f"malformed_{reason.lower()}" for reason in MALFORMED),
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_headers"
