"""A VLAN tag that the NIC took out of a packet is in it again when the packet leaves."""

import struct

import numpy as np
import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from test_checksum import as_a_nic
from test_multi_buffer import Queue, cut

from xdpipe.core._core import lib
from xdpipe.stages import Headers
from xdpipe.verdict import TX

MAGIC, VLAN = 0x78706874, 4  # bpf/hints.h
TCI = 3 << 13 | 5
ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
REST = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=7, dport=53) / Raw(b"x" * 200)
UNTAGGED, TAGGED = raw(ETHER / REST), raw(ETHER / Dot1Q(prio=3, vlan=5) / REST)


def queue_with_hints() -> Queue:
    queue = Queue()
    queue.worker.default_verdict = TX
    queue.worker.hints = queue.port.hints = 1
    return queue


def arrives(queue: Queue, pieces: list[bytes], present: int = VLAN) -> None:
    """Put a packet on the rx ring, with what the steering program writes before it."""
    producer = queue.rx.producer[0]
    queue.arrives(pieces)
    address = int(queue.rx.entries["addr"][producer % queue.rx.size])
    hints = struct.pack("=IIQIHH", MAGIC, present, 0, 0, TCI if present else 0, 0)
    queue.memory[address - len(hints) : address] = hints


@pytest.mark.parametrize("at", [(), (60,), (20, 100)], ids=["whole", "two", "three"])
def test_it_is_put_back_into_what_is_sent(at: tuple[int, ...]) -> None:
    queue = queue_with_hints()
    arrives(queue, cut(UNTAGGED, *at))
    arrives(queue, cut(UNTAGGED, *at), present=0)
    assert lib.xp_receive(queue.worker) == 2
    assert queue.batch.nic_vlan_tci.tolist() == [TCI, 0]
    lib.xp_dispatch(queue.worker)
    assert queue.sent() == [TAGGED, UNTAGGED]
    lib.xp_take_back(queue.worker)
    lib.xp_refill(queue.worker)
    assert len(queue.fill) == queue.n_frames  # every frame is found by its address


@pytest.mark.parametrize("offload", [0, 1])
def test_the_checksum_is_right_all_the_same(offload: int) -> None:
    queue = queue_with_hints()
    queue.port.tx_checksum = offload
    packet = ETHER / REST
    packet[UDP].chksum = 0xABCD
    arrives(queue, [raw(packet)])
    assert lib.xp_receive(queue.worker) == 1
    Headers().process(queue.batch)
    queue.batch.fill_checksum(np.array([True]))
    lib.xp_dispatch(queue.worker)
    if offload:
        desc = queue.tx.kernel_takes()
        address, length = int(desc["addr"]), int(desc["len"])  # type: ignore[index]
        assert as_a_nic(queue.memory, address, length) == TAGGED
    else:
        assert queue.sent() == [TAGGED]


def test_the_time_of_leaving_is_told_of_it_as_well() -> None:
    queue = queue_with_hints()
    lib.xp_batch_tells_tx_times(queue.batch.c)
    arrives(queue, [UNTAGGED])
    assert lib.xp_receive(queue.worker) == 1
    queue.batch.want_tx_time(np.array([True]), 77)
    lib.xp_dispatch(queue.worker)
    desc = queue.tx.kernel_takes()
    address = int(desc["addr"])  # type: ignore[index]
    struct.pack_into("=Q", queue.memory, address - lib.XP_TX_METADATA + 8, 123)
    queue.completion.kernel_puts(address)
    lib.xp_take_back(queue.worker)
    assert (queue.batch.sent_tag.tolist(), queue.batch.sent_time_ns.tolist()) == ([77], [123])
