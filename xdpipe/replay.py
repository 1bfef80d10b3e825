"""Put a capture's packets on a link through AF_XDP TX."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_program import PASS, Program
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.core._core import ffi, lib
from xdpipe.counters import CountersPage
from xdpipe.drivers import quirks
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers
from xdpipe.umem import Geometry, Umem
from xdpipe.xsk import Xsk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xdpipe.link import Link

_CHUNK = 64
"""Packets that are handed over at once: the grain of the pace."""
_STALL_S = 2.0
"""A link that takes nothing for so long is given up."""
_CARRIER_S = 10.0
"""How long a link may be down when it is set up for zero copy."""
CATCH_UP_S = 0.01
"""Who falls behind the pace catches up with so much of it at once, and no more: a burst would fill
the receiver's rings."""


@dataclass(frozen=True)
class Packets:
    """Packets of one queue, one behind the other.

    Attributes:
        data: the bytes, uint8.
        offsets: where each begins, uint64.
        lens: bytes of each, int32.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.uint64]
    lens: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lens)


@dataclass
class ReplayResult:
    """What became of the packets: read = skipped + the ones sent or refused in one loop.

    Attributes:
        read: packets in the capture.
        too_long: packets left out because the link's MTU does not allow them.
        sent: packets that the kernel sent, over all loops.
        refused: packets that it completed without sending, or did not complete.
        seconds: from the first packet to the last one's completion.
        truncated: where and why the capture ended early, or None.
        mode: `copy` or `zerocopy`.
        interrupted: it was ended before the last packet.
    """

    read: int = 0
    too_long: int = 0
    sent: int = 0
    refused: int = 0
    seconds: float = 0.0
    truncated: str | None = None
    mode: str = ""
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        rate = self.sent / self.seconds if self.seconds else 0.0
        return {**vars(self), "pps": round(rate, 1)}


def load(path: str | Path, n_queues: int, longest: int, result: ReplayResult) -> list[Packets]:
    """Read a capture and spread it over queues by flow, so that a flow stays in order.

    Args:
        path: the capture file.
        n_queues: over how many queues.
        longest: bytes; longer packets are left out and counted.
        result: is told what was read and left out.

    Raises:
        XdpipeError: no capture, not Ethernet, or nothing in it.
    """
    batches = CaptureBatches(path, 4096)
    parts: list[list[tuple[NDArray[np.uint8], NDArray[np.int32]]]] = [[] for _ in range(n_queues)]
    try:
        chain = Chain([Headers()], batches.batch)
        for batch in batches:
            chain.run()
            result.read += len(batch)
            fits = batch.len <= longest
            result.too_long += int(len(batch) - fits.sum())
            lane = batch.flow_hash % np.uint32(n_queues)
            memory = np.frombuffer(batch.memory, np.uint8)
            for queue in range(n_queues):
                where = np.flatnonzero(fits & (lane == queue))
                parts[queue].append(_gather(memory, batch.addr[where], batch.len[where]))
        truncated = batches.reader.truncated
    finally:
        batches.close()
    if truncated is not None:
        result.truncated = (
            f"after packet {truncated.after_packets}, at byte {truncated.offset}: "
            f"{truncated.reason}"
        )
    if result.read == 0:
        raise XdpipeError(f"{path}: no packets in it")
    if result.read == result.too_long:
        raise XdpipeError(f"{path}: all packets are longer than {longest} bytes, the link's MTU")
    return [_join(lane) for lane in parts]


def _gather(
    memory: NDArray[np.uint8], addr: NDArray[np.uint64], lens: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Copy packets that lie apart to one array, one behind the other."""
    ends = np.cumsum(lens, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    starts = np.repeat(addr.astype(np.int64) - (ends - lens), lens)
    return memory[starts + np.arange(total)], lens.copy()


def _join(parts: list[tuple[NDArray[np.uint8], NDArray[np.int32]]]) -> Packets:
    data = np.concatenate([part[0] for part in parts])
    lens = np.concatenate([part[1] for part in parts])
    offsets = np.zeros(len(lens), np.uint64)
    np.cumsum(lens[:-1], out=offsets[1:], dtype=np.uint64)
    return Packets(data, offsets, lens)


class _Lane:
    """One queue that is sent to: its socket, its packets, and how far it is."""

    def __init__(self, link: Link, queue: int, mode: str, packets: Packets) -> None:
        self.queue = queue
        self.packets = packets
        self.at = 0
        self.page = CountersPage(())
        self.umem = Umem(Geometry.for_link(link))
        self.xsk = Xsk.open(self.umem)
        self.mode = self.xsk.bind(link, queue, mode)
        self._port = ffi.new(
            "struct xp_port *", {"xsk": self.xsk.c, "counters": self.page.c_counters()}
        )
        self.c = ffi.new(
            "struct xp_worker *", {"ports": self._port, "n_ports": 1, "umem": self.umem.c}
        )
        self.umem.adopt(self.c)
        self._data = ffi.from_buffer("uint8_t[]", packets.data)
        self._offsets = ffi.from_buffer("uint64_t[]", packets.offsets)
        self._lens = ffi.from_buffer("int32_t[]", packets.lens)

    def send(self, most: int) -> int:
        """Hand over up to `most` packets from where we are; return how many were taken."""
        n = min(most, len(self.packets) - self.at)
        taken = int(
            lib.xp_transmit(self.c, self._data, self._offsets + self.at, self._lens + self.at, n)
        )
        self.at += taken
        return taken

    def drain(self, timeout_ms: int) -> None:
        lib.xp_drain_tx(self.c, timeout_ms)

    def close(self) -> None:
        self.xsk.close()
        self.umem.close()
        self.page.close()


class Pace:
    """When packets are due at so many a second.

    Args:
        pps: packets per second; None: all at once.
        now: the time at which the first is due; seconds.
    """

    def __init__(self, pps: float | None, now: float) -> None:
        self._pps = pps
        self._started = now
        self._burst = 1 if pps is None else max(_CHUNK, int(pps * CATCH_UP_S))

    def due(self, now: float, n_sent: int, total: int) -> int:
        """Return how many packets of the total may have been sent by now."""
        if self._pps is None:
            return total
        due = int((now - self._started) * self._pps) + 1
        behind = due - n_sent - self._burst
        if behind > 0:
            self._started += behind / self._pps
            due -= behind
        return min(due, total)

    def wait_s(self, now: float, n_sent: int) -> float:
        """Return the seconds until the next packet is due."""
        if self._pps is None:
            return 0.0
        return max(n_sent / self._pps - (now - self._started), 0.0)


def replay(
    path: str | Path,
    link: Link,
    queues: Sequence[int],
    *,
    pps: float | None = None,
    loops: int = 1,
    mode: str = "auto",
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Send a capture's packets out of a link.

    Args:
        path: the capture file.
        link: the interface; it must be up.
        queues: transmit queues; a flow goes to one of them.
        pps: packets per second over all queues, not to be exceeded; None: as fast as the link
            takes them.
        loops: how often the capture is sent.
        mode: `auto`, `zerocopy` or `copy`.
        stop: asked now and then whether to end.
        progress: told packets handed over, and packets in all.

    Raises:
        XdpipeError: the capture or the link is not fit for it, or the link stops taking packets.
    """
    result = ReplayResult()
    geometry = Geometry.for_link(link)
    longest = min(link.mtu + 14 + 8, geometry.frame_size)
    lanes: list[_Lane] = []
    with ExitStack() as stack:
        for queue, packets in zip(queues, load(path, len(queues), longest, result), strict=True):
            lane = _Lane(link, queue, mode, packets)
            stack.callback(lane.close)
            lanes.append(lane)
        result.mode = lanes[0].mode
        if result.mode == "zerocopy" and quirks(link.driver).tx_needs_program:
            program = stack.enter_context(Program.load(PASS, "pass"))
            stack.enter_context(XdpLink(program, link.index, link.name, "native"))
            link.with_carrier(_CARRIER_S, stop)
        total = loops * sum(len(lane.packets) for lane in lanes)
        try:
            _send_all(lanes, loops, pps, total, link, stop, progress, result)
        finally:
            for lane in lanes:
                lane.drain(500)
                counters = lane.page.read()
                result.sent += counters["tx_completed"] - counters["tx_dropped"]
                result.refused += counters["tx_dropped"] + counters["tx_abandoned"]
    return result


def _send_all(
    lanes: list[_Lane],
    loops: int,
    pps: float | None,
    total: int,
    link: Link,
    stop: Callable[[], bool],
    progress: Callable[[int, int], None] | None,
    result: ReplayResult,
) -> None:
    started = time.perf_counter()
    last_taken = started
    pace = Pace(pps, started)
    n_sent = 0
    for _ in range(loops):
        for lane in lanes:
            lane.at = 0
        while any(lane.at < len(lane.packets) for lane in lanes):
            now = time.perf_counter()
            if stop():
                result.interrupted = True
                break
            due = pace.due(now, n_sent, total)
            taken = 0
            for lane in lanes:
                room = min(_CHUNK, due - n_sent - taken)
                if room > 0:
                    taken += lane.send(room)
            n_sent += taken
            if taken:
                last_taken = now
            elif due > n_sent and now - last_taken > _STALL_S:
                raise XdpipeError(
                    f"{link.name}: takes no packets any more after {n_sent} of {total}; "
                    "is it still up, and the other side too?"
                )
            elif due <= n_sent:
                time.sleep(min(pace.wait_s(now, n_sent), 0.05))
                last_taken = now
            if progress is not None:
                progress(n_sent, total)
        if result.interrupted:
            break
    result.seconds = time.perf_counter() - started
