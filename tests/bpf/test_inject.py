"""The program that gives packets back: what it takes from its map, and what it does not."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from xdpipe.bpf_cache import compiled
from xdpipe.bpf_module import Module
from xdpipe.bpf_program import XDP_PASS, Program
from xdpipe.core._core import ffi, lib
from xdpipe.link import Link
from xdpipe.netns import Namespace
from xdpipe.resources import program_source

# bpf/inject.h
MAX, BYTES, LONGEST = 256, 1 << 18, 3520
PACKETS, NEXT = 24, 16
XDP_DROP = 1


@dataclass
class Injected:
    program: Program
    memory: mmap.mmap
    loopback: int

    def put(self, place: int, at: int, data: bytes, length: int | None = None) -> None:
        head = (at, len(data) if length is None else length)
        struct.pack_into("=2I", self.memory, PACKETS + 8 * place, *head)
        start = PACKETS + 8 * MAX + at
        self.memory[start : start + len(data)] = data

    def run(self) -> tuple[int, bytes]:
        done = self.program.test_run(bytes(64), ingress_ifindex=self.loopback)
        return done.action, done.data

    def counts(self) -> tuple[int, int]:
        injected, refused = struct.unpack_from("=2Q", self.memory)
        return injected, refused

    @property
    def next(self) -> int:
        (number,) = struct.unpack_from("=I", self.memory, NEXT)
        return int(number)

    @next.setter
    def next(self, number: int) -> None:
        struct.pack_into("=I", self.memory, NEXT, number)


@contextmanager
def made_for(offset: int) -> Iterator[Injected]:
    """Make the program for the interface whose number is that of `lo`, and so much more."""
    path = Path(program_source("inject.c"))
    namespace = Namespace()
    with namespace:
        index = Link.find("lo").index
        with (
            Module(compiled(path.read_text(), path.parent)) as module,
            module.load("inject_packet") as program,
            module.map("inject") as shared,
            module.map("only") as only,
        ):
            only.update(0, struct.pack("=I", index + offset))
            size = -(-shared.value_size // mmap.PAGESIZE) * mmap.PAGESIZE
            with mmap.mmap(shared.fd, size) as memory:
                yield Injected(program, memory, index)
    namespace.close()


@pytest.fixture
def inject() -> Iterator[Injected]:
    with made_for(0) as injected:
        yield injected


def test_c_and_the_program_agree_on_the_map(inject: Injected) -> None:
    assert lib.xp_inject_bytes() == PACKETS + 8 * MAX + BYTES + LONGEST


def test_packets_are_taken_in_order_with_their_bytes_and_lengths(inject: Injected) -> None:
    packets = [bytes([n]) * length for n, length in enumerate((14, 60, 64, 65, 1514, 3000))]
    at = 0
    for place, packet in enumerate(packets):
        inject.put(place, at, packet)
        at += len(packet)
    for n, packet in enumerate(packets, 1):
        assert inject.run() == (XDP_PASS, packet)
        assert (inject.next, inject.counts()) == (n, (n, 0))


def test_what_lies_at_the_very_end_is_taken_whole(inject: Injected) -> None:
    inject.put(0, BYTES, b"\xee" * 3000)
    assert inject.run() == (XDP_PASS, b"\xee" * 3000)


@pytest.mark.parametrize(
    ("at", "length"),
    [(0, 0), (0, 13), (0, LONGEST + 1), (0, 0xFFFFFFFF), (BYTES + 1, 60), (0xFFFFFFFF, 60)],
)
def test_nonsense_from_a_worker_is_refused_and_counted(
    inject: Injected, at: int, length: int
) -> None:
    struct.pack_into("=2I", inject.memory, PACKETS, at, length)
    assert inject.run()[0] == XDP_DROP
    assert inject.counts() == (0, 1)


def test_nothing_is_taken_where_there_is_nothing(inject: Injected) -> None:
    for number in (MAX, MAX + 1, 0xFFFFFFFF):
        inject.next = number
        assert inject.run()[0] == XDP_DROP
        assert (inject.next, inject.counts()) == (number, (0, 0))


def test_it_serves_no_other_interface() -> None:
    with made_for(1) as inject:
        inject.put(0, 0, bytes(60))
        assert inject.run()[0] == XDP_DROP
        assert (inject.next, inject.counts()) == (0, (0, 0))


def test_the_core_counts_what_it_could_not_give(inject: Injected) -> None:
    """A descriptor that is no program's: nothing is taken, and all is counted."""
    counters = ffi.new("struct xp_counters *")
    way = ffi.new("struct xp_pass *", {
        "prog_fd": -1, "ifindex": inject.loopback, "n": 7, "used": 700,
        "inject": ffi.cast("void *", ffi.from_buffer(inject.memory)),
    })  # fmt: skip
    port = ffi.new("struct xp_port *", {"pass": way, "counters": counters})
    lib.xp_pass_flush(port)
    names = [ffi.string(lib.xp_counter_names[i].name).decode() for i in range(lib.xp_n_counters)]
    values = dict(zip(names, ffi.cast("uint64_t *", counters)[0 : len(names)], strict=True))
    assert (values["pass_failed"], values["pass_errno"], values["passed"]) == (7, 9, 0)  # EBADF
    assert (way.n, way.used) == (0, 0)
