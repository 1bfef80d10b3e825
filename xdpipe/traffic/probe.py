"""Stamps in packets, by which they are known again where they arrive; core/traffic/probe.h."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from xdpipe.core._core import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdpipe.batch import Batch

SIZE: int = lib.XP_PROBE_SIZE
"""Bytes of a stamp: what a packet must carry to have one."""
MAGIC: int = lib.XP_PROBE_MAGIC
NUMBER_BITS: int = lib.XP_PROBE_NUMBER_BITS
N_STREAMS: int = lib.XP_PROBE_STREAMS
"""How many streams a run may have."""


def new_run() -> int:
    """Return a number for a run, at random: 1 to 65535."""
    return 1 + int.from_bytes(os.urandom(4)) % 0xFFFF


def place(batch: Batch, run: int) -> NDArray[np.uint32]:
    """Put an empty stamp into each packet that has room, and keep its checksums right.

    Args:
        batch: with its headers parsed; its packets are changed.
        run: see new_run.

    Returns:
        The offset of each packet's stamp; 0: it has none, since it carries fewer than SIZE bytes,
        is a fragment, malformed, cut short, or neither TCP, UDP nor ICMP echo.
    """
    at = np.zeros(len(batch), np.uint32)
    lib.xp_probe_place_all(batch.c, run, ffi.from_buffer("uint32_t[]", at))
    return at


def write(packet: memoryview | bytearray, at: int, stream: int, number: int, time_ns: int) -> None:
    """Write number and time into a stamp that was placed; for who sends packet by packet.

    Args:
        packet: all of it; changed in place.
        at: what `place` said.
        stream: 0 to N_STREAMS - 1.
        number: of the packet in its stream, from 0 on; below 2 ** NUMBER_BITS.
        time_ns: CLOCK_REALTIME, as time.time_ns() gives it.
    """
    if not 0 < at <= len(packet) - SIZE:
        raise ValueError(f"a stamp at {at} of {len(packet)} bytes")
    lib.xp_probe_write(ffi.from_buffer(packet), at, stream << NUMBER_BITS | number, time_ns)
