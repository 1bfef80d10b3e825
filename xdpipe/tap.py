"""Copies of packets for who looks on, as the worker makes them (core/tap.c)."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
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
_LIBPCAP = ("libpcap.so.0.8", "libpcap.so.1")
_INSTRUCTION = struct.Struct("=HBBI")
"""struct bpf_insn."""


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
        program = b"".join(_INSTRUCTION.pack(*insn) for insn in order.program)
        self._program = ffi.new("uint8_t[]", program) if program else ffi.NULL
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
                "program": self._program,
                "run_program": _bpf_filter(program) if program else ffi.NULL,
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


def _bpf_filter(program: bytes) -> Any:
    """Return libpcap's bpf_filter, which runs this program without looking whether it is one.

    By ctypes, since the worker's queue fills up meanwhile: the binding that compiles filters takes
    fifty times as long to import.
    """
    import ctypes  # 5 ms, which a supervisor need not spend

    for name in _LIBPCAP:
        try:
            libpcap = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        raise XdpipeError(f"libpcap is missing ({_LIBPCAP[0]}); apt-get install libpcap0.8")
    if not libpcap.bpf_validate(program, len(program) // _INSTRUCTION.size):
        raise XdpipeError("the tap's filter is no valid program of classic BPF")
    address = ctypes.cast(libpcap.bpf_filter, ctypes.c_void_p).value
    return ffi.cast("xp_bpf_filter_fn *", address)


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
