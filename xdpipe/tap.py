"""Copies of packets for who looks on, as the worker makes them (core/tap.c)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.filter_program import FilterProgram
from xdpipe.pcapng import packet_options
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.block_ring import BlockRing
    from xdpipe.chain import Chain

LEAVING: int = lib.XP_TAP_LEAVING
"""The point where a packet leaves, its verdict decided. Others: how many stages have run."""
TAPS_MAX: int = lib.XP_TAPS_MAX
_XDP_ACTIONS = {Verdict.DROP: 1, Verdict.PASS: 2, Verdict.TX: 3, Verdict.FORWARD: 4}
"""enum xdp_action of linux/bpf.h; what XDP sends out of another interface is redirected."""


@dataclass(frozen=True)
class TapOrder:
    """What a tap is to copy.

    Attributes:
        points: where, as bits: 1 << k behind k stages, 1 << LEAVING.
        verdicts: of packets that have one of these so far, as bits 1 << verdict.
        snaplen: bytes of each at the most.
        program: of classic BPF, that takes packets: code, jt, jf, k of each instruction; else all.
        interface: number in the capture of the first; those of one point and all ports come first.
        told: who decided a packet, and what, is told beside it.
    """

    points: int
    verdicts: int
    snaplen: int
    program: tuple[tuple[int, int, int, int], ...] = ()
    interface: int = 0
    told: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {**asdict(self), "program": [list(insn) for insn in self.program]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TapOrder:
        """Undo to_dict."""
        return cls(**{**data, "program": tuple(tuple(insn) for insn in data["program"])})


def verdict_bits(verdict: Verdict | None) -> int:
    """Return what TapOrder.verdicts is for one verdict; None: for all, and for none yet."""
    return sum(1 << each for each in (Verdict if verdict is None else (verdict,)))


class Tap:
    """One tap: an order, and the ring that its copies go to, which stays the caller's.

    Args:
        order: what to copy.
        ring: where to.
        stages: names of the chain's.
        queue: number of the worker's.
        n_ports: that the worker has.

    Raises:
        XdpipeError: the order's program is none that may be run.
    """

    def __init__(
        self, order: TapOrder, ring: BlockRing, stages: Sequence[str], queue: int, n_ports: int
    ) -> None:
        self.ring = ring
        self._program = FilterProgram(order.program) if order.program else None
        self._options = self._option_at = ffi.NULL
        if order.told:
            blobs = _options(stages, queue)
            ends = [0]
            for blob in blobs:
                ends.append(ends[-1] + len(blob))
            self._options = ffi.new("uint8_t[]", b"".join(blobs))
            self._option_at = ffi.new("uint32_t[]", ends)
        self.c = ffi.new(
            "struct xp_tap *",
            {
                "blocks": ring.c,
                "points": order.points,
                "verdicts": order.verdicts,
                "snaplen": order.snaplen,
                "interface": order.interface,
                "n_ports": n_ports,
                "program": self._program.c if self._program else ffi.NULL,
                "run_program": self._program.run if self._program else ffi.NULL,
                "options": self._options,
                "option_at": self._option_at,
                "n_verdicts": len(Verdict),
                "n_by": len(stages) + 2,
            },
        )
        lib.xp_blocks_attach(ring.c)


def _options(stages: Sequence[str], queue: int) -> list[bytes]:
    """Return what is told of a packet, by verdict and by who decided: nobody, stages, default."""
    who = ["", *(f" by {name}" for name in stages), " by default"]
    return [
        packet_options(
            "undecided" if verdict == Verdict.UNDECIDED else verdict.name + by,
            queue, _XDP_ACTIONS.get(verdict),
        )
        for verdict in sorted(Verdict) for by in who
    ]  # fmt: skip


class Taps:
    """The taps of a worker that come and go while it serves.

    Args:
        chain: that they look on.
        queue: the worker's.
        n_ports: that it has.
    """

    def __init__(self, chain: Chain, queue: int, n_ports: int) -> None:
        self._chain = chain
        self._stages = [info.name for info in chain.infos]
        self._queue = queue
        self._n_ports = n_ports
        self._taps: dict[int, Tap] = {}
        self._decided_by = ffi.new("uint8_t[]", chain.batch.capacity)
        self.c = ffi.new(
            "struct xp_taps *",
            {"by_default": len(self._stages) + 1, "decided_by": self._decided_by},
        )

    def add(self, number: int, order: TapOrder, ring: BlockRing) -> None:
        """Copy packets to a ring, owned by this object now, until `remove`.

        Raises:
            XdpipeError: there are too many, or it is no proper order; the ring is closed.
        """
        try:
            if len(self._taps) == TAPS_MAX:
                raise XdpipeError(f"{TAPS_MAX} taps are the most")
            tap = Tap(order, ring, self._stages, self._queue, self._n_ports)
        except BaseException:
            ring.close()
            raise
        self._taps[number] = tap
        self._changed()

    def remove(self, number: int) -> None:
        """End a tap; one that there is not is no error."""
        tap = self._taps.pop(number, None)
        if tap is not None:
            self._changed()
            tap.ring.close()

    def _changed(self) -> None:
        self.c.n = len(self._taps)
        for place, tap in enumerate(self._taps.values()):
            self.c.taps[place] = tap.c
        lib.xp_batch_set_taps(self._chain.batch.c, self.c if self._taps else ffi.NULL)
        self._chain.tap(on=bool(self._taps))
