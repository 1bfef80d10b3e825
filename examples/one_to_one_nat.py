"""Translate a network's addresses into another's, one to one, like a cable with two faces.

    xdpipe run one_to_one_nat.py --dev inside=eth1 --dev outside=eth2

Machines inside have addresses in INSIDE, and know those outside that are their neighbours, such as
their router, by addresses in INSIDE as well. Outside all of them are known in OUTSIDE, by the same
host part: 10.1.0.7 is 192.0.2.7 there, in either direction, so nothing has to be remembered, every
port and protocol goes through, and connections may begin on either side. With one of these at each,
two sites that use the same private addresses are joined without renumbering either.

Translated are the addresses of IPv4, those in ARP, and those in the packet that an ICMP error
quotes, so that path MTU discovery and traceroute work. What says addresses in its payload (FTP,
SIP) is not, nor what protects them (IPsec AH). IPv6 goes through as it is. What is malformed goes
through neither way.
"""

from ipaddress import IPv4Network

import numpy as np
from numpy.typing import NDArray

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SetAddresses

INSIDE = IPv4Network("10.1.0.0/24")
OUTSIDE = IPv4Network("192.0.2.0/24")

ARP, ICMP_ERRORS = 0x0806, (3, 4, 5, 11, 12)
SRC, DST = 1, 2
"""Bits of the mark: which address is to be translated; OUTWARDS: from inside."""
OUTWARDS = 4

Numbers = NDArray[np.uint32]
Mask = NDArray[np.bool_]


class Translate(Stage):
    """Mark packets by what is to be translated, and do so where no stage of xdpipe's does."""

    requires = ("flags", "malformed", "eth_type", "n_vlans", "payload", "src", "dst", "icmp_type")
    counters = ("malformed", "arp", "icmp_error")

    def process(self, batch: Batch) -> None:
        self.count("malformed", batch.drop(batch.malformed != 0))
        outwards = batch.port == "inside"
        self._from, to = (INSIDE, OUTSIDE) if outwards else (OUTSIDE, INSIDE)
        self._to = np.uint32(int(to.network_address))
        ipv4 = batch.has("IPV4")
        src = ipv4 & self._ours(batch.src.view(">u4")[:, 3])
        dst = ipv4 & self._ours(batch.dst.view(">u4")[:, 3])
        batch.mark[:] = src * SRC + dst * DST + np.uint32(OUTWARDS * outwards)

        arp = (batch.eth_type == ARP) & (batch.malformed == 0)
        if arp.any():
            self.count("arp", self._arp(batch, arp))
        error = batch.has("ICMP") & np.isin(batch.icmp_type, ICMP_ERRORS)
        if error.any():
            self.count("icmp_error", self._quoted(batch, error))

    def _ours(self, addresses: Numbers) -> Mask:
        ours: Mask = (addresses & int(self._from.netmask)) == int(self._from.network_address)
        return ours

    def _translated(self, addresses: Numbers) -> Numbers:
        return (addresses & np.uint32(int(self._from.hostmask))) | self._to

    def _arp(self, batch: Batch, where: Mask) -> int:
        """Translate sender and target of ARP for IPv4 over Ethernet (RFC 826)."""
        at = 14 + 4 * batch.n_vlans.astype(np.int32)
        where = where & (batch.u32(at) == 0x0001_0800) & (batch.u16(at + 4) == 0x0604)
        for offset in (14, 24):
            address = batch.u32(at + offset)
            batch.put_u32(at + offset, self._translated(address), where & self._ours(address))
        return int(where.sum())

    def _quoted(self, batch: Batch, where: Mask) -> int:
        """Translate the addresses of the IPv4 header that an ICMP error quotes (RFC 792)."""
        at = batch.payload
        where = where & (batch.u8(at) >> 4 == 4)
        for offset in (12, 16):
            was = batch.u32(at + offset)
            ours, now = where & self._ours(was), self._translated(was)
            # its checksum follows, by RFC 1624, and the one of ICMP follows both
            total = (~batch.u16(at + 10)).astype(np.uint32)
            for word in (~was >> 16, ~was & 0xFFFF, now >> 16, now & 0xFFFF):
                total += word
            total = (total & 0xFFFF) + (total >> 16)
            checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            batch.put_u16(at + 10, checksum, ours, fix_checksum=True)
            batch.put_u32(at + offset, now, ours, fix_checksum=True)
        return int(where.sum())


def addresses(into: IPv4Network, mark: int) -> list[SetAddresses]:
    """Return the stages that translate what is so marked."""
    return [
        SetAddresses(src=into, only=mark + SRC),
        SetAddresses(dst=into, only=mark + DST),
        SetAddresses(src=into, dst=into, only=mark + SRC + DST),
    ]


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("", guard=False),
    stages=[Headers(), Translate(), *addresses(OUTSIDE, OUTWARDS), *addresses(INSIDE, 0)],
    default=FORWARD,
)
