"""What is changed in packets on their way from a capture to a link, as options say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xdpipe.errors import XdpipeError
from xdpipe.stages import SetVlan, Where
from xdpipe.verdict import DROP

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.stage import Stage


class Vlan(NamedTuple):
    """The VLAN that packets are to be in.

    Attributes:
        vid: 0 to 4094; None: without a tag.
        pcp: priority, 0 to 7; None: as it is, 0 in a tag that is new.
    """

    vid: int | None
    pcp: int | None = None


class EditStages(NamedTuple):
    """Edits as stages, which stand behind Headers.

    Attributes:
        chain: in order.
        left_out: by reason, what tells how many packets were given the verdict DROP so far.
    """

    chain: list[Stage]
    left_out: dict[str, Callable[[], int]]


@dataclass(frozen=True)
class Edits:
    """What is changed in packets, and which are left out; in the order in which it is done.

    Attributes:
        filter: tcpdump filter: of the capture, only packets that it takes; "": all.
        vlan: the VLAN that packets are put into; None: they stay where they are.
    """

    filter: str = ""
    vlan: Vlan | None = None

    def stages(self, link_mtu: int | None = None) -> EditStages:
        """Return the edits as stages, new ones with each call.

        Args:
            link_mtu: of the link that packets go to; bytes; None: there is none.

        Raises:
            XdpipeError: there is no such filter, or the like.
        """
        chain: list[Stage] = []
        left_out: dict[str, Callable[[], int]] = {}
        if self.filter:
            where = Where(self.filter, otherwise=DROP)
            chain.append(where)
            left_out["filter"] = lambda: where.counted("other")
        if self.vlan is not None:
            chain.extend(_vlan(self.vlan))
        return EditStages(chain, left_out)


NO_EDITS = Edits()


def _vlan(vlan: Vlan) -> list[Stage]:
    if vlan.vid is None:
        return [SetVlan(pop=True), SetVlan(pop=True)]
    return [SetVlan(vlan.vid, vlan.pcp, put=True)]


_VLAN = re.compile(r"(\d{1,4})(?::([0-7]))?")


def parse_vlan(text: str) -> Vlan:
    """Read VID, VID:PRIORITY or `none`.

    Raises:
        XdpipeError: it is none of these.
    """
    if text == "none":
        return Vlan(None)
    found = _VLAN.fullmatch(text)
    if found is None or int(found[1]) > 4094:
        raise XdpipeError(f"--vlan {text}: a VLAN, 0 to 4094, as 5 or with a priority 5:3; or none")
    return Vlan(int(found[1]), None if found[2] is None else int(found[2]))
