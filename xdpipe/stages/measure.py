"""Find stamped packets, and what became of them on their way; core/stages/measure.c does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.action import action
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.key_table import Memory
from xdpipe.log_bins import n_bins
from xdpipe.stage import NativeStage
from xdpipe.traffic.measurement import Measurement, StreamCounts, packed
from xdpipe.verdict import DROP, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

_LATENCY_BITS: int = lib.XP_MEASURE_LATENCY_BITS
_SUB_BITS = {1: 4, 2: 7, 3: 10}
"""Digits of latencies that are right, and bits that make it so: 16, 128, 1024 bins."""
_SLOT_FIELDS = 4
_MOST = 1 << 16
_LONGEST_WINDOW = 1 << 24
_PACKED_BYTES = 96 << 10
"""Of all that a report tells programs: it goes over the control socket as one message."""


class Measure(NativeStage):
    """Tell loss, duplicates, reordering and latency of packets that `replay --measure` stamped.

    Each packet is counted in one of
    - `in_order`: with a higher number than all of its stream before;
    - `reordered`: with a lower one, for the first time (RFC 4737, 3.3);
    - `duplicates`: with a number that came before;
    - `too_late`: so far behind the highest number that nobody knows which of the two; it is no
      packet that came, and so among the lost;
    - `other_run`: of another run than the one that is looked for;
    - `no_room`: of one run or stream more than there is room for;
    - `unstamped`: without a stamp.
    `bytes` are those of packets in order and reordered; latencies are theirs alone, too, from when
    they were stamped to when the batch that they are in was received.

    Where several queues serve an interface, each sees the packets of some flows: reordering is told
    of those that come by the same queue.

    Memory is fixed: with the defaults 5.7 MB. `n_slots` times 32 bytes and 320 KB (with 3 digits) a
    run, 4.1 bytes times `window` a stream.

    Args:
        run: number of the run that is looked for; None: any.
        verdict: for undecided packets with a stamp of that run: DROP, or, where they are to go on,
            another one or None.
        n_runs: room for so many runs, 1 to 65536.
        n_streams: room for so many streams, of all runs.
        window: how many numbers below the highest are remembered; a power of two from 64 on.
        digits: of a latency that are right, 1 to 3.
        n_slots: parts of the time from the first to the last packet, 2 to 65536; they are of one
            millisecond at first, and twice as long whenever there are too few.

    Raises:
        XdpipeError: other numbers than those, or no verdict.
    """

    requires: ClassVar[tuple[str, ...]] = ("payload", "payload_len")
    counters: ClassVar[tuple[str, ...]] = (
        "in_order", "reordered", "duplicates", "too_late", "other_run", "no_room", "unstamped",
        "bytes",
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_measure"

    def __init__(
        self,
        *,
        run: int | None = None,
        verdict: Verdict | None = DROP,
        n_runs: int = 4,
        n_streams: int = 16,
        window: int = 1 << 16,
        digits: int = 3,
        n_slots: int = 1024,
    ) -> None:
        if run is not None:
            _require("run", run, 0, 0xFFFF)
        _require("n_runs", n_runs, 1, _MOST)
        _require("n_streams", n_streams, 1, _MOST)
        _require("window", window, 64, _LONGEST_WINDOW)
        _require("digits", digits, 1, 3)
        _require("n_slots", n_slots, 2, _MOST)
        if window & (window - 1):
            raise XdpipeError(f"Measure: window={window}: a power of two is wanted")
        self._n_runs, self._n_streams, self._n_slots = n_runs, n_streams, n_slots
        self._window, self.sub_bits = window, _SUB_BITS[digits]
        self._n_bins = n_bins(_LATENCY_BITS, self.sub_bits)
        self._choice = {
            "run": run or 0, "any_run": run is None, "action": action("Measure", verdict),
        }  # fmt: skip

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        bins = Memory(8 * self._n_bins * self._n_runs)
        slots = Memory(8 * _SLOT_FIELDS * self._n_slots * self._n_runs)
        seen = Memory(self._window // 8 * self._n_streams)
        passed = Memory(4 * self._window * self._n_streams)
        runs = ffi.new("struct xp_measure_run[]", self._n_runs)
        streams = ffi.new("struct xp_measure_stream[]", self._n_streams)
        for k in range(self._n_runs):
            runs[k].bins = ffi.cast("uint64_t *", bins.c) + k * self._n_bins
            runs[k].slots = ffi.cast("struct xp_measure_slot *", slots.c) + k * self._n_slots
        for k in range(self._n_streams):
            streams[k].seen = ffi.cast("uint64_t *", seen.c) + k * (self._window // 64)
            streams[k].passed = ffi.cast("uint32_t *", passed.c) + k * self._window
        state = ffi.new(
            "struct xp_measure_state *",
            {
                **self._choice, "counters": counters, "sub_bits": self.sub_bits,
                "window": self._window, "n_slots": self._n_slots, "n_runs": self._n_runs,
                "n_streams": self._n_streams, "runs": runs, "streams": streams,
            },
        )  # fmt: skip
        self._bins, self._slots = bins.bytes.view(np.uint64), slots.bytes.view(np.uint64)
        return keep_with(state, runs, streams, bins, slots, seen, passed)

    @property
    def measurements(self) -> list[Measurement]:
        """What was measured, a run each, the one that a packet came of last first; copies."""
        state = self.state
        found = [self._measurement(state.runs[k], k) for k in range(state.runs_used)]
        for k in range(state.streams_used):
            c = state.streams[k]
            found[c.place].streams[c.tag & 0xFF] = StreamCounts(
                c.next, c.lowest, c.in_order, c.reordered, c.duplicates, c.too_late, c.extent_sum,
                c.extent_max,
            )  # fmt: skip
        return sorted(found, key=lambda one: one.last_ns, reverse=True)

    def _measurement(self, c: Any, place: int) -> Measurement:
        width = _SLOT_FIELDS * self._n_slots
        slots = self._slots[place * width : (place + 1) * width].reshape(-1, _SLOT_FIELDS)
        return Measurement(
            run=c.run, sub_bits=self.sub_bits, packets=c.packets, bytes=c.bytes, early=c.early,
            first_ns=c.first_ns, last_ns=c.last_ns, latency_sum=c.latency_sum, least=c.least,
            greatest=c.greatest, slot_shift=c.slot_shift, slot_base=c.slot_base,
            slots=slots.copy(), bins=self._bins[place * self._n_bins :][: self._n_bins].copy(),
        )  # fmt: skip

    def report(self) -> Mapping[str, Any]:
        """Return a row for each run, and under `_runs` what Measurement.unpacked reads.

        These are the latest ones, as many as go into a message, which is one at the least.
        """
        found = self.measurements
        room, told = _PACKED_BYTES, list[str]()
        for each in found:
            text = packed(each)
            room -= len(text)
            if told and room < 0:
                break
            told.append(text)
        return {"runs": [each.row() for each in found], "_runs": told} if found else {}


def _require(name: str, value: object, least: int, most: int) -> None:
    if not (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        raise XdpipeError(f"Measure: {name}={value!r}: {least} to {most} are possible")
