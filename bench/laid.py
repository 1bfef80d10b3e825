"""Packets as they lie in a queue's memory, and the time that stages take for them.

The time is what the core counts for each stage (xp_run_stages, the clock read before and behind
it), so that nothing of Python is in it. Batches are run in slices of some 0.2 ms; the median slice
counts, which no other process has interrupted.
"""

import mmap
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from packets import again

from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.stage import NS, PACKETS, Stage

FRAME, HEADROOM = 2048, 256
BATCH = 256
COLD_FRAMES = 16384  # 32 MiB; the first two lines of each packet are 2 MiB, more than most L2
SLICE = 8192  # packets, at the most


class Laid:
    """Packets in frames of 2048 bytes, again and again, of other hosts, until the frames are full.

    Args:
        packets: in their order; of more than there are frames, some from all of them.
        n_frames: BATCH: hot, one batch that stays in the caches. COLD_FRAMES: cold, each packet
            lies where nobody has looked for long, in no order that a prefetcher knows.
        headroom: bytes before a packet.
    """

    def __init__(self, packets: Sequence[bytes], n_frames: int, headroom: int = HEADROOM) -> None:
        if len(packets) > n_frames:
            packets = [packets[k * len(packets) // n_frames] for k in range(n_frames)]
        memory = mmap.mmap(-1, n_frames * FRAME)
        frames = np.frombuffer(memory, np.uint8).reshape(n_frames, FRAME)
        order = list(range(n_frames))
        random.Random(1).shuffle(order)
        lens = [len(packets[k % len(packets)]) for k in range(n_frames)]
        for k, frame in enumerate(order):
            turn, place = divmod(k, len(packets))
            packet = np.frombuffer(again(packets[place], turn), np.uint8)
            frames[frame, headroom : headroom + len(packet)] = packet
        self.batch, self._headroom = Batch(memory, BATCH), headroom
        addresses = np.array(order, np.uint64) * FRAME + headroom
        self._batches = [
            (addresses[first : first + BATCH], np.array(lens[first : first + BATCH]))
            for first in range(0, n_frames, BATCH)
        ]

    def batches(self) -> Iterator[None]:
        """Make the batch each of its batches in turn."""
        for addresses, lens in self._batches:
            self.batch.place(addresses, lens, self._headroom)
            yield

    def run(self, make: Callable[[], Sequence[Stage]], seconds: float, *, afresh: bool) -> float:
        """Return ns per packet of the last stage of a chain.

        Args:
            make: makes the stages.
            seconds: for how long.
            afresh: begin each pass with stages that have seen nothing: what comes again is not
                what came first, where a stage keeps state.
        """
        slices: list[float] = []
        chain = self._warmed(make)
        end = time.monotonic() + seconds
        while True:
            if afresh:
                chain = Chain(make(), self.batch)
            slices += self._pass(chain)
            if time.monotonic() >= end and len(slices) >= 5:
                return statistics.median(slices)

    def _warmed(self, make: Callable[[], Sequence[Stage]]) -> Chain:
        chain = Chain(make(), self.batch)
        list(self._pass(chain))
        return chain

    def _pass(self, chain: Chain) -> list[float]:
        """Run all batches once, a single one many times; return ns per packet of each slice."""
        batches = self._batches if len(self._batches) > 1 else self._batches * (SLICE // BATCH)
        counts = chain.counts[len(chain.counts) - chain.infos[-1].n_counts :]
        slices = []
        for first in range(0, len(batches), SLICE // BATCH):
            ns, packets = counts[NS], counts[PACKETS]
            for addresses, lens in batches[first : first + SLICE // BATCH]:
                self.batch.place(addresses, lens, self._headroom)
                chain.run()
            slices.append((counts[NS] - ns) / (counts[PACKETS] - packets))
        return slices
