"""Tell packets apart by a tcpdump filter; core/stages/where.c runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.action import action
from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.filter_program import FilterProgram
from xdpipe.keep import keep_with
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from xdpipe.verdict import Verdict


class Where(NativeStage):
    """Decide or mark the packets that a tcpdump filter takes, and decide the others.

    It takes any packet, whether an earlier stage decided it or not; verdicts are given to undecided
    ones only. The filter looks into a packet's first frame, and does not see a VLAN tag that the
    NIC took out; `len` in it is the whole packet's. Packets of one mark are what Count, Histogram,
    Top and RateLimit look at with `only`.

    It needs no column, and so no stage before it. The filter is run by libpcap's interpreter, a
    nanosecond or two for each of its instructions. Of memory it has the program, 8 bytes an
    instruction.

    Args:
        filter: in tcpdump's language, see pcap-filter(7); empty: all packets.
        verdict: for those that it takes, if undecided: DROP, TX, PASS or FORWARD.
        otherwise: the same for the others.
        mark: for those that it takes, 0 to 2**32 - 1; others keep theirs.

    Raises:
        XdpipeError: no such filter, verdict or mark; or none of the three is given.
    """

    counters: ClassVar[tuple[str, ...]] = ("matched", "other")
    function: ClassVar[str] = "xp_stage_where"

    def __init__(
        self,
        filter: str,
        *,
        verdict: Verdict | None = None,
        otherwise: Verdict | None = None,
        mark: int | None = None,
    ) -> None:
        if verdict is None and otherwise is None and mark is None:
            raise XdpipeError("Where: nothing would happen: give verdict, otherwise or mark")
        self._matched = action("Where", verdict, mark)
        self._other = action("Where", otherwise)
        from xdpipe.filter import Filter  # libpcap, which few need

        self._program = FilterProgram(Filter(filter).program)

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        state = ffi.new(
            "struct xp_where_state *",
            {
                "counters": counters,
                "program": self._program.c,
                "run_program": self._program.run,
                "matched": self._matched,
                "other": self._other,
            },
        )
        return keep_with(state, self._program.c)
