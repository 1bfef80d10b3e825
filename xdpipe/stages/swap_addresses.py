"""Send packets back to where they came from; core/swap_addresses.c does it."""

from typing import ClassVar

from xdpipe.stage import NativeStage


class SwapAddresses(NativeStage):
    """Swap source and destination of Ethernet, IP, TCP and UDP in the undecided packets.

    Checksums stay right; VLAN tags, MPLS labels and the PPPoE session stay. The columns keep what
    the packet said before. Malformed packets, those without IP and those in which Decap has entered
    a tunnel are left alone, and counted as such.
    """

    requires: ClassVar[tuple[str, ...]] = ("flags", "malformed", "ip_version", "l3", "l4")
    counters: ClassVar[tuple[str, ...]] = ("swapped", "left_alone")
    function: ClassVar[str] = "xp_stage_swap_addresses"
