"""What stands around the packets of a pcapng file: its head, its interfaces, what was lost.

The packets' own blocks are written by the worker, in C (core/blocks.c). Source:
draft-ietf-opsawg-pcapng, sections 3.5 (options), 4.1 (Section Header Block), 4.2 (Interface
Description Block), 4.6 (Interface Statistics Block). Everything is in the byte order of this
machine, which the head tells.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SNAPLEN = 262144
"""Bytes of a packet that readers take at the most."""

_SHB, _IDB, _ISB = 0x0A0D0D0A, 1, 5
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_LINKTYPE_ETHERNET = 1
_UNKNOWN_LENGTH = -1
_OPT_COMMENT = 1
_SHB_USERAPPL = 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _IF_FILTER = 2, 3, 9, 11
_NANOSECONDS = b"\x09"
_ISB_IFRECV, _ISB_IFDROP = 4, 5
_EPB_QUEUE, _EPB_VERDICT = 6, 7
_VERDICT_XDP = 2
"""The verdict is told as an eBPF XDP program's."""


@dataclass(frozen=True)
class Interface:
    """One of a file's interfaces: packets that came by one queue, seen at one point.

    Attributes:
        name: shown for each packet.
        description: what it is.
        snaplen: bytes of a packet that are kept at the most.
        filter: as in pcap-filter(7); empty: none.
    """

    name: str
    description: str
    snaplen: int
    filter: str = ""


def option(code: int, value: bytes) -> bytes:
    """Return an option, padded."""
    return struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)


def text_option(code: int, text: str) -> bytes:
    """Return an option of text, cut to what an option can hold."""
    return option(code, text.encode(errors="replace")[:0xFFFF])


def packet_options(comment: str, queue: int, xdp_action: int | None) -> bytes:
    """Return what is told of a packet besides its bytes, without the end of the options.

    Args:
        comment: shown beside the packet.
        queue: number of the receive queue that it came by.
        xdp_action: its verdict, as XDP programs have them (linux/bpf.h); None: it has none yet.
    """
    options = text_option(_OPT_COMMENT, comment) + option(_EPB_QUEUE, struct.pack("=I", queue))
    if xdp_action is not None:
        options += option(_EPB_VERDICT, struct.pack("=BQ", _VERDICT_XDP, xdp_action))
    return options


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    if options:
        options += option(0, b"")
    length = 12 + len(body) + len(options)
    return struct.pack("=II", kind, length) + body + options + struct.pack("=I", length)


def head(interfaces: Iterable[Interface], application: str) -> bytes:
    """Return what a file begins with: head, and interfaces in the order of their numbers."""
    body = struct.pack("=IHHq", _BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
    blocks = [_block(_SHB, body, text_option(_SHB_USERAPPL, application))]
    for each in interfaces:
        options = text_option(_IF_NAME, each.name) + text_option(_IF_DESCRIPTION, each.description)
        options += option(_IF_TSRESOL, _NANOSECONDS)
        if each.filter:
            options += option(_IF_FILTER, b"\0" + each.filter.encode(errors="replace"))
        blocks.append(
            _block(_IDB, struct.pack("=HHI", _LINKTYPE_ETHERNET, 0, each.snaplen), options)
        )
    return b"".join(blocks)


def statistics(interface: int, received: int | None, lost: int) -> bytes:
    """Return what is told of an interface at the end.

    Args:
        interface: its number.
        received: packets that were seen for it, those that were lost included; None: not told.
        lost: of which there was no room for.
    """
    now = time.time_ns()
    options = b"" if received is None else option(_ISB_IFRECV, struct.pack("=Q", received))
    options += option(_ISB_IFDROP, struct.pack("=Q", lost))
    body = struct.pack("=III", interface, now >> 32, now & 0xFFFFFFFF)
    return _block(_ISB, body, options)
