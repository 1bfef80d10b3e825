"""The four rings one verb at a time, with the test in the kernel's place."""

from collections import deque
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from xdpipe.core._core import ffi, lib

SIZE = 8
STARTS = [0, 0xFFFFFFF0]
WRAP = 1 << 32
DESC = np.dtype([("addr", "<u8"), ("len", "<u4"), ("options", "<u4")])
Entry = tuple[int, int]  # address and, on rx and tx, length


class Ring:
    """A ring in plain memory, with fields to see that nothing beside its entries is written."""

    def __init__(self, dtype: object, start: int, *, we_produce: bool) -> None:
        self.indices = ffi.new("uint32_t[3]", [start, start, 0])
        self.memory = np.full(SIZE + 2, -1, np.int64).repeat(np.dtype(dtype).itemsize // 8)
        self.entries = self.memory.view(dtype)[1:-1]
        self.c = ffi.new("struct xp_ring *")
        at = ffi.cast("void *", ffi.from_buffer(self.entries))
        lib.xp_ring_init(
            self.c, self.indices, self.indices + 1, self.indices + 2, at, SIZE, we_produce
        )

    def __len__(self) -> int:
        n = (self.indices[0] - self.indices[1]) % WRAP
        assert lib.xp_ring_count(self.c) == n
        return n

    def kernel_puts(self, entry: Entry) -> None:
        assert len(self) < SIZE
        slot = self.indices[0] % SIZE
        self.entries[slot] = (*entry, 0) if self.entries.dtype.names else entry[0]
        self.indices[0] = (self.indices[0] + 1) % WRAP

    def kernel_takes(self) -> Entry:
        assert len(self)
        entry = self.entries[self.indices[1] % SIZE]
        self.indices[1] = (self.indices[1] + 1) % WRAP
        if not self.entries.dtype.names:
            return int(entry), 0
        assert entry["options"] == 0
        return int(entry["addr"]), int(entry["len"])

    def untouched_around(self) -> bool:
        beside = np.setdiff1d(np.arange(len(self.memory)), self._own())
        return bool((self.memory[beside] == -1).all())

    def _own(self) -> np.ndarray:
        words = self.entries.dtype.itemsize // 8
        return np.arange(words, words * (SIZE + 1))


def fill(ring: Ring, entries: list[Entry]) -> int:
    return int(lib.xp_fill_submit(ring.c, [a for a, _ in entries], len(entries)))


def tx(ring: Ring, entries: list[Entry]) -> int:
    addrs, lens = [a for a, _ in entries], [n for _, n in entries]
    return int(lib.xp_tx_submit(ring.c, addrs, lens, len(entries)))


def rx(ring: Ring, n: int) -> list[Entry]:
    addrs, lens = ffi.new("uint64_t[]", max(n, 1)), ffi.new("uint32_t[]", max(n, 1))
    got = lib.xp_rx_consume(ring.c, addrs, lens, n)
    return [(addrs[i], lens[i]) for i in range(got)]


def completion(ring: Ring, n: int) -> list[Entry]:
    addrs = ffi.new("uint64_t[]", max(n, 1))
    return [(addrs[i], 0) for i in range(lib.xp_completion_consume(ring.c, addrs, n))]


PRODUCERS = {"fill": (fill, np.dtype("<u8")), "tx": (tx, DESC)}
CONSUMERS = {"rx": (rx, DESC), "completion": (completion, np.dtype("<u8"))}


def entries_of(name: str, first: int, n: int) -> list[Entry]:
    """Different addresses, above 32 bits too; lengths only where the ring has them."""
    has_len = name in ("rx", "tx")
    return [((k << 33) | k * 2048, 60 + k if has_len else 0) for k in range(first, first + n)]


@pytest.mark.parametrize("start", STARTS, ids=hex)
@pytest.mark.parametrize("name", PRODUCERS)
def test_submit_takes_what_there_is_room_for(name: str, start: int) -> None:
    submit, dtype = PRODUCERS[name]
    ring = Ring(dtype, start, we_produce=True)
    entries = entries_of(name, 1, 20)
    assert submit(ring, []) == 0
    assert submit(ring, entries[:3]) == 3
    assert submit(ring, entries[3:12]) == SIZE - 3  # only the head of them
    assert submit(ring, entries[8:12]) == 0
    assert len(ring) == SIZE
    assert [ring.kernel_takes() for _ in range(5)] == entries[:5]
    assert submit(ring, entries[8:]) == 5
    assert [ring.kernel_takes() for _ in range(SIZE)] == entries[5:13]
    assert ring.indices[0] == (start + 13) % WRAP
    assert ring.untouched_around()


@pytest.mark.parametrize("start", STARTS, ids=hex)
@pytest.mark.parametrize("name", CONSUMERS)
def test_consume_gives_what_is_there_in_order(name: str, start: int) -> None:
    consume, dtype = CONSUMERS[name]
    ring = Ring(dtype, start, we_produce=False)
    entries = entries_of(name, 1, SIZE + 3)
    assert consume(ring, 4) == []
    for entry in entries[:SIZE]:
        ring.kernel_puts(entry)
    assert consume(ring, 0) == []
    assert consume(ring, 3) == entries[:3]
    for entry in entries[SIZE:]:
        ring.kernel_puts(entry)
    assert len(ring) == SIZE
    assert consume(ring, 100) == entries[3:]
    assert consume(ring, 1) == []
    assert ring.indices[1] == (start + SIZE + 3) % WRAP


@pytest.mark.parametrize("start", [*STARTS, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("name", [*PRODUCERS, *CONSUMERS])
def test_a_ring_is_a_queue_across_the_wrap(name: str, start: int) -> None:
    """Random amounts from both sides, a thousand times, beside a plain deque."""
    rng = Random(name)
    produces = name in PRODUCERS
    act: Callable[..., object]
    act, dtype = PRODUCERS[name] if produces else CONSUMERS[name]
    ring = Ring(dtype, start, we_produce=produces)
    model: deque[Entry] = deque()
    n_put = 0
    for _ in range(1000):
        some = rng.randrange(SIZE + 3)
        if rng.random() < 0.5:
            entries = entries_of(name, n_put, min(some, SIZE - len(model)))
            if produces:
                wanted = entries_of(name, n_put, some)
                assert act(ring, wanted) == len(entries)
            else:
                for entry in entries:
                    ring.kernel_puts(entry)
            model.extend(entries)
            n_put += len(entries)
        else:
            there = [model.popleft() for _ in range(min(some, len(model)))]
            if produces:
                assert [ring.kernel_takes() for _ in there] == there
            else:
                assert act(ring, some) == there
        assert len(ring) == len(model)
    assert n_put > 500


@pytest.mark.parametrize("start", STARTS, ids=hex)
def test_a_ring_in_use_can_be_taken_over(start: int) -> None:
    """Another process maps the same memory: it goes on where the indices stand."""
    ring = Ring(DESC, start, we_produce=True)
    entries = entries_of("tx", 1, 12)
    assert tx(ring, entries[:6]) == 6
    assert ring.kernel_takes() == entries[0]
    at = ffi.cast("void *", ffi.from_buffer(ring.entries))
    ring.c = ffi.new("struct xp_ring *")
    lib.xp_ring_init(ring.c, ring.indices, ring.indices + 1, ring.indices + 2, at, SIZE, True)
    assert tx(ring, entries[6:]) == 3
    assert [ring.kernel_takes() for _ in range(SIZE)] == entries[1:9]
