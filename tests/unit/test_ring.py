"""The rings and the loop with the test in the kernel's place; indices start before they wrap."""

import errno
import random
from collections.abc import Iterator

import numpy as np
import pytest

from xdpipe.batch import Batch
from xdpipe.core._core import ffi, lib
from xdpipe.verdict import DROP, TX

STARTS = [0, 0xFFFFFFF0]
FRAME = 2048
HEADROOM = 256


class Ring:
    """A ring in plain memory; both sides of it."""

    def __init__(self, c: object, size: int, start: int, *, descs: bool, we_produce: bool) -> None:
        self.size = size
        self.producer = ffi.new("uint32_t *", start)
        self.consumer = ffi.new("uint32_t *", start)
        self.flags = ffi.new("uint32_t *", 0)
        dtype = [("addr", "<u8"), ("len", "<u4"), ("options", "<u4")] if descs else "<u8"
        self.entries = np.zeros(size, dtype)
        memory = ffi.cast("void *", ffi.from_buffer(self.entries))
        lib.xp_ring_init(c, self.producer, self.consumer, self.flags, memory, size, int(we_produce))

    def __len__(self) -> int:
        return (self.producer[0] - self.consumer[0]) & 0xFFFFFFFF

    def kernel_puts(self, entry: object) -> None:
        self.entries[self.producer[0] % self.size] = entry
        self.producer[0] = (self.producer[0] + 1) & 0xFFFFFFFF

    def kernel_takes(self) -> object:
        assert len(self)
        entry = self.entries[self.consumer[0] % self.size].copy()
        self.consumer[0] = (self.consumer[0] + 1) & 0xFFFFFFFF
        return entry

    def addresses(self) -> list[int]:
        first = self.consumer[0]
        slots = [(first + i) % self.size for i in range(len(self))]
        column = self.entries["addr"] if self.entries.dtype.names else self.entries
        return [int(column[slot]) // FRAME for slot in slots]


class Queue:
    """A worker's socket, UMEM and batch, over rings in plain memory."""

    def __init__(self, n_frames: int = 16, tx: int = 8, start: int = 0, batch: int = 8) -> None:
        self.n_frames = n_frames
        self.memory = bytearray(n_frames * FRAME)
        self.base = ffi.from_buffer("uint8_t[]", self.memory, require_writable=True)
        self.free = ffi.new("uint64_t[]", n_frames)
        self.umem = ffi.new("struct xp_umem *", {
            "base": self.base, "size": len(self.memory), "frame_size": FRAME,
            "n_frames": n_frames, "free": self.free,
        })  # fmt: skip
        self.xsk = ffi.new("struct xp_xsk *", {"fd": -1})
        ring = lambda name, size, **kind: Ring(  # noqa: E731
            ffi.addressof(self.xsk, name), size, start, **kind
        )
        self.fill = ring("fill", n_frames, descs=False, we_produce=True)
        self.rx = ring("rx", n_frames, descs=True, we_produce=False)
        self.tx = ring("tx", tx, descs=True, we_produce=True)
        self.completion = ring("completion", n_frames, descs=False, we_produce=False)
        # The supervisor's view of the same rings, from before any worker began.
        self.supervisors_xsk = ffi.new("struct xp_xsk *", self.xsk[0])
        self.counters = ffi.new("struct xp_counters *")
        self.start = start
        self.in_kernel: list[int] = []
        self.in_kernel_tx: list[int] = []
        self.new_worker(batch)
        assert lib.xp_adopt(self.worker, ffi.new("uint8_t[]", n_frames)) == 0

    def new_worker(self, batch: int = 8) -> None:
        """Put another worker in the place of the one there was, as the supervisor does."""
        self.batch = Batch(self.memory, batch)
        self.scratch = ffi.new("uint32_t[]", batch)
        self.attention = ffi.new("uint32_t *")
        self.port = ffi.new("struct xp_port *", {"xsk": self.xsk, "counters": self.counters})
        self.worker = ffi.new("struct xp_worker *", {
            "ports": self.port, "n_ports": 1, "umem": self.umem, "batch": self.batch.c,
            "default_verdict": DROP, "control_fd": -1, "attention": self.attention,
            "tx_scratch": self.scratch,
        })  # fmt: skip

    def count(self, name: str) -> int:
        names = [ffi.string(lib.xp_counter_names[i].name).decode()
                 for i in range(lib.xp_n_counters)]  # fmt: skip
        return int(ffi.cast("uint64_t *", self.counters)[names.index(name)])

    # the kernel's side

    def kernel_receives(self, length: int = 60) -> int | None:
        """Take a frame from fill and put a packet in it on rx; None if no frame is there."""
        if not len(self.fill) or len(self.rx) == self.rx.size:
            return None
        address = int(self.fill.kernel_takes()) // FRAME * FRAME + HEADROOM
        self.rx.kernel_puts((address, length, 0))
        return address

    def kernel_sends(self) -> int | None:
        """Take a packet from tx and complete it."""
        if not len(self.tx):
            return None
        address = int(self.tx.kernel_takes()["addr"])
        self.completion.kernel_puts(address)
        return address

    def places(self) -> dict[str, list[int]]:
        batch = [int(addr) // FRAME for addr in self.batch.addr]
        free = [int(self.free[i]) // FRAME for i in range(self.umem.n_free)]
        return {
            "free": free, "fill": self.fill.addresses(), "rx": self.rx.addresses(),
            "batch": batch, "tx": self.tx.addresses(), "completion": self.completion.addresses(),
        }  # fmt: skip

    def check_frames(self) -> None:
        """Each frame is in exactly one place."""
        everywhere = sorted(frame for place in self.places().values() for frame in place)
        assert everywhere == list(range(self.n_frames)), self.places()


@pytest.fixture(params=STARTS, ids=hex)
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    queue = Queue(start=request.param)
    yield queue
    queue.check_frames()


def test_refill_puts_every_free_frame_on_the_fill_ring_once(queue: Queue) -> None:
    assert queue.umem.n_free == queue.n_frames
    lib.xp_refill(queue.worker)
    assert queue.umem.n_free == 0
    assert sorted(queue.fill.addresses()) == list(range(queue.n_frames))
    assert queue.fill.producer[0] == (queue.start + queue.n_frames) & 0xFFFFFFFF


def test_receive_fills_the_batch_in_order_and_gives_the_slots_back(queue: Queue) -> None:
    lib.xp_refill(queue.worker)
    sent = [queue.kernel_receives(60 + i) for i in range(11)]
    assert lib.xp_receive(queue.worker) == 8
    assert queue.batch.addr.tolist() == sent[:8]
    assert queue.batch.len.tolist() == [60 + i for i in range(8)]
    assert len(queue.rx) == 3
    queue.check_frames()
    lib.xp_dispatch(queue.worker)
    assert lib.xp_receive(queue.worker) == 3
    assert queue.batch.addr.tolist() == sent[8:]
    assert queue.count("received") == 11
    assert queue.count("received_bytes") == sum(60 + i for i in range(11))
    assert queue.count("batches") == 2


def test_dispatch_gives_each_packet_what_its_verdict_says(queue: Queue) -> None:
    lib.xp_refill(queue.worker)
    sent = [queue.kernel_receives() for _ in range(6)]
    lib.xp_receive(queue.worker)
    queue.batch.verdict[:] = [DROP, TX, 0, TX, 77, 0]
    lib.xp_dispatch(queue.worker)
    assert [entry * FRAME + HEADROOM for entry in queue.tx.addresses()] == [sent[1], sent[3]]
    assert [queue.count(f"verdict_{v}") for v in ("drop", "tx", "invalid")] == [3, 2, 1]
    assert queue.umem.n_free == 4
    assert len(queue.batch) == 0


def test_the_default_verdict_is_for_the_undecided_only(queue: Queue) -> None:
    queue.worker.default_verdict = TX
    lib.xp_refill(queue.worker)
    for _ in range(4):
        queue.kernel_receives()
    lib.xp_receive(queue.worker)
    queue.batch.verdict[:] = [DROP, 0, DROP, 0]
    lib.xp_dispatch(queue.worker)
    assert (queue.count("verdict_drop"), queue.count("verdict_tx")) == (2, 2)


def test_full_tx_ring_drops_the_tail_and_counts_it(queue: Queue) -> None:
    queue.worker.default_verdict = TX
    lib.xp_refill(queue.worker)
    first = [queue.kernel_receives() for _ in range(6)]
    lib.xp_receive(queue.worker)
    lib.xp_dispatch(queue.worker)
    for _ in range(6):
        queue.kernel_receives()
    lib.xp_receive(queue.worker)
    second = queue.batch.addr.tolist()
    lib.xp_dispatch(queue.worker)
    on_ring = [entry * FRAME + HEADROOM for entry in queue.tx.addresses()]
    assert on_ring == first + second[:2]
    assert queue.count("verdict_tx") == 12
    assert queue.count("tx_submitted") == 8
    assert queue.count("tx_no_room") == 4


def test_service_takes_back_what_was_sent_and_gives_the_kernel_many_frames_at_a_time() -> None:
    queue = Queue(n_frames=128, tx=64, batch=64)
    queue.worker.default_verdict = TX
    lib.xp_refill(queue.worker)
    for n_sent, n_free in ((63, 63), (1, 0)):
        for _ in range(n_sent):
            queue.kernel_receives()
        assert lib.xp_receive(queue.worker) == n_sent
        lib.xp_dispatch(queue.worker)
        for _ in range(n_sent):
            queue.kernel_sends()
        lib.xp_service(queue.worker)
        assert queue.umem.n_free == n_free
        queue.check_frames()
    assert queue.count("tx_completed") == 64
    assert len(queue.fill) == queue.n_frames


def test_an_idle_worker_gives_the_kernel_every_frame(queue: Queue) -> None:
    lib.xp_refill(queue.worker)
    for _ in range(3):
        queue.kernel_receives()
    assert lib.xp_cycle(queue.worker) == 3
    assert lib.xp_cycle(queue.worker) == 0
    assert queue.umem.n_free == 0
    assert len(queue.fill) == queue.n_frames


def test_drain_gives_up_what_the_kernel_does_not_send(queue: Queue) -> None:
    queue.worker.default_verdict = TX
    lib.xp_refill(queue.worker)
    for _ in range(3):
        queue.kernel_receives()
    lib.xp_receive(queue.worker)
    lib.xp_dispatch(queue.worker)
    queue.kernel_sends()
    assert lib.xp_drain_tx(queue.worker, 0) == 2
    assert queue.count("tx_abandoned") == 2


def test_cycle_returns_when_the_supervisor_calls(queue: Queue) -> None:
    queue.attention[0] = 1
    assert lib.xp_cycle(queue.worker) == lib.XP_CONTROL
    queue.worker.attended = 1
    assert lib.xp_cycle(queue.worker) == 0
    for _ in range(3):
        queue.kernel_receives()
    assert lib.xp_cycle(queue.worker) == 3
    queue.attention[0] = 2
    assert lib.xp_cycle(queue.worker) == lib.XP_CONTROL  # and the three are dispatched
    assert queue.count("verdict_drop") == 3
    assert len(queue.batch) == 0


def kernel_moves(queue: Queue, rng: random.Random) -> int:
    """Play the kernel: some packets come, some go out; return how many were received."""
    received = 0
    for _ in range(rng.randrange(6)):
        received += queue.kernel_receives(rng.randrange(14, 1514)) is not None
    for _ in range(rng.randrange(6)):
        queue.kernel_sends()
    return received


@pytest.mark.parametrize("start", STARTS, ids=hex)
@pytest.mark.parametrize("seed", range(4))
def test_frames_and_counters_add_up_whatever_happens(start: int, seed: int) -> None:
    rng = random.Random(seed)
    queue = Queue(n_frames=32, tx=4, start=start, batch=7)
    received = 0
    for _ in range(3000):
        received += kernel_moves(queue, rng)
        if lib.xp_cycle(queue.worker) > 0:
            verdicts = rng.choices([0, DROP, TX, 9], k=len(queue.batch))
            queue.batch.verdict[:] = verdicts
        queue.check_frames()
    while lib.xp_cycle(queue.worker) > 0:
        pass
    while queue.kernel_sends() is not None:
        pass
    assert lib.xp_drain_tx(queue.worker, 1000) == 0
    assert received > 3000
    assert queue.count("received") == received
    parts = [queue.count(f"verdict_{name}") for name in ("drop", "tx", "invalid")]
    assert sum(parts) == received
    assert min(parts) > 0
    assert queue.count("verdict_tx") == queue.count("tx_completed") + queue.count("tx_no_room")
    assert queue.count("tx_no_room") > 0


@pytest.mark.parametrize("start", STARTS[:1], ids=hex)
@pytest.mark.parametrize("died", ["received", "decided", "dispatched", "serviced"])
@pytest.mark.parametrize("seed", range(5))
def test_a_next_worker_takes_over_every_frame_and_closes_the_books(
    start: int, died: str, seed: int
) -> None:
    """The first worker dies between two steps of a turn; what it held in hand is lost, counted."""
    rng = random.Random(seed)
    queue = Queue(n_frames=32, tx=4, start=start, batch=7)
    received = 0
    for _ in range(50):
        received += kernel_moves(queue, rng)
        if lib.xp_cycle(queue.worker) > 0:
            queue.batch.verdict[:] = rng.choices([DROP, TX], k=len(queue.batch))
    received += sum(queue.kernel_receives() is not None for _ in range(5))
    lib.xp_dispatch(queue.worker)
    in_hand = lib.xp_receive(queue.worker)
    assert in_hand > 0
    if died != "received":
        queue.batch.verdict[:] = TX
    if died in ("dispatched", "serviced"):
        lib.xp_dispatch(queue.worker)
        in_hand = 0
    if died == "serviced":
        lib.xp_service(queue.worker)
    while queue.kernel_sends() is not None:  # the kernel goes on
        pass
    assert lib.xp_held_by_kernel(queue.xsk) == 0
    queue.new_worker(7)
    queue.umem.n_free = 0
    assert lib.xp_adopt(queue.worker, ffi.new("uint8_t[]", 32)) == 0
    lib.xp_reconcile(queue.worker)
    queue.check_frames()
    assert queue.count("verdict_lost") == in_hand
    while lib.xp_cycle(queue.worker) > 0:
        pass
    assert queue.count("received") == received
    names = ("drop", "tx", "invalid", "lost")
    assert sum(queue.count(f"verdict_{name}") for name in names) == received
    queue.check_frames()


def test_reconcile_counts_what_was_taken_between_ring_and_counter() -> None:
    queue = Queue()
    lib.xp_refill(queue.worker)
    for _ in range(5):
        queue.kernel_receives()
    queue.rx.consumer[0] += 3  # released, and dead before `received` was raised
    lib.xp_reconcile(queue.worker)
    assert (queue.count("received"), queue.count("verdict_lost")) == (3, 3)
    queue.tx.producer[0] += 2  # submitted, and dead before the counters were raised
    lib.xp_reconcile(queue.worker)
    assert (queue.count("tx_submitted"), queue.count("verdict_tx")) == (2, 2)
    assert queue.count("verdict_lost") == 1
    queue.rx.consumer[0] -= 3
    queue.tx.producer[0] -= 2


def test_adopt_waits_while_the_kernel_holds_a_frame() -> None:
    queue = Queue()
    lib.xp_refill(queue.worker)
    taken = queue.fill.kernel_takes()  # on no ring now
    assert lib.xp_held_by_kernel(queue.xsk) == 1
    marks = ffi.new("uint8_t[]", queue.n_frames)
    assert lib.xp_adopt(queue.worker, marks) == -errno.EBUSY
    queue.rx.kernel_puts((int(taken), 60, 0))
    assert lib.xp_adopt(queue.worker, marks) == 0
    queue.check_frames()


def test_abandon_counts_what_waited_and_what_was_not_sent() -> None:
    queue = Queue()
    lib.xp_refill(queue.worker)
    for _ in range(10):  # more than the rings hold: the supervisor's view is out of date
        for _ in range(5):
            queue.kernel_receives()
        assert lib.xp_cycle(queue.worker) == 5
        assert lib.xp_cycle(queue.worker) == 0
    queue.worker.default_verdict = TX
    for _ in range(6):
        queue.kernel_receives()
    lib.xp_receive(queue.worker)
    lib.xp_dispatch(queue.worker)
    for _ in range(3):
        queue.kernel_receives()
    queue.kernel_sends()
    queue.port.xsk = queue.supervisors_xsk
    lib.xp_abandon(queue.worker)
    assert queue.count("received") == 59
    assert [queue.count(f"verdict_{v}") for v in ("drop", "tx", "lost")] == [50, 6, 3]
    assert (queue.count("tx_completed"), queue.count("tx_abandoned")) == (1, 5)
