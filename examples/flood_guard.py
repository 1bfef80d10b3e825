"""Keep a UDP service alive under a flood, from sources that stay and from ones that are made up.

    xdpipe run flood_guard.py --dev eth0        (the service here is DNS: port 53)

A source that sends more than LIMIT packets within a second is an offender: the XDP program drops
all its packets for the next minute, before they cost anything. That ends a flood from real hosts.

Of made-up sources each sends once or twice, so none is an offender. But clients come again: a
source that was seen in two different seconds, below the limit, is known, and known ones are served
always. All others, which are new clients and the flood, share NEWCOMERS packets a second; a
client that is not lucky at first asks again. So a flood of made-up sources costs the service no
more than that. (Made up from a small range, so that each comes again in another second, they look
like many clients, and are served as such up to the limit.)

What is known of sources lies in tables of fixed size, one slot a source, found by a hash with a key
of its own for each worker, so that nobody can aim at a slot. A source that nobody has seen for IDLE
seconds, or that is not known, gives its slot to the next.

What is left is given to the kernel, and so to the service, as if nothing had been there before it.
"""

import os

import numpy as np

from xdpipe import PASS, Batch, DropSet, Pipeline, Stage, Steering
from xdpipe.stages import Headers

LIMIT = 200  # packets a second from one source
NEWCOMERS = 2000  # packets a second from all sources that are not known, for each queue
KNOWN = 2  # seconds in which a source was seen
IDLE = 300  # seconds
N_SLOTS = 1 << 17


class FloodGuard(Stage):
    """Tell clients from floods by how they come."""

    requires = ("src",)
    counters = ("offending", "newcomers", "too_many_newcomers", "known")

    def __init__(self) -> None:
        self._keys = np.frombuffer(os.urandom(16), np.uint64) | np.uint64(1)
        self._who = np.zeros(N_SLOTS, np.uint64)  # hash of the source that has the slot
        self._second = np.zeros(N_SLOTS, np.int64)  # in which it was seen last
        self._count = np.zeros(N_SLOTS, np.uint32)  # of its packets in that second
        self._seconds = np.zeros(N_SLOTS, np.uint8)  # in which it was seen, KNOWN at the most
        self._now = 0
        self._left = NEWCOMERS

    def process(self, batch: Batch) -> None:
        if not len(batch):
            return
        now = int(batch.time_ns[0] // np.uint64(10**9))
        if now != self._now:
            self._now, self._left = now, NEWCOMERS
        words = batch.src.view(np.uint64)
        who = (words[:, 0] * self._keys[0]) ^ (words[:, 1] * self._keys[1])
        who ^= who >> np.uint64(29)
        who *= np.uint64(0x9E3779B97F4A7C15)
        slot = (who >> np.uint64(64 - 17)).astype(np.int64)

        known = self._find(who, slot, now)
        mine = self._who[slot] == who  # two newcomers of one batch may want the same slot
        over = mine & (self._count[slot] > LIMIT)
        self.count("offending", batch.drop(over))
        self.sets["offenders"].add(batch.src[over])
        self.count("known", batch.pass_(known & ~over))

        newcomers = np.flatnonzero(~known & ~over)
        n_lucky = min(len(newcomers), self._left)
        self._left -= n_lucky
        self.count("newcomers", n_lucky)
        unlucky = np.zeros(len(batch), np.bool_)
        unlucky[newcomers[n_lucky:]] = True
        self.count("too_many_newcomers", batch.drop(unlucky))

    def _find(self, who: np.ndarray, slot: np.ndarray, now: int) -> np.ndarray:
        """Give slots to sources that have none, count all packets; return whose are known."""
        stranger = self._who[slot] != who
        free = (self._seconds[slot] < KNOWN) | (now - self._second[slot] > IDLE)
        takes = slot[stranger & free]
        self._who[takes] = who[stranger & free]
        self._seconds[takes] = 0
        self._second[takes] = 0

        mine = slot[self._who[slot] == who]
        again = mine[self._second[mine] != now]  # the first packets in this second
        behaved = again[self._count[again] <= LIMIT]
        self._seconds[behaved] = np.minimum(self._seconds[behaved] + 1, KNOWN)
        self._count[again] = 0
        self._second[again] = now
        np.add.at(self._count, mine, 1)
        known: np.ndarray = (self._who[slot] == who) & (self._seconds[slot] >= KNOWN)
        return known


pipeline = Pipeline(
    steering=Steering("udp dst port 53", sets={"offenders": DropSet(ttl_s=60)}),
    stages=[Headers(), FloodGuard()],
    default=PASS,
)
