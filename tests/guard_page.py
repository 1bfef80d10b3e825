"""Memory in which a packet ends at a page that nobody may touch: a read too far is a fault."""

import ctypes
import mmap

import numpy as np

from xdpipe.batch import Batch

PAGE = mmap.PAGESIZE
PROT_NONE = 0


class GuardedBatch:
    """A batch of n_packets packets, each of up to a page, each with a guard page behind it."""

    def __init__(self, n_packets: int) -> None:
        self._memory = mmap.mmap(-1, 2 * PAGE * n_packets)
        self._pages = np.frombuffer(self._memory, np.uint8).reshape(n_packets, 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        for i in range(n_packets):
            guard = ctypes.c_void_p(start + (2 * i + 1) * PAGE)
            assert mprotect(guard, ctypes.c_size_t(PAGE), PROT_NONE) == 0
        self.batch = Batch(self._memory, n_packets)

    def load(self, packets: list[bytes]) -> Batch:
        """Place the packets so that each ends at its guard page."""
        for page, packet in zip(self._pages, packets, strict=False):
            page[PAGE - len(packet) : PAGE] = np.frombuffer(packet, np.uint8)
        places = [(2 * i + 1) * PAGE - len(packet) for i, packet in enumerate(packets)]
        self.batch.place(places, [len(packet) for packet in packets])
        return self.batch

    def load_cuts(self, packet: bytes, lens: list[int]) -> Batch:
        """Place the packet once for each length, cut to it, each at the end of a page."""
        data = np.frombuffer(packet, np.uint8)
        for page, n in zip(self._pages, lens, strict=False):
            page[PAGE - n : PAGE] = data[:n]
        self.batch.place([(2 * i + 1) * PAGE - n for i, n in enumerate(lens)], lens)
        return self.batch
