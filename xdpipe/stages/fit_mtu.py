"""Drop or cut packets that are longer than a link takes; core/stages/fit_mtu.c does it."""

from __future__ import annotations

from typing import Any, ClassVar

from xdpipe.errors import XdpipeError
from xdpipe.stages.rewriting import Rewriting, is_number

_LEAST, _MOST = 68, 1_000_000


class FitMtu(Rewriting):
    """Drop the undecided packets that a link with this MTU does not take, or cut them to it.

    What a packet has more than its Ethernet header of 14 bytes and its VLAN tags must be within the
    MTU. One that is cut says so itself, as a shorter one that was made so: the lengths of IPv4,
    IPv6, UDP, 802.3 with SNAP, and PPPoE are those of what is left, the checksum of IPv4 follows,
    and those of TCP, UDP, ICMP and ICMPv6 are computed anew (a wrong one becomes right; UDP's 0
    stays). Of fragments only IP's length and checksum follow. The columns say what the packet says
    afterwards.

    Packets that came in several frames, and those in which Decap has entered a tunnel, are not cut
    but dropped. `fits`, `truncated` and `left_out` count what became of each.

    Args:
        mtu: bytes, 68 (RFC 791, 3.2) to 1,000,000.
        truncate: cut them, rather than drop them.
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: that is no MTU, or no mark.
    """

    requires: ClassVar[tuple[str, ...]] = (
        "flags", "malformed", "n_vlans", "ip_version", "l3", "l4", "payload", "payload_len",
    )  # fmt: skip
    counters: ClassVar[tuple[str, ...]] = ("fits", "truncated", "left_out")
    function: ClassVar[str] = "xp_stage_fit_mtu"
    state_type: ClassVar[str] = "struct xp_fit_mtu_state"

    def __init__(self, mtu: int, *, truncate: bool = False, only: int | None = None) -> None:
        super().__init__(only)
        if not is_number(mtu, _LEAST, _MOST):
            raise XdpipeError(f"{self.name}: mtu={mtu!r}: bytes, {_LEAST} to {_MOST}")
        self._values = {"mtu": mtu, "truncate": truncate}

    def values(self) -> dict[str, Any]:
        """Return the fields of its state besides `counters` and `only`."""
        return self._values
