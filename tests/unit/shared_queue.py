"""A queue whose shared memory is one buffer, so that any moment of it can be copied and examined.

Run as a program it is the worker: it takes its turns under the eyes of a tracer.
"""

import mmap
import os
import random
import signal
import sys

from xdpipe.core._core import ffi, lib
from xdpipe.verdict import DROP, FORWARD, TX

N_FRAMES = 16
N_TX = 4
CAPACITY = 7
FRAME = 64  # nobody looks beyond its first byte
HEADROOM = 16
WRAP = 1 << 32

COUNTERS = [ffi.string(lib.xp_counter_names[i].name).decode() for i in range(lib.xp_n_counters)]

# name, entries, bytes of an entry, whether we produce
RINGS = (
    ("fill", N_FRAMES, 8, True), ("rx", N_FRAMES, 16, False),
    ("tx", N_TX, 16, True), ("completion", N_FRAMES, 8, False),
)  # fmt: skip
INDEX_BYTES = 16  # producer, consumer, flags, and 4 to spare
N_PORTS_MAX = 2
# of a port: counters, ring indices, ring entries
RINGS_AT = 8 * len(COUNTERS)
ENTRIES_AT = RINGS_AT + INDEX_BYTES * len(RINGS)
PORT_BYTES = ENTRIES_AT + sum(n * size for _, n, size, _ in RINGS)
MARK_AT = N_PORTS_MAX * PORT_BYTES
FRAMES_AT = MARK_AT + 8
SIZE = FRAMES_AT + N_FRAMES * FRAME
CONTINUED = 1 << 32  # XDP_PKT_CONTD, where the word of length and options is one number

IDLE, RUNNING = 0, 1


class Ring:
    """One ring in the buffer; both sides of it."""

    def __init__(self, base: object, index_at: int, entries_at: int, n: int, size: int) -> None:
        self.indices = ffi.cast("uint32_t *", base + index_at)  # type: ignore[operator]
        self.words = ffi.cast("uint64_t *", base + entries_at)  # type: ignore[operator]
        self.entries, self.n, self.step = base + entries_at, n, size // 8  # type: ignore[operator]

    def init(self, ring: object, *, we_produce: bool) -> None:
        i = self.indices
        lib.xp_ring_init(ring, i, i + 1, i + 2, self.entries, self.n, we_produce)

    def __len__(self) -> int:
        return (self.indices[0] - self.indices[1]) % WRAP

    def addresses(self) -> list[int]:
        first = self.indices[1]
        return [self.words[(first + k) % self.n * self.step] for k in range(len(self))]

    def put(self, address: int, length: int = 0) -> None:
        assert len(self) < self.n
        slot = self.indices[0] % self.n * self.step
        self.words[slot] = address
        if self.step == 2:
            self.words[slot + 1] = length
        self.indices[0] = (self.indices[0] + 1) % WRAP

    def take(self) -> int:
        assert len(self)
        address = self.words[self.indices[1] % self.n * self.step]
        self.indices[1] = (self.indices[1] + 1) % WRAP
        return int(address)


class Side:
    """A port: rings and counters in the buffer, a socket over them, and the kernel's side of it."""

    def __init__(self, base: object, start: int | None) -> None:
        self.counters = ffi.cast("uint64_t *", base)
        self.rings: dict[str, Ring] = {}
        at = ENTRIES_AT
        for k, (name, n, size, _) in enumerate(RINGS):
            self.rings[name] = Ring(base, RINGS_AT + k * INDEX_BYTES, at, n, size)
            at += n * size
        if start is not None:
            for ring in self.rings.values():
                ring.indices[0] = ring.indices[1] = start % WRAP
            for name in ("received", "filled"):
                self.counters[COUNTERS.index(name)] = start + (start and WRAP)
            for name in ("verdict_tx", "tx_submitted", "tx_completed"):
                self.counters[COUNTERS.index(name)] = start
            self.counters[COUNTERS.index("verdict_drop")] = start and WRAP
        self.xsk = ffi.new("struct xp_xsk *", {"fd": -1})
        self.look_at_rings()

    def look_at_rings(self) -> None:
        """Map the rings anew, as a next worker does."""
        for name, _, _, we_produce in RINGS:
            self.rings[name].init(ffi.addressof(self.xsk, name), we_produce=we_produce)

    def count(self, name: str) -> int:
        return int(self.counters[COUNTERS.index(name)])

    # the kernel's side

    def kernel_receives(self, n_frames: int = 1) -> bool:
        """Put a packet of so many frames on the rx ring, all at once; False: too few are there."""
        fill, rx = self.rings["fill"], self.rings["rx"]
        if len(fill) < n_frames:
            return False
        addresses = [fill.take() // FRAME * FRAME + HEADROOM for _ in range(n_frames)]
        for address in addresses[:-1]:
            rx.put(address, 60 + CONTINUED)
        rx.put(addresses[-1], 60)
        return True

    def kernel_sends(self) -> bool:
        if not len(self.rings["tx"]):
            return False
        self.rings["completion"].put(self.rings["tx"].take())
        return True


class SharedQueue:
    """One port or two in `memory`, and a worker over them, as whose kernel we act.

    `start` is where the indices begin: 0, or as after `start` packets received and half of them
    sent, so that the books are those of a queue that has long been in use. With `multi_buffer`
    packets come in up to three frames.
    """

    def __init__(
        self,
        memory: object,
        start: int | None = None,
        *,
        multi_buffer: bool = False,
        n_ports: int = 1,
    ) -> None:
        self.memory = memory
        self.multi_buffer = multi_buffer
        self._base = ffi.from_buffer("uint8_t[]", memory, require_writable=True)
        self.sides = [Side(self._base + k * PORT_BYTES, start) for k in range(n_ports)]
        self.rings, self.counters = self.sides[0].rings, self.sides[0].counters
        self._free = ffi.new("uint64_t[]", N_FRAMES)
        self._marks = ffi.new("uint8_t[]", N_FRAMES)
        self.umem = ffi.new("struct xp_umem *", {
            "base": self._base + FRAMES_AT, "size": N_FRAMES * FRAME, "frame_size": FRAME,
            "n_frames": N_FRAMES, "free": self._free,
        })  # fmt: skip
        self._arena = ffi.new("uint8_t[]", lib.xp_batch_bytes(CAPACITY))
        self._scratch = ffi.new("uint32_t[]", CAPACITY * n_ports)
        self._attention = ffi.new("uint32_t *")
        names = [ffi.string(lib.xp_columns[i].name) for i in range(lib.xp_n_columns)]
        self.batch = lib.xp_batch_init(self._arena, CAPACITY, ffi.NULL, N_FRAMES * FRAME)
        column = lib.xp_batch_column
        self.verdicts = ffi.cast("uint8_t *", column(self.batch, names.index(b"verdict")))
        self.batch_addr = ffi.cast("uint64_t *", column(self.batch, names.index(b"addr")))
        self._ports = ffi.new("struct xp_port[]", [
            {"xsk": side.xsk, "counters": ffi.cast("struct xp_counters *", side.counters)}
            for side in self.sides
        ])  # fmt: skip
        self.worker = ffi.new("struct xp_worker *", {
            "ports": self._ports, "n_ports": n_ports, "umem": self.umem, "batch": self.batch,
            "default_verdict": DROP, "control_fd": -1, "attention": self._attention,
            "tx_scratch": self._scratch, "multi_buffer": multi_buffer,
        })  # fmt: skip

    def look_at_rings(self) -> None:
        """Map the rings anew, as a next worker does."""
        for side in self.sides:
            side.look_at_rings()

    def adopt(self) -> int:
        return int(lib.xp_adopt(self.worker, self._marks))

    def hand_to_kernel(self, n_fill: int, n_tx: int) -> None:
        """Put frames on the fill and the tx ring, as a worker did that is no more."""
        for k in range(n_fill):
            self.rings["fill"].put(k * FRAME)
        for k in range(n_fill, n_fill + n_tx):
            self.rings["tx"].put(k * FRAME, 60)
        self.counters[COUNTERS.index("filled")] += n_fill
        for name in ("verdict_tx", "tx_submitted"):
            self.counters[COUNTERS.index(name)] += n_tx

    def count(self, name: str) -> int:
        return sum(side.count(name) for side in self.sides)

    def decide(self, rng: random.Random) -> None:
        n = lib.xp_batch_n(self.batch)
        forward = [FORWARD] * 3 if len(self.sides) > 1 else []
        self.verdicts[0:n] = bytes(rng.choices([0, DROP, TX, TX, 9, *forward], k=n))

    def frames(self) -> list[int]:
        """Return the frames wherever they are, sorted: each must be there once."""
        addresses = [self._free[i] for i in range(self.umem.n_free)]
        addresses += [self.batch_addr[i] for i in range(lib.xp_batch_n(self.batch))]
        for side in self.sides:
            for ring in side.rings.values():
                addresses += ring.addresses()
        return sorted(address // FRAME for address in addresses)

    # the kernel's side

    def kernel_receives(self, n_frames: int = 1) -> bool:
        return self.sides[0].kernel_receives(n_frames)

    def kernel_sends(self) -> bool:
        sent = [side.kernel_sends() for side in self.sides]
        return any(sent)

    def kernel_takes_back(self) -> None:
        """Undo one kernel_receives and one kernel_sends."""
        for name, side in (("fill", 1), ("rx", 0), ("tx", 1), ("completion", 0)):
            indices = self.rings[name].indices
            indices[side] = (indices[side] - 1) % WRAP


def work(fd: int, seed: int, function: str, multi_buffer: bool, n_ports: int) -> None:
    """Call a function of the loop again and again; stop for the tracer before each call."""
    queue = SharedQueue(mmap.mmap(fd, SIZE), multi_buffer=multi_buffer, n_ports=n_ports)
    assert queue.adopt() == 0
    rng = random.Random(seed)
    me, memory, worker = os.getpid(), queue.memory, queue.worker
    call = getattr(lib, function)
    while True:
        queue.decide(rng)
        os.kill(me, signal.SIGSTOP)
        memory[MARK_AT] = RUNNING  # type: ignore[index]
        call(worker)
        memory[MARK_AT] = IDLE  # type: ignore[index]


if __name__ == "__main__":
    import ctypes

    assert ctypes.CDLL(None).ptrace(0, 0, None, None) == 0  # PTRACE_TRACEME
    work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True", int(sys.argv[5]))
