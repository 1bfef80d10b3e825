"""Change, push and pop VLAN tags; core/stages/set_vlan.c does it."""

from __future__ import annotations

from typing import Any, ClassVar

from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages.rewriting import Rewriting, is_number

_C_TAG, _S_TAG = 0x8100, 0x88A8
_SET, _PUSH, _POP = lib.XP_SET_VLAN_SET, lib.XP_SET_VLAN_PUSH, lib.XP_SET_VLAN_POP
_PUT = lib.XP_SET_VLAN_PUT


class SetVlan(Rewriting):
    """Set fields of the outer VLAN tag of the undecided packets, or push or pop a tag.

    Tags are those of IEEE 802.1Q, customer and service tags. A tag that the NIC took out of the
    packet (columns `nic_told`, `nic_vlan_tci`) is the outer one; a NIC that takes tags out and
    tells nobody hides them from this stage as well (`ethtool -K DEV rxvlan off`).

    Push makes the packet 4 bytes longer, at its start, pop shorter: the links' MTU must allow it,
    and what becomes shorter than 60 bytes is the NIC's to pad. The columns say what the packet says
    afterwards: `vlan_tci`, `n_vlans`, `flags`, `addr`, `len`, and all offsets.

    Malformed packets and those in which Decap has entered a tunnel are left alone, and counted as
    `left_alone`, as are those without a tag to change or pop, and those with two already, to which
    no third is pushed. Pop gives a packet of three tags its third as the second in the columns, but
    what lies behind it Headers has not looked at: add another Headers() behind. `no_room` counts
    packets before which a tag has no room, which are left alone as well: before those that a worker
    receives, or `xdpipe check` reads, there is room for more than ten.

    Args:
        vid: VLAN, 0 to 4094; 0 says that the tag has a priority only.
        pcp: priority, 0 to 7.
        dei: whether it may be dropped before others.
        push: put a new outer tag in, which takes a vid; pcp and dei are 0 unless given.
        pop: take the outer tag out.
        put: set the outer tag's fields, and where there is no tag push one, as with push.
        tpid: of a tag that is pushed: 0x8100, or 0x88a8 for a service tag (802.1ad).
        only: the packets whose column `mark` has this value, a uint32; None: all.

    Raises:
        XdpipeError: something is no such value or mark, or what is to be done is not clear.
    """

    requires: ClassVar[tuple[str, ...]] = ("flags", "malformed", "eth_type", "n_vlans", "vlan_tci")
    counters: ClassVar[tuple[str, ...]] = ("changed", "left_alone", "no_room")
    function: ClassVar[str] = "xp_stage_set_vlan"
    state_type: ClassVar[str] = "struct xp_set_vlan_state"

    def __init__(
        self,
        vid: int | None = None,
        pcp: int | None = None,
        dei: bool | None = None,
        *,
        push: bool = False,
        pop: bool = False,
        put: bool = False,
        tpid: int = _C_TAG,
        only: int | None = None,
    ) -> None:
        super().__init__(only)
        if push + pop + put > 1:
            raise XdpipeError(f"{self.name}: push=True, pop=True and put=True: one of them")
        if pop and (vid, pcp, dei) != (None, None, None):
            raise XdpipeError(f"{self.name}: pop=True takes a tag out: no vid, pcp or dei with it")
        if (push or put) and vid is None:
            how = "push" if push else "put"
            raise XdpipeError(f"{self.name}: {how}=True: say the new tag's vid, 0 to 4094")
        if not pop and (vid, pcp, dei) == (None, None, None):
            raise XdpipeError(f"{self.name}: nothing to do; give vid, pcp or dei, push or pop")
        if vid is not None and not is_number(vid, 0, 4094):
            raise XdpipeError(f"{self.name}: vid={vid!r}: 0 to 4094")
        if pcp is not None and not is_number(pcp, 0, 7):
            raise XdpipeError(f"{self.name}: pcp={pcp!r}: 0 to 7")
        if dei is not None and dei not in (0, 1):
            raise XdpipeError(f"{self.name}: dei={dei!r}: True or False")
        if tpid not in (_C_TAG, _S_TAG) or (tpid != _C_TAG and not (push or put)):
            raise XdpipeError(
                f"{self.name}: tpid={tpid!r}: with push=True or put=True, 0x8100 or 0x88a8"
            )
        fields = ((vid, 0xFFF, 0), (pcp, 7, 13), (dei, 1, 12))
        given = [(int(value), mask, bit) for value, mask, bit in fields if value is not None]
        self._values = {
            "deed": _PUSH if push else _POP if pop else _PUT if put else _SET,
            "tpid": tpid,
            "keep": 0xFFFF & ~sum(mask << bit for _, mask, bit in given),
            "set": sum(value << bit for value, _, bit in given),
        }

    def values(self) -> dict[str, Any]:
        """Return the fields of its state besides `counters` and `only`."""
        return self._values
