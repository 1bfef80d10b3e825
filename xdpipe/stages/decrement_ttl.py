"""Lower the time to live of packets, as a router does; core/stages/decrement_ttl.c does it."""

from __future__ import annotations

from typing import Any, ClassVar

from xdpipe.errors import XdpipeError
from xdpipe.stages.rewriting import Rewriting, is_number
from xdpipe.verdict import DROP, Verdict


class DecrementTtl(Rewriting):
    """Lower the TTL or hop limit of the undecided packets, and decide those whose time is up.

    The IPv4 header's checksum is brought up to date (RFC 1624), and the column `ip_ttl` says what
    the packet says afterwards. A packet that would reach 0 (RFC 1812, 5.3.1; RFC 8200, 3) is not
    changed but gets the verdict `expired`, and is counted as such. Nobody is told of it by ICMP,
    unless the kernel, with PASS. Malformed packets, those without IP and those in which Decap has
    entered a tunnel are left alone, and counted as `left_alone`.

    Args:
        by: how much, 1 to 255.
        expired: DROP, PASS, or another verdict; None: they stay undecided.
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: something is no such number, verdict or mark.
    """

    requires: ClassVar[tuple[str, ...]] = ("malformed", "ip_version", "l3", "ip_ttl")
    counters: ClassVar[tuple[str, ...]] = ("decremented", "expired", "left_alone")
    function: ClassVar[str] = "xp_stage_decrement_ttl"
    state_type: ClassVar[str] = "struct xp_decrement_ttl_state"

    def __init__(
        self, by: int = 1, expired: Verdict | None = DROP, only: int | None = None
    ) -> None:
        super().__init__(only)
        if not is_number(by, 1, 255):
            raise XdpipeError(f"{self.name}: by={by!r}: 1 to 255")
        if expired is not None and (not isinstance(expired, Verdict) or not expired):
            raise XdpipeError(f"{self.name}: expired={expired!r}: DROP, TX, PASS, FORWARD, or None")
        self._by, self._expired = by, expired or Verdict.UNDECIDED

    def values(self) -> dict[str, Any]:
        """Return the fields of its state besides `counters` and `only`."""
        return {"by": self._by, "expired": int(self._expired)}
