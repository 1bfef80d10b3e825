"""Compute checksums anew; core/stages/fix_checksums.c does it."""

from __future__ import annotations

from typing import ClassVar

from xdpipe.stages.rewriting import Rewriting


class FixChecksums(Rewriting):
    """Compute the checksums of IPv4, TCP, UDP, ICMP and ICMPv6 of the undecided packets anew.

    For captures of what a host sent, whose checksums its NIC was to fill in, and behind stages that
    wrote much. What was wrong on purpose is right afterwards, so it is for captures and tests
    rather than for what is forwarded.

    A UDP checksum of 0, which says that there is none, stays. Fragments have that of their IPv4
    header alone, and so have packets with part of their route still before them, or of a node away
    from home. Packets of which at least one changed are counted as `fixed`, those all of whose were
    right as `right`, and what has none, malformed packets, and those in which Decap has entered a
    tunnel are left alone, and counted as `left_alone`.

    Args:
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: that is no mark.
    """

    requires: ClassVar[tuple[str, ...]] = (
        "flags", "malformed", "ip_version", "l3", "l4", "payload", "payload_len",
    )  # fmt: skip
    counters: ClassVar[tuple[str, ...]] = ("fixed", "right", "left_alone")
    function: ClassVar[str] = "xp_stage_fix_checksums"
    state_type: ClassVar[str] = "struct xp_fix_checksums_state"
