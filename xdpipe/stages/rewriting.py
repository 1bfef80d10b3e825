"""What stages that rewrite packets have in common; core/rewrite.h has the same for the core."""

from __future__ import annotations

from typing import Any, ClassVar

from xdpipe.action import only as by_mark
from xdpipe.core._core import ffi
from xdpipe.stage import NativeStage


class Rewriting(NativeStage):
    """A stage that rewrites undecided packets, and keeps columns and checksums up to date.

    The columns of Headers say afterwards what they would if Headers ran on the packet as it is
    then, `flow_hash` as well. Where Decap has entered a tunnel, the columns speak of the packet
    within: such packets are left alone.

    Args:
        only: the packets whose column `mark` has this value, a uint32; None: all.
    """

    state_type: ClassVar[str]
    """The C type of the state: it begins with `counters` and `only`."""

    def __init__(self, only: int | None = None) -> None:
        self._only = by_mark(self.name, only)

    def values(self) -> dict[str, Any]:
        """Return the fields of its state besides `counters` and `only`."""
        return {}

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function: its arguments, a few bytes."""
        return ffi.new(
            f"{self.state_type} *", {"counters": counters, "only": self._only, **self.values()}
        )


def is_number(value: object, least: int, most: int) -> bool:
    """Return whether it is a whole number in this range; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
