"""What becomes of a packet."""

from enum import IntEnum

from xdpipe.core._core import lib


class Verdict(IntEnum):
    """A packet's verdict, as it stands in the column `verdict` of a batch.

    The numbers are those of `enum xp_verdict` in core/xp.h.
    """

    UNDECIDED = lib.XP_UNDECIDED
    DROP = lib.XP_DROP
    """The frame is freed, the packet is gone."""
    TX = lib.XP_TX
    """The packet goes out of the port that it came in by, as the stages left it."""
    PASS = lib.XP_PASS
    """The kernel gets the packet, as the stages left it, as if it had never been taken."""
    FORWARD = lib.XP_FORWARD
    """The packet goes out of another port of the pipeline, as the stages left it."""


DROP = Verdict.DROP
TX = Verdict.TX
PASS = Verdict.PASS
FORWARD = Verdict.FORWARD
