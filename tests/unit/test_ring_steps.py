"""The loop stopped after each of its instructions: killed there, or overtaken by the kernel.

A worker process takes its turns under ptrace, one instruction at a time. All that outlives a
worker (rings and counters) lies in one shared buffer, which is examined whenever an instruction
has changed it.
"""

import ctypes
import mmap
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from shared_queue import (
    CAPACITY,
    COUNTERS,
    FRAME,
    FRAMES_AT,
    IDLE,
    MARK_AT,
    N_FRAMES,
    N_TX,
    RUNNING,
    SIZE,
    WRAP,
    SharedQueue,
)

from xdpipe.core._core import lib

PTRACE_CONT, PTRACE_SINGLESTEP = 7, 9
PROGRAM = Path(__file__).with_name("shared_queue.py")
EVERY_FRAME = list(range(N_FRAMES))
# Where the indices begin: with the counters at 0, and just before they wrap.
STARTS = [0, 0xFFFFFFF0]
# counter, ring, and which of its indices (0 producer, 1 consumer) we alone move
TOLD_BY_RING = (
    ("received", "rx", 1), ("filled", "fill", 0),
    ("tx_submitted", "tx", 0), ("tx_completed", "completion", 1),
)  # fmt: skip
UNWRITTEN = 1_000_000
PLACES = ("free", "batch", "fill", "rx", "tx", "completion", "kernel")
VERDICTS = ("drop", "tx", "forward", "invalid", "lost")


class Traced:
    """A worker process that runs only when it is told to, over a buffer that it shares with us."""

    def __init__(
        self,
        function: str,
        seed: int,
        start: int,
        in_fill: int,
        in_tx: int,
        multi_buffer: bool,
        n_ports: int,
    ) -> None:
        fd = os.memfd_create("queue", 0)
        os.ftruncate(fd, SIZE)
        self.memory = mmap.mmap(fd, SIZE)
        self.queue = SharedQueue(self.memory, start, multi_buffer=multi_buffer, n_ports=n_ports)
        self.queue.hand_to_kernel(in_fill, in_tx)
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace.restype = ctypes.c_long
        more = [str(multi_buffer), str(n_ports)]
        argv = [sys.executable, str(PROGRAM), str(fd), str(seed), function, *more]
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        os.set_inheritable(fd, True)
        self.pid = os.posix_spawn(sys.executable, argv, env)
        os.close(fd)
        self._await()

    def _await(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSTOPPED(status):
            self.pid = 0
            pytest.fail(f"the traced worker ended: {os.waitstatus_to_exitcode(status)}")
        return os.WSTOPSIG(status)

    def _go(self, request: int) -> int:
        if self._ptrace(request, self.pid, None, None) != 0:
            pytest.fail(f"ptrace: {os.strerror(ctypes.get_errno())}")
        return self._await()

    def next_turn(self) -> None:
        """Let it run to where it is about to call the function."""
        while self._go(PTRACE_CONT) != signal.SIGSTOP:
            pass

    def steps(self) -> Iterator[None]:
        """Take one call of the function, an instruction at a time."""
        while self.memory[MARK_AT] == IDLE:
            self._go(PTRACE_SINGLESTEP)
        while self.memory[MARK_AT] == RUNNING:
            self._go(PTRACE_SINGLESTEP)
            yield

    def end(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextmanager
def traced(
    function: str,
    seed: int,
    start: int,
    in_fill: int = 0,
    in_tx: int = 0,
    *,
    multi_buffer: bool = False,
    n_ports: int = 1,
) -> Iterator[Traced]:
    worker = Traced(function, seed, start, in_fill, in_tx, multi_buffer, n_ports)
    try:
        yield worker
    finally:
        worker.end()


@pytest.fixture(autouse=True, scope="module")
def ptrace_works() -> None:
    """Skip where a process may not trace its child."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(0, 0, None, None) != 0)"
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    while os.WIFSTOPPED(status := os.waitpid(pid, 0)[1]):
        os.kill(pid, signal.SIGKILL)
    if status:
        pytest.skip("no permission to trace a child process (ptrace)")


def shared(memory: mmap.mmap) -> bytes:
    """Return a copy of all that outlives the worker."""
    return memory[:MARK_AT] + bytes(FRAMES_AT - MARK_AT) + memory[FRAMES_AT:]


def post_mortem(
    snapshot: bytes, n_received: int, *, multi_buffer: bool = False, n_ports: int = 1
) -> int:
    """Adopt a queue as its worker left it and see it to its end; return what was lost."""
    queue = SharedQueue(bytearray(snapshot), multi_buffer=multi_buffer, n_ports=n_ports)
    taken = [side.rings["rx"].indices[1] for side in queue.sides]
    assert queue.adopt() == 0
    assert queue.frames() == EVERY_FRAME
    lib.xp_reconcile(queue.worker)
    # what the rings say of the dead worker's deeds, the counters say now
    for side in queue.sides:
        for name, ring, index in TOLD_BY_RING:
            more = side.count(f"{name}_more") if name != "filled" else 0
            assert (side.count(name) + more) % WRAP == side.rings[ring].indices[index], name
    books_close(queue)
    assert [side.rings["rx"].indices[1] for side in queue.sides] == taken
    lost = queue.count("verdict_lost")
    assert lost <= CAPACITY
    # the next worker goes on with what waits on the rings, and loses nothing more
    while any(len(side.rings["rx"]) for side in queue.sides):
        lib.xp_cycle(queue.worker)
    lib.xp_cycle(queue.worker)
    while queue.kernel_sends():
        pass
    assert lib.xp_drain_tx(queue.worker, 0) == 0
    assert queue.frames() == EVERY_FRAME
    assert queue.count("received") == n_received
    assert queue.count("verdict_lost") == lost
    books_close(queue)
    return lost


def books_close(queue: SharedQueue) -> None:
    for side in queue.sides:
        count = side.count
        assert count("received") == sum(count(f"verdict_{name}") for name in VERDICTS)
        out = count("verdict_tx") + count("forwarded")
        assert out == count("tx_submitted") + count("tx_no_room")
        with_kernel = count("filled") - count("received") - count("received_more")
        assert with_kernel == len(side.rings["fill"]) + len(side.rings["rx"])
    assert queue.count("verdict_forward") == queue.count("forwarded")


# 8 s each: every kind of worker over the wrap of the indices, and two from 0
@pytest.mark.parametrize(
    ("start", "seed", "multi_buffer", "n_ports"),
    [
        (STARTS[-1], 0, False, 1), (STARTS[-1], 0, True, 1), (STARTS[-1], 0, False, 2),
        (STARTS[-1], 0, True, 2), (STARTS[0], 1, False, 1), (STARTS[0], 1, False, 2),
    ],
)  # fmt: skip
def test_a_worker_killed_after_any_instruction_loses_no_frame_and_no_count(
    start: int, seed: int, multi_buffer: bool, n_ports: int
) -> None:
    rng = random.Random(seed)
    n_states = 0
    losses = set()
    kind: dict[str, Any] = {"multi_buffer": multi_buffer, "n_ports": n_ports}
    with traced("xp_cycle", seed, start, **kind) as worker:
        queue = worker.queue
        n_received = queue.count("received")
        decided = ["verdict_drop", "verdict_tx", "verdict_invalid", "tx_completed", "tx_no_room"]
        decided += ["verdict_forward"] if n_ports > 1 else []
        at_start = [queue.count(name) for name in decided]
        for _ in range(40):
            for _ in range(rng.randrange(11)):
                side = rng.choice(queue.sides) if n_ports > 1 else queue.sides[0]
                n_received += side.kernel_receives(rng.randrange(1, 4) if multi_buffer else 1)
            for _ in range(rng.randrange(4)):
                queue.kernel_sends()
            before = b""
            for _ in worker.steps():
                snapshot = shared(worker.memory)
                if snapshot != before:
                    losses.add(post_mortem(snapshot, n_received, **kind))
                    n_states += 1
                before = snapshot
            worker.next_turn()
        for name, before_all in zip(decided, at_start, strict=True):
            assert queue.count(name) > before_all, name
    assert n_states > 500
    assert losses >= set(range(4 if multi_buffer or n_ports > 1 else CAPACITY))


@pytest.mark.parametrize("start", STARTS, ids=hex)
def test_the_kernel_may_move_between_any_two_instructions(start: int) -> None:
    """Packets come and go while the worker is amid a turn: none is lost, doubled or reordered."""
    rng = random.Random(7)
    n_steps = 0
    with traced("xp_cycle", 7, start) as worker:
        queue = worker.queue
        first = n_received = queue.count("received")
        n_sent = queue.count("tx_completed")
        for _ in range(12):
            for _ in worker.steps():
                n_steps += 1
                if rng.random() < 0.02:
                    n_received += queue.kernel_receives()
                if rng.random() < 0.02:
                    n_sent += queue.kernel_sends()
                on_rings = [a // FRAME for ring in queue.rings.values() for a in ring.addresses()]
                assert len(on_rings) == len(set(on_rings))
            worker.next_turn()
        snapshot = shared(worker.memory)
        assert queue.count("received") - first > 30
    assert n_steps > 5000
    post_mortem(snapshot, n_received)


def gauges(queue: SharedQueue) -> dict[str, int]:
    return {place: queue.count(f"frames_{place}") for place in PLACES}


def test_gauges_are_true_while_the_kernel_moves() -> None:
    """A frame that goes from ring to ring while they are read is not counted on both."""
    wrong = []
    with traced("xp_publish", 1, STARTS[1], in_fill=N_FRAMES - N_TX, in_tx=N_TX) as worker:
        queue = worker.queue
        for moment in range(60):  # instructions behind the first gauge's: all others are within
            for place in PLACES:
                queue.counters[COUNTERS.index(f"frames_{place}")] = UNWRITTEN
            since = 0
            for _ in worker.steps():
                since += queue.count("frames_free") != UNWRITTEN
                if since == moment + 1:
                    moved = queue.kernel_receives() and queue.kernel_sends()
                    assert moved
                    since = UNWRITTEN
            assert since >= UNWRITTEN
            now = gauges(queue)
            assert sum(now.values()) % WRAP == N_FRAMES
            if max(now.values()) > N_FRAMES:
                wrong.append((moment, now))
            queue.kernel_takes_back()
            worker.next_turn()
    assert not wrong, f"{len(wrong)} moments: {wrong[0]}"
