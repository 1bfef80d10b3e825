"""Send packets back to where they came from; core/stages/swap_addresses.c does it."""

from typing import ClassVar

from xdpipe.stages.rewriting import Rewriting


class SwapAddresses(Rewriting):
    """Swap source and destination of Ethernet, IP, TCP and UDP in the undecided packets.

    Checksums stay right; VLAN tags, MPLS labels and the PPPoE session stay. The columns say what
    the packet says afterwards: `src` and `dst`, `l4_sport` and `l4_dport` are swapped as well;
    `flow_hash` is that of both directions.
    Malformed packets, those without IP and those in which Decap has entered a tunnel are left
    alone, and counted as such.

    Args:
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: `only` is no mark.
    """

    requires: ClassVar[tuple[str, ...]] = ("flags", "malformed", "ip_version", "l3", "l4")
    counters: ClassVar[tuple[str, ...]] = ("swapped", "left_alone")
    function: ClassVar[str] = "xp_stage_swap_addresses"
    state_type: ClassVar[str] = "struct xp_swap_addresses_state"
