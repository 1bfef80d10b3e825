"""Packets and batches made by hand, for stages that count and limit."""

import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from xdpipe.batch import Batch
from xdpipe.stage import Stage
from xdpipe.stages import Headers

ETHER = bytes.fromhex("020000000001 020000000002".replace(" ", ""))
UDP = 17


def udp(
    src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 1000, dport: int = 53, size: int = 0
) -> bytes:
    """Return a UDP packet over IPv4 or IPv6, checksums 0, with so many bytes of payload."""
    ports = struct.pack(">HHHH", sport, dport, 8 + size, 0) + bytes(size)
    if ":" in src:
        addresses = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
        return (
            ETHER + struct.pack(">HIHBB", 0x86DD, 6 << 28, len(ports), UDP, 64) + addresses + ports
        )
    head = struct.pack(">HBBHHHBBH", 0x0800, 0x45, 0, 20 + len(ports), 0, 0, 64, UDP, 0)
    return ETHER + head + socket.inet_aton(src) + socket.inet_aton(dst) + ports


def batch_of(packets: Sequence[bytes], times: Sequence[int] | int = 0) -> Batch:
    """Return a batch of these packets, their headers parsed, come at these times (ns)."""
    batch = Batch(bytearray(64 * len(packets) + 64 + sum(map(len, packets))), max(len(packets), 1))
    batch.load(packets)
    set_column(batch, "time_ns", times)
    Headers().process(batch)
    return batch


def set_column(batch: Batch, name: str, values: Any) -> None:
    """Fill a column, also one that stages may not write."""
    column = batch._columns[name]
    before = column.flags.writeable
    column.flags.writeable = True
    column[: len(batch)] = values
    column.flags.writeable = before


def counters(stage: Stage) -> dict[str, int]:
    """Return all of a stage's own counters."""
    return {name: stage.counted(name) for name in stage.counters}


class Sources:
    """A batch of packets from any sources, which is filled anew as fast as numpy writes.

    Args:
        n: packets in it.
        size: bytes of payload of each.
    """

    def __init__(self, n: int, size: int = 0) -> None:
        packet = udp(size=size)
        self._room = -(-len(packet) // 64) * 64
        memory = bytearray(self._room * n)
        self.batch = Batch(memory, n)
        self._rows = np.frombuffer(memory, np.uint8).reshape(n, self._room)
        self._rows[:, : len(packet)] = np.frombuffer(packet, np.uint8)
        self._places = [self._room * i for i in range(n)]
        self._len = len(packet)
        self._headers = Headers()

    def fill(self, sources: Any, times: Any = 0) -> Batch:
        """Return the batch, with packets from these IPv4 addresses, as numbers."""
        n = len(sources)
        self._rows[:n, 26:30] = np.asarray(sources).astype(">u4").view(np.uint8).reshape(n, 4)
        self.batch.place(self._places[:n], [self._len] * n)
        set_column(self.batch, "time_ns", times)
        self._headers.process(self.batch)
        return self.batch
