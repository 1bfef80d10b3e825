"""Copies of packets onto rings of blocks: what is copied, where, and what finds no room."""

import mmap
import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import test_tag_put_back
from test_multi_buffer import Queue as MultiBufferQueue
from test_multi_buffer import cut
from test_tag_put_back import TAGGED, UNTAGGED

from xdpipe.batch import Batch
from xdpipe.block_ring import BlockRing, Position, ring_size
from xdpipe.chain import Chain, ChainError
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.pcapng import Interface
from xdpipe.stage import Stage
from xdpipe.stages import Headers, SwapAddresses
from xdpipe.tap import LEAVING, TAPS_MAX, TapOrder, Taps, verdict_bits
from xdpipe.tap_command import Seen, packets, show
from xdpipe.verdict import DROP, PASS, TX, Verdict

ALL = verdict_bits(None)
WHOLE = 262144


class DropLong(Stage):
    def process(self, batch: Batch) -> None:
        batch.drop(batch.len > 100)


class DropAll(Stage):
    def process(self, batch: Batch) -> None:
        batch.drop(batch.len > 0)


@pytest.fixture
def ring() -> Iterator[BlockRing]:
    ring = BlockRing(1 << 16)
    yield ring
    ring.close()


def order(points: int, **more: object) -> TapOrder:
    return TapOrder(points=points, **{"verdicts": ALL, "snaplen": WHOLE, **more})  # type: ignore[arg-type]


def read(ring: BlockRing) -> list[Seen]:
    start = ring.position.consumer
    blocks, n = ring.peek(start, 1 << 30)
    interfaces = [Interface(str(number), "", WHOLE) for number in range(64)]
    seen = list(packets(blocks, interfaces))
    assert len(seen) == n
    ring.release(Position(start + len(blocks), ring.position.packets + n))
    return seen


class Tapped:
    """A batch, a chain and a tap on it, which writes to a ring that the tap closes."""

    def __init__(self, stages: Sequence[Stage], order: TapOrder, size: int = 1 << 16) -> None:
        self.batch = Batch(mmap.mmap(-1, 1 << 20), 64)
        self.chain = Chain(stages, self.batch)
        self.reader = BlockRing(size)
        self.taps = Taps(self.chain, queue=3, n_ports=1)
        self.taps.add(1, order, BlockRing(size, dup(self.reader)))

    def run(self, data: Sequence[bytes], default: Verdict = TX) -> list[Seen]:
        """Do with packets what the worker's loop does; return the copies."""
        self.batch.load(data, time_ns=5)
        lib.xp_tap_received(self.batch.c)
        if self.chain.n_lead:
            lib.xp_run_stages(self.batch.c, self.chain.c_stages, self.chain.n_lead)
        self.chain.run_rest()
        lib.xp_tap_leaving(self.batch.c, default)
        return read(self.reader)


def dup(ring: BlockRing) -> int:
    return os.dup(ring.fd)


DATA = [bytes([k]) * (14 + 29 * k) for k in range(1, 8)]


def test_copies_are_the_packets_in_order_with_verdict_and_who_decided() -> None:
    tapped = Tapped([Headers(), DropLong(), SwapAddresses(), DropAll()], order(1 << LEAVING))
    seen = tapped.run(DATA)
    assert [each.data for each in seen] == DATA
    assert [each.comment for each in seen] == [
        "DROP by DropLong" if len(data) > 100 else "DROP by DropAll" for data in DATA
    ]
    assert {each.time_ns for each in seen} == {5}
    tapped = Tapped([Headers(), DropLong()], order(1 << LEAVING))
    assert [each.comment for each in tapped.run(DATA, PASS)] == [
        "DROP by DropLong" if len(data) > 100 else "PASS by default" for data in DATA
    ]


def test_points_are_before_behind_and_as_packets_leave() -> None:
    points = 1 << 0 | 1 << 2 | 1 << 3 | 1 << LEAVING
    tapped = Tapped([Headers(), DropLong(), SwapAddresses()], order(points, interface=10))
    seen = tapped.run([bytes(range(60)), bytes(200)])
    assert [(each.interface, each.length, each.comment) for each in seen] == [
        ("10", 60, "undecided"), ("10", 200, "undecided"),
        ("11", 60, "undecided"), ("11", 200, "DROP by DropLong"),
        ("12", 60, "undecided"), ("12", 200, "DROP by DropLong"),
        ("13", 60, "TX by default"), ("13", 200, "DROP by DropLong"),
    ]  # fmt: skip


def test_verdict_filter_and_snap_length_choose() -> None:
    program = tuple((i.code, i.jt, i.jf, i.k) for i in Filter("ether[0] != 2").instructions)
    wanted = order(1 << LEAVING, verdicts=verdict_bits(DROP), program=program, snaplen=33)
    tapped = Tapped([DropAll()], wanted)
    seen = tapped.run(DATA)
    assert [(each.data, each.length) for each in seen] == [
        (data[:33], len(data)) for data in DATA if data[0] != 2
    ]
    assert Tapped([DropLong()], wanted).run(DATA[:2]) == []


def test_a_program_that_is_none_is_refused_and_its_ring_closed() -> None:
    tapped = Tapped([Headers()], order(1 << LEAVING))
    ring = BlockRing(4096)
    with pytest.raises(XdpipeError, match="no valid program"):
        tapped.taps.add(2, order(1, program=((0x15, 200, 0, 0),)), ring)
    assert ring.fd == -1
    assert len(tapped.run(DATA)) == len(DATA)


def test_taps_come_and_go_each_with_its_own_copies() -> None:
    tapped = Tapped([DropLong()], order(1 << LEAVING))
    other = BlockRing(1 << 16)
    tapped.taps.add(2, order(1, told=False), BlockRing(1 << 16, dup(other)))
    assert len(tapped.run(DATA)) == len(DATA)
    assert [each.comment for each in read(other)] == [""] * len(DATA)
    tapped.taps.remove(1)
    assert tapped.run(DATA) == []
    assert len(read(other)) == len(DATA)
    for number in range(3, 2 + TAPS_MAX):
        tapped.taps.add(number, order(1), BlockRing(4096))
    with pytest.raises(XdpipeError, match="are the most"):
        tapped.taps.add(99, order(1), BlockRing(4096))
    for number in range(2, 2 + TAPS_MAX):
        tapped.taps.remove(number)
    tapped.batch.load(DATA)
    tapped.chain.run()  # nobody looks on: nothing is touched
    assert read(other) == []
    other.close()


def test_more_stages_than_points_are_refused() -> None:
    with pytest.raises(ChainError, match="62 are the most"):
        Chain([DropAll() for _ in range(63)], Batch(mmap.mmap(-1, 4096), 4))


def test_what_finds_no_room_is_counted_and_told_with_the_next() -> None:
    tapped = Tapped([], order(1 << LEAVING, told=False), size=4096)
    big = [bytes(980)] * 6  # 1012 bytes as blocks: four fit
    tapped.batch.load(big)
    lib.xp_tap_leaving(tapped.batch.c, TX)
    assert (tapped.reader.n_packets, tapped.reader.n_lost) == (4, 2)
    blocks, n = tapped.reader.peek(0, 1 << 20)
    assert (len(blocks), n) == (4 * 1012, 4)
    tapped.reader.release(Position(len(blocks), 4))
    tapped.batch.load([b"x" * 60])
    lib.xp_tap_leaving(tapped.batch.c, TX)
    block = bytes(tapped.reader.peek(4 * 1012, 1 << 20)[0])
    assert block[28:88] == b"x" * 60
    assert block[88:104] == struct.pack("=HHQHH", 4, 8, 2, 0, 0)  # epb_dropcount, end of options
    tapped.reader.release(Position(4 * 1012 + len(block), 5))
    assert len(tapped.run([b"y" * 60])) == 1
    assert tapped.reader.n_lost == 2


def test_ten_thousand_packets_go_around_the_ring_unchanged() -> None:
    rng = np.random.default_rng(1)
    tapped = Tapped([], order(1 << LEAVING), size=8192)
    for _ in range(300):
        data = [rng.bytes(int(n)) for n in rng.integers(14, 200, int(rng.integers(1, 30)))]
        seen = tapped.run(data)
        assert [each.data for each in seen] == data
    assert tapped.reader.position.consumer > 50 * 8192
    assert tapped.reader.n_lost == 0


def test_a_packet_of_several_frames_is_copied_whole() -> None:
    queue = MultiBufferQueue()
    data = bytes(range(256)) * 20
    queue.arrives(cut(data, 1500, 3000, 4500))
    assert lib.xp_receive(queue.worker) == 1
    ring = BlockRing(1 << 16)
    chain = Chain([], queue.batch)
    taps = Taps(chain, 0, 1)
    taps.add(1, order(1 << LEAVING), BlockRing(1 << 16, dup(ring)))
    lib.xp_tap_leaving(queue.batch.c, DROP)
    taps.add(2, order(1, snaplen=1600), BlockRing(1 << 16, dup(ring)))
    lib.xp_tap_received(queue.batch.c)
    whole, part = read(ring)
    assert whole.data == data
    assert (part.data, part.length) == (data[:1600], len(data))
    taps.remove(1)
    taps.remove(2)
    ring.close()


@pytest.mark.parametrize("snaplen", [8, 12, 14, 16, 17, 60, 150, WHOLE])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_tag_that_the_nic_took_out_is_in_its_place(snaplen: int, pieces: int) -> None:
    queue = test_tag_put_back.queue_with_hints()
    test_tag_put_back.arrives(queue, cut(UNTAGGED, *[100][: pieces - 1]))
    test_tag_put_back.arrives(queue, [UNTAGGED], present=0)
    assert lib.xp_receive(queue.worker) == 2
    ring = BlockRing(1 << 16)
    taps = Taps(Chain([], queue.batch), 0, 1)
    taps.add(1, order(1 << LEAVING, snaplen=snaplen), BlockRing(1 << 16, dup(ring)))
    lib.xp_tap_leaving(queue.batch.c, TX)
    tagged, plain = read(ring)
    assert (tagged.data, tagged.length) == (TAGGED[:snaplen], len(TAGGED))
    assert (plain.data, plain.length) == (UNTAGGED[:snaplen], len(UNTAGGED))
    taps.remove(1)
    ring.close()


def write_at(ring: BlockRing, offset: int, data: bytes) -> None:
    os.pwrite(ring.fd, data, offset)


@pytest.mark.parametrize("producer", [65537, 1 << 40, (1 << 64) - 1])
def test_indices_that_cannot_be_are_told(ring: BlockRing, producer: int) -> None:
    write_at(ring, 0, struct.pack("=Q", producer))
    with pytest.raises(XdpipeError, match="damaged"):
        ring.peek(0, 1 << 20)


@pytest.mark.parametrize(
    "block",
    [
        struct.pack("=III", 6, 0, 0),
        struct.pack("=III", 6, 12, 12),
        struct.pack("=II", 6, 0xFFFFFFFC) + bytes(60),
        struct.pack("=II", 6, 35) + bytes(60),
        struct.pack("=II24xI", 6, 36, 40),
        struct.pack("=II24xI", 5, 36, 36),
        bytes(64),
    ],
)
def test_what_is_no_block_is_never_read_as_one(ring: BlockRing, block: bytes) -> None:
    good = struct.pack("=IIIIIII4sI", 6, 36, 0, 0, 0, 4, 4, b"good", 36)
    write_at(ring, mmap.PAGESIZE, good + block)
    write_at(ring, 0, struct.pack("=Q", len(good + block)))
    blocks, n = ring.peek(0, 1 << 20)
    assert (bytes(blocks), n) == (good, 1)
    ring.release(Position(len(good)))
    with pytest.raises(XdpipeError, match="damaged"):
        ring.peek(len(good), 1 << 20)


def test_the_readers_position_is_kept_for_the_next_one(ring: BlockRing) -> None:
    for place in (Position(100, 1, 2, 3), Position(200, 4, 5, 6), Position(300, 7, 8, 9)):
        ring.release(place)
        assert ring.position == place
        other = BlockRing(ring.size, dup(ring))
        assert other.position == place
        other.close()


def test_sizes_are_powers_of_two_of_pages() -> None:
    assert [ring_size(n) for n in (1, 4096, 4097, 10 << 20)] == [4096, 4096, 8192, 16 << 20]
    with pytest.raises(XdpipeError, match="Invalid argument"):
        BlockRing(5000)


def test_lines_are_made_of_anything_without_an_error() -> None:
    """What a worker writes after its blocks were looked at is not looked at again."""
    rng = np.random.default_rng(3)
    tapped = Tapped([], order(1 << LEAVING))
    tapped.batch.load(DATA)
    lib.xp_tap_leaving(tapped.batch.c, TX)
    good = bytes(tapped.reader.peek(0, 1 << 20)[0])
    for _ in range(3000):
        bad = bytearray(good)
        for at in rng.integers(0, len(bad), 3):
            bad[at] = rng.integers(0, 256)
        for seen in packets(memoryview(bad), [Interface("one", "", WHOLE)]):
            assert len(seen.data) <= len(bad)


def test_a_line_has_nothing_that_a_terminal_would_obey() -> None:
    seen = Seen(1_500_000_000, "h0-q0-out", "DROP\x1b[2J\n", b"\x1b]0;x\x07" * 10, 60)
    line = show(seen)
    assert line.isprintable()
    assert ".500000 h0-q0-out DROP?[2J?: " in line
