"""Who looks on at a running pipeline: connections of `xdpipe tap`, and copies for them."""

from __future__ import annotations

import selectors
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from xdpipe.block_ring import BlockRing, ring_size
from xdpipe.control import ControlClosed
from xdpipe.errors import XdpipeError
from xdpipe.tap import LEAVING, TAPS_MAX, TapOrder, verdict_bits
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.control import Control
    from xdpipe.worker_handle import WorkerHandle

RECEIVED, LEFT = "in", "out"
"""What the two points are called that are behind no stage: before all, and where packets leave."""
_SERVED = ("serving", "stuck")


@dataclass(frozen=True)
class _Open:
    """A tap: its connection, what it copies, and a ring for each queue."""

    control: Control
    order: TapOrder
    points: tuple[str, ...]
    rings: dict[int, BlockRing]


class TapKeeper:
    """The taps of a pipeline; each lives as long as the connection of who asked for it.

    Args:
        selector: that the supervisor waits with.
        handles: the supervisor's workers.
        stages: names of the chain's.
        devs: names of the interfaces, one of each port.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        handles: Sequence[WorkerHandle],
        stages: Sequence[str],
        devs: Sequence[str],
    ) -> None:
        self._selector = selector
        self._handles = handles
        self._stages = list(stages)
        self._devs = list(devs)
        self._numbers = count(1)
        self._taps: dict[int, _Open] = {}

    def open(self, control: Control, body: Any) -> None:
        """Have the workers copy packets for who asks; the connection is this object's now.

        Args:
            control: where the answer goes, with the rings, one of each queue.
            body: `stages` (names, RECEIVED, LEFT), `verdict` (a name or None), `snaplen`,
                `program`, `buffer` (bytes of a ring).
        """
        rings: dict[int, BlockRing] = {}
        try:
            if len(self._taps) == TAPS_MAX:
                raise XdpipeError(f"{TAPS_MAX} taps look on already, and more cannot")
            order, points = self._order(body)
            size = ring_size(body["buffer"])
            for handle in self._handles:
                rings[handle.queue] = BlockRing(size)
            answer = {
                "queues": list(rings), "devs": self._devs, "points": points, "size": size,
            }  # fmt: skip
            control.send("tap", answer, tuple(ring.fd for ring in rings.values()))
        except (XdpipeError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            for ring in rings.values():
                ring.close()
            known = isinstance(error, XdpipeError | OSError)
            with suppress(ControlClosed):
                control.send("error", str(error) if known else f"no order for a tap: {error!r}")
            control.close()
            return
        number = next(self._numbers)
        self._taps[number] = _Open(control, order, points, rings)
        self._selector.register(control, selectors.EVENT_READ, partial(self._ended, number))
        for handle in self._handles:
            if handle.state in _SERVED:
                self._attach(handle, number)

    def _order(self, body: Any) -> tuple[TapOrder, tuple[str, ...]]:
        """Return what is asked for, and the points in the order of the packets' way."""
        known = {RECEIVED: 0, LEFT: LEAVING}
        known |= {name: number for number, name in enumerate(self._stages, 1)}
        for name in body["stages"]:
            if name not in known:
                names = ", ".join((RECEIVED, *self._stages, LEFT))
                raise XdpipeError(f"no stage {name}; there are: {names}")
        points = sorted(set(body["stages"]), key=lambda name: known[name])
        order = TapOrder(
            points=sum(1 << known[name] for name in points),
            verdicts=verdict_bits(None if body["verdict"] is None else Verdict[body["verdict"]]),
            snaplen=body["snaplen"],
            program=tuple(tuple(insn) for insn in body["program"]),
        )
        return order, tuple(points)

    def attach(self, handle: WorkerHandle) -> None:
        """Have a worker that begins to serve copy for the taps that there are."""
        for number in self._taps:
            self._attach(handle, number)

    def _attach(self, handle: WorkerHandle, number: int) -> None:
        tap = self._taps[number]
        ring = tap.rings[handle.queue]
        first = list(tap.rings).index(handle.queue) * len(tap.points) * len(self._devs)
        order = replace(tap.order, interface=first)
        body = {"number": number, "size": ring.size, "order": order.to_dict()}
        with suppress(ControlClosed):  # its death is dealt with where its socket is read
            handle.call("tap", body, (ring.fd,))

    def _ended(self, number: int) -> None:
        """Deal with what comes from who looks on: that he is gone, as nothing else is said."""
        tap = self._taps.pop(number)
        self._selector.unregister(tap.control)
        tap.control.close()
        for ring in tap.rings.values():
            ring.close()
        for handle in self._handles:
            if handle.state in _SERVED:
                with suppress(ControlClosed):
                    handle.call("untap", {"number": number})

    def status(self) -> list[dict[str, Any]]:
        """Return what `--json` shows under `taps`."""
        return [
            {
                "stages": list(tap.points),
                "packets": sum(ring.n_packets for ring in tap.rings.values()),
                "lost": sum(ring.n_lost for ring in tap.rings.values()),
            }
            for tap in self._taps.values()
        ]

    def close(self) -> None:
        """End all taps; who looks on has what was copied. May be called twice."""
        for tap in self._taps.values():
            tap.control.close()
            for ring in tap.rings.values():
                ring.close()
        self._taps.clear()
