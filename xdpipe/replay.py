"""Put packets on a link: from a source, at a pace, by an engine.

    Source -> batch -> Schedule: when due -> Block of a lane's memory -> Player (a thread) -> Engine

What fits in the lanes' memory is laid there once and sent as often as one likes, by C alone. What
does not is laid while earlier packets are sent: memory is bounded, whatever the source has.
"""

from __future__ import annotations

import os
import queue
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.ethtool import is_up
from xdpipe.log_bins import percentile
from xdpipe.traffic import probe
from xdpipe.traffic.block import N_BLOCKS
from xdpipe.traffic.engine import FAST_PPS, EngineOptions, open_engine
from xdpipe.traffic.pace import Pace, Schedule
from xdpipe.traffic.player import Player
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.link import Link
    from xdpipe.traffic.block import Block
    from xdpipe.traffic.engine import Engine
    from xdpipe.traffic.source import Source

_LEAD_NS = 2_000_000
"""From when everything is ready to when the first packet is due."""
_TICK_S = 0.1
_FOREVER = 1 << 62
_TILE = 4096
"""A round of fewer packets is laid several times, so that calls need not be small."""
_ETHERNET = 14
_ETHERNET_AND_TWO_TAGS = _ETHERNET + 2 * 4


@dataclass(frozen=True)
class ReplayOptions:
    """How a source is sent.

    Attributes:
        pace: how fast.
        loops: how often; 0: without end, until `duration` or a signal.
        duration_s: end after so long; None: when all is sent.
        engine: by what way.
        run: number of a run of stamps (traffic/probe.py) that packets get which have room for one;
            None: they get none.
    """

    pace: Pace = field(default_factory=Pace)
    loops: int = 1
    duration_s: float | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    run: int | None = None


@dataclass
class ReplayResult:
    """What became of the packets.

    read = left_out + too_long + too_short + those of one round;
    sent + refused = all that was handed over.

    Attributes:
        dev: the interface.
        engine: xdp, live or socket.
        mode: `copy`, `zerocopy`, `live frames`, `into the stack` or `packet socket`.
        read: packets of the source, in one round.
        left_out: of these, by its edits.
        edits: what edits did before and while packets were read: how many they left out by reason,
            of a source that says so.
        too_long: of these, longer than the link's MTU or the engine takes.
        too_short: of these, shorter than an Ethernet header.
        sent: packets that the link took, over all rounds.
        refused: packets that it did not take, or did not say of in time.
        bytes: of the packets handed over, sent or refused.
        seconds: from the first packet to the last.
        truncated: where and why the source ended early, or None.
        interrupted: it was ended before the last packet, by a signal or by `duration_s`.
        stamped: packets handed over with a stamp.
        run: number of the run that their stamps say, or None.
        late_us: of packets with a time: how late they were handed over: p50, p99, max;
            microseconds.
    """

    dev: str = ""
    engine: str = ""
    mode: str = ""
    read: int = 0
    left_out: int = 0
    edits: dict[str, int] = field(default_factory=dict)
    too_long: int = 0
    too_short: int = 0
    sent: int = 0
    refused: int = 0
    bytes: int = 0
    seconds: float = 0.0
    truncated: str | None = None
    interrupted: bool = False
    stamped: int = 0
    run: int | None = None
    late_us: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        rate = 1 / self.seconds if self.seconds else 0.0
        return {
            **asdict(self),
            "pps": round(self.sent * rate, 1),
            "mbps": round(self.bytes * 8e-6 * rate, 3),
        }


class NothingToSendError(XdpipeError):
    """A source has no packets, or none that the link takes."""


class _Ended(Exception):
    """It was ended before the last packet."""


class _Replay:
    """One replay, under way."""

    def __init__(
        self, source: Source, link: Link, engine: Engine, options: ReplayOptions,
        stop: Callable[[], bool], progress: Callable[[int, int | None], None],
    ) -> None:  # fmt: skip
        self.source, self.link, self.engine, self.options = source, link, engine, options
        self.result = ReplayResult(
            dev=link.name, engine=engine.name, mode=engine.mode, run=options.run
        )
        self._stop, self._progress = stop, progress
        self._longest = min(link.mtu + _ETHERNET_AND_TWO_TAGS, engine.longest)
        self.players = [
            Player(lane, paced=not options.pace.top, stream=None if options.run is None else number)
            for number, lane in enumerate(engine.lanes)
        ]
        self._filling: list[Block] = []
        self._held: list[list[Block]] = [[] for _ in self.players]
        self._streams = False
        self._started_ns = 0
        self._total: int | None = None
        self._looked = 0.0

    # --- from the source to blocks ---

    def lay_round(self, offset_ns: int, *, first: bool) -> Schedule:
        """Lay all packets of the source, in one round; return its schedule."""
        schedule = Schedule(self.options.pace)
        for batch in self.source:
            short, fits = batch.len < _ETHERNET, batch.len <= self._longest
            wanted = batch.verdict != Verdict.DROP
            if first:
                self.result.read += len(batch)
                self.result.left_out += int((~wanted).sum())
                self.result.too_long += int((wanted & ~fits).sum())
                self.result.too_short += int((wanted & short).sum())
            batch.drop(wanted & (short | ~fits))
            kept = wanted & fits & ~short
            due = schedule.due_ns(batch.time_ns, batch.len, kept) + np.uint64(offset_ns)
            run = self.options.run
            stamp_at = None if run is None else probe.place(batch, run)
            lay = ffi.new("struct xp_lay *", {
                "due_ns": ffi.from_buffer("uint64_t[]", due), "n_lanes": len(self.players),
            })  # fmt: skip
            if stamp_at is not None:
                lay.stamp_at = ffi.from_buffer("uint32_t[]", stamp_at)
            for number in range(len(self.players)):
                lay.lane, lay.next = number, 0
                while not self._filling[number].lay(batch, lay):
                    self._full(number)
            self.look()
        return schedule

    def _full(self, number: int) -> None:
        """Hand over a lane's block, or hold it while all may yet fit in memory; take another."""
        self._held[number].append(self._filling[number])
        if len(self._held[number]) == N_BLOCKS:
            self._streams = True
            self.begin()
        if self._streams:
            for player, blocks in zip(self.players, self._held, strict=True):
                for block in blocks:
                    player.send([block])
                blocks.clear()
        self._filling[number] = self._free_block(number)

    def _free_block(self, number: int) -> Block:
        while True:
            try:
                return self.players[number].free.get(timeout=_TICK_S if self._streams else None)
            except queue.Empty:
                self.look()

    # --- sending ---

    def begin(self) -> None:
        """Start the clock and the players."""
        if not self._started_ns:
            self._started_ns = lib.xp_clock_ns() + _LEAD_NS
            for player in self.players:
                player.begin(self._started_ns)

    def look(self) -> None:
        """Look around: is it to end, is the link still there, how far is it?

        Raises:
            _Ended: it is to end.
            XdpipeError: the link takes no packets any more.
        """
        now = time.monotonic()
        if now - self._looked < _TICK_S:
            return
        self._looked = now
        taken = sum(int(player.lane.c.taken) for player in self.players)
        self._progress(taken, self._total)
        duration = self.options.duration_s
        over = self._started_ns and duration is not None and (
            lib.xp_clock_ns() - self._started_ns > duration * 1e9
        )  # fmt: skip
        if over or self._stop():
            raise _Ended
        self._require_none_failed()
        if is_up(self.link.name):
            return
        again = self.link.again()  # it may have another name by now
        if again is None or not again.up:
            self._fail(0, "is gone" if again is None else "is down")

    def _require_none_failed(self) -> None:
        for player in self.players:
            if player.failed:
                self._fail(player.failed)

    def _fail(self, failed: int, why: str = "") -> None:
        taken = sum(int(player.lane.c.taken) for player in self.players)
        total = f" of {self._total}" if self._total is not None else ""
        if failed > 0:
            why = os.strerror(failed)
        if not why:
            why = "takes no packets any more; is it still up, and the other side too?"
        raise XdpipeError(f"{self.link.name}: {why}, after {taken}{total} packets") from None

    def play(self) -> None:
        """Send everything, or until it is ended."""
        loops = self.options.loops or _FOREVER
        n_known = self.source.n_packets
        if n_known is not None and self.options.loops:
            self._total = n_known * loops
        self._filling = [player.free.get() for player in self.players]
        schedule = self.lay_round(0, first=True)
        result = self.result
        kept = result.read - result.left_out - result.too_long - result.too_short
        if self.result.read == 0:
            raise NothingToSendError("no packets to send: there are none")
        if kept == 0:
            raise NothingToSendError(
                f"no packets to send: of {result.read}, {result.left_out} are left out by the "
                f"edits, {result.too_long} are longer than the {self._longest} bytes that "
                f"{self.link.name} takes, and {result.too_short} shorter than {_ETHERNET}"
            )
        self._total = kept * loops if self.options.loops else None
        round_ns, n_laid = schedule.round_ns, 1
        if self.options.run is not None:  # a packet's bytes are in use while it is under way
            n_laid = max(min(loops, _TILE // kept), 1)
            for number in range(1, n_laid):
                self.lay_round(number * round_ns, first=False)
        if self._streams:
            self._stream_on(round_ns, n_laid, loops)
        else:
            self._play_whole(round_ns, n_laid, loops)
        for player in self.players:
            player.finish()
        while any(player.is_alive() for player in self.players):
            for player in self.players:
                player.join(_TICK_S / len(self.players))
            self.look()
        self._require_none_failed()

    def _play_whole(self, round_ns: int, n_laid: int, loops: int) -> None:
        """All packets lie ready, n_laid rounds of them: C sends them, again and again."""
        for number, player in enumerate(self.players):
            blocks = [*self._held[number], self._filling[number]]
            n = sum(map(len, blocks))
            times = 1
            if n and len(blocks) == 1 and self.options.run is None:
                times = max(min(loops, _TILE // n), 1)
                blocks[0].repeat(times, round_ns)
            player.send(blocks, min(n // n_laid * loops, _FOREVER), times * n_laid * round_ns)
        self.begin()

    def _stream_on(self, round_ns: int, n_laid: int, loops: int) -> None:
        for number in range(n_laid, loops):
            self.lay_round(number * round_ns, first=False)
        for player, block in zip(self.players, self._filling, strict=True):
            player.send([block])

    def end(self) -> ReplayResult:
        """Have the players end, and count."""
        for player in self.players:
            player.stop()
        for player in self.players:
            if player.is_alive():
                player.join()
        if self._started_ns:
            self.result.seconds = max(lib.xp_clock_ns() - self._started_ns, 0) * 1e-9
        lanes = [player.lane.c for player in self.players]
        taken, done = (sum(int(getattr(c, name)) for c in lanes) for name in ("taken", "done"))
        refused = sum(int(c.refused) for c in lanes) + taken - done + (self.engine.lost() or 0)
        self.result.sent, self.result.refused = taken - refused, refused
        self.result.bytes = sum(int(c.bytes) for c in lanes)
        self.result.stamped = sum(player.n_stamped for player in self.players)
        self.result.late_us = self._late()
        self.result.edits = dict(getattr(self.source, "left_out", {}))
        self.result.truncated = getattr(self.source, "truncated", None)
        return self.result

    def _late(self) -> dict[str, float]:
        counts = np.add.reduce([player.late for player in self.players])
        total = int(counts.sum())
        if not total:
            return {}
        most = max(player.late_max_ns for player in self.players)
        parts = {
            name: (percentile(counts, lib.XP_HISTOGRAM_SUB_BITS, part, 0, most) or 0.0) / 1000
            for name, part in (("p50", 50), ("p99", 99))
        }
        return {**{name: round(us, 3) for name, us in parts.items()}, "max": round(most / 1000, 3)}


def replay(
    source: Source,
    link: Link,
    options: ReplayOptions,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int | None], None] = lambda n, total: None,
) -> ReplayResult:
    """Send the packets of a source out of a link.

    Args:
        source: of packets; stays the caller's.
        link: the interface; it must be up.
        options: how.
        stop: asked now and then whether to end.
        progress: told packets handed over, and packets in all, where that is known.

    Raises:
        NothingToSendError: the source has no packets that can be sent.
        XdpipeError: the link is not fit for it, or stops taking packets.
    """
    pace = options.pace
    fast = pace.top or (pace.pps or 0) >= FAST_PPS
    asked = EngineOptions(**{**vars(options.engine), "fast": fast})
    with open_engine(link, asked, stop) as engine:
        under_way = _Replay(source, link, engine, options, stop, progress)
        try:
            under_way.play()
        except _Ended:
            under_way.result.interrupted = True
        finally:
            under_way.end()
        return under_way.result
