"""Packets that come in several frames (jumbo packets), from the rx ring through a batch and out."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
import test_ring
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Packet, Raw
from test_ring import FRAME, HEADROOM

from xdpipe.batch import ABSENT, COLUMNS, Batch
from xdpipe.core._core import lib
from xdpipe.stages import Headers, SwapAddresses
from xdpipe.verdict import TX

N_FRAMES = 256
CONTINUED = 1  # XDP_PKT_CONTD
ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")


class Queue(test_ring.Queue):
    """A worker's view of a queue, on whose rx ring we put packets as the kernel does."""

    def __init__(self, tx_size: int = 64, capacity: int = 32) -> None:
        super().__init__(N_FRAMES, tx_size, batch=capacity)
        self.worker.multi_buffer = 1
        lib.xp_refill(self.worker)

    def arrives(self, pieces: Sequence[bytes], *, whole: bool = True) -> None:
        """Put a packet on the rx ring, a frame for each piece; the last may still be to come."""
        for i, piece in enumerate(pieces):
            assert len(piece) <= FRAME - HEADROOM
            address = int(self.fill.kernel_takes()) + HEADROOM  # type: ignore[call-overload]
            self.memory[address : address + len(piece)] = piece
            last = whole and i + 1 == len(pieces)
            self.rx.kernel_puts((address, len(piece), 0 if last else CONTINUED))

    def sent(self) -> list[bytes]:
        """Take what is on the tx ring, and complete it; return the packets."""
        packets, parts = [], b""
        while len(self.tx):
            desc = self.tx.kernel_takes()
            address, length = int(desc["addr"]), int(desc["len"])  # type: ignore[index]
            parts += self.memory[address : address + length]
            self.completion.kernel_puts(address)
            if not desc["options"] & CONTINUED:  # type: ignore[index]
                packets.append(parts)
                parts = b""
        assert parts == b""
        return packets


def cut(data: bytes, *at: int) -> list[bytes]:
    edges = [0, *at, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def in_frames(packets: Sequence[Sequence[bytes]]) -> Batch:
    """Return a batch of packets that came in these pieces; it keeps their memory."""
    queue = Queue()
    for pieces in packets:
        queue.arrives(pieces)
    assert lib.xp_receive(queue.worker) == len(packets)
    queue.batch.queue = queue  # type: ignore[attr-defined]
    return queue.batch


def in_one(packets: Sequence[bytes]) -> Batch:
    batch = Batch(bytearray(1 << 16), 32)
    batch.load(packets)
    return batch


def some_packets(rng: random.Random) -> list[list[bytes]]:
    packets = []
    for n_frames in (1, 2, 3, 5, 1, 4):
        packets.append([rng.randbytes(rng.choice([1, 2, 7, 60, 1500])) for _ in range(n_frames)])
    return packets


def test_lengths_tell_of_the_whole_and_of_the_first_frame() -> None:
    batch = in_frames([[b"a" * 100], [b"b" * 1792, b"c" * 1792, b"d" * 3], [b"e" * 60]])
    assert batch.len.tolist() == [100, 3587, 60]
    assert batch.head_len.tolist() == [100, 1792, 60]
    assert batch.n_frames.tolist() == [1, 3, 1]
    assert bytes(batch.packet(1)) == b"b" * 1792 + b"c" * 1792 + b"d" * 3
    assert batch.packet(1).readonly
    assert not batch.packet(0).readonly


@pytest.mark.parametrize("seed", range(3))
def test_loads_give_what_they_would_if_it_lay_in_one_piece(seed: int) -> None:
    rng = random.Random(seed)
    packets = some_packets(rng)
    several, one = in_frames(packets), in_one([b"".join(pieces) for pieces in packets])
    edges = {0, ABSENT}
    for pieces in packets:
        at = 0
        for piece in pieces:
            at += len(piece)
            edges |= set(range(max(at - 9, 0), at + 3))
    for offset in sorted(edges):
        for name in ("u8", "u16", "u32", "u64"):
            got, want = getattr(several, name)(offset, 7), getattr(one, name)(offset, 7)
            assert got.tolist() == want.tolist(), (name, offset)
    for width in (3, 64, 4000):
        np.testing.assert_array_equal(several.bytes_at(1, width), one.bytes_at(1, width))


@pytest.mark.parametrize("seed", range(3))
def test_stores_reach_every_frame_and_keep_the_checksum(seed: int) -> None:
    rng = random.Random(seed)
    whole = bytes(ETHER / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2)
                  / Raw(rng.randbytes(3000)))  # fmt: skip
    packets = [cut(whole, *sorted(rng.sample(range(60, 1700), 2)), 1750) for _ in range(6)]
    several, one = in_frames(packets), in_one([whole] * 6)
    for batch in (several, one):
        Headers().process(batch)
    for pieces in packets:
        edge = len(pieces[0])
        for offset in (edge - 3, edge - 2, edge - 1, edge, len(whole) - 4, len(whole) - 3):
            value = rng.randrange(1 << 32)
            stored = [b.put_u32(offset, value, fix_checksum=True) for b in (several, one)]
            assert stored[0] == stored[1] == (6 if offset <= len(whole) - 4 else 0)
    for i in range(6):
        assert bytes(several.packet(i)) == bytes(one.packet(i))
    checked = Ether(bytes(several.packet(0)))
    told = checked[UDP].chksum
    del checked[UDP].chksum
    assert Ether(bytes(checked))[UDP].chksum == told


LAYERS: dict[str, Packet] = {
    "ipv4": ETHER / IP(src="192.0.2.1", dst="192.0.2.2"),
    "ipv6": ETHER / IPv6(src="2001:db8::1"),
    "tag": ETHER / Dot1Q(vlan=5) / IP(src="192.0.2.1", dst="192.0.2.2"),
    "mpls": ETHER / MPLS(label=5, s=0) / MPLS(label=6, s=1) / IP(src="192.0.2.1", dst="192.0.2.2"),
    "pppoe": ETHER / PPPoE(sessionid=5) / PPP() / IPv6(src="2001:db8::1"),
    "snap": Dot3(src=ETHER.src, dst=ETHER.dst) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
    / SNAP(OUI=0, code=0x0800) / IP(src="192.0.2.1", dst="192.0.2.2"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_headers_see_the_same_wherever_the_payload_is_cut(name: str) -> None:
    """Cut within the headers they are as if they ended there; nothing beyond is read."""
    whole = bytes(
        LAYERS[name] / TCP(sport=7, dport=8, options=[("NOP", None)] * 4) / Raw(b"x" * 99)
    )
    one = in_one([whole])
    Headers().process(one)
    payload = int(one.payload[0])
    names = [name for name, column in COLUMNS.items() if column.provider == "Headers"]
    for at in range(1, len(whole)):
        several = in_frames([cut(whole, at)])
        # what lies behind the piece in its frame must not be taken for the packet
        start = int(several.addr[0]) + at
        several.memory[start : start + 200] = b"\xff" * 200
        Headers().process(several)
        if at >= payload:
            for column in names:
                told = getattr(several, column).tolist(), getattr(one, column).tolist()
                assert told[0] == told[1], (column, at)
        else:
            assert several.malformed[0] != 0, at
        SwapAddresses().process(several)


def test_packets_are_taken_whole_or_not_yet() -> None:
    queue = Queue(capacity=4)
    queue.arrives([b"a" * 60])
    queue.arrives([b"b" * 60, b"c" * 60], whole=False)
    assert lib.xp_receive(queue.worker) == 1
    lib.xp_dispatch(queue.worker)
    assert lib.xp_receive(queue.worker) == 0
    queue.arrives([b"d" * 60])
    assert lib.xp_receive(queue.worker) == 1
    assert bytes(queue.batch.packet(0)) == b"b" * 60 + b"c" * 60 + b"d" * 60
    assert (queue.count("received"), queue.count("received_more")) == (2, 2)


def test_a_batch_takes_no_more_frames_than_it_has_room_for() -> None:
    queue = Queue(capacity=8)  # room for 64 further frames
    for i in range(10):
        queue.arrives([bytes([i])] * 17)
    assert lib.xp_receive(queue.worker) == 4
    lib.xp_dispatch(queue.worker)
    assert queue.umem.n_free == 4 * 17
    assert lib.xp_receive(queue.worker) == 4
    assert [bytes(queue.batch.packet(i)) for i in range(4)] == [
        bytes([i]) * 17 for i in range(4, 8)
    ]


def test_what_is_sent_goes_out_as_it_came_and_comes_back_as_packets() -> None:
    queue = Queue(tx_size=8)
    queue.worker.default_verdict = TX
    packets = [[b"a" * 60], [b"b" * 1792, b"c" * 1792, b"d"], [b"e" * 100, b"f" * 100]]
    for pieces in packets:
        queue.arrives(pieces)
    queue.arrives([b"g" * 60] * 3)  # 9 frames, and the tx ring has room for 8
    queue.arrives([b"h" * 60])
    assert lib.xp_receive(queue.worker) == 5
    lib.xp_dispatch(queue.worker)
    assert queue.count("tx_no_room") == 2  # the last would fit, but not in order
    assert queue.umem.n_free == 4
    assert queue.sent() == [b"".join(pieces) for pieces in packets]
    lib.xp_reclaim(queue.worker)
    assert (queue.count("tx_submitted"), queue.count("tx_completed")) == (3, 3)
    assert (queue.count("tx_submitted_more"), queue.count("tx_completed_more")) == (3, 3)
    lib.xp_refill(queue.worker)
    lib.xp_publish(queue.worker)
    assert queue.count("frames_fill") == N_FRAMES
    assert queue.count("frames_kernel") == 0


def test_a_dead_workers_packets_are_counted_as_packets() -> None:
    """The supervisor closes the books of a queue whose packets came in several frames."""
    queue = Queue()
    for _ in range(3):
        queue.arrives([b"x" * 60] * 4)
    assert lib.xp_receive(queue.worker) == 3
    queue.arrives([b"y" * 60] * 5)
    queue.arrives([b"z" * 60])
    lib.xp_abandon(queue.worker)
    assert (queue.count("received"), queue.count("verdict_lost")) == (5, 5)
