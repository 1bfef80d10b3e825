"""Inputs of the driver, in the form that input.c reads."""

from collections.abc import Iterable
from enum import IntEnum

SEPARATOR = b"\xfa\xce\x5e\xb1"


class Kind(IntEnum):
    """What a record's body is; enum kind of input.c."""

    FRAME = 0
    UDP_TO = 1
    UDP_FROM = 2
    TCP_TO = 3
    TCP_FROM = 4
    TCP_TO_AT = 5
    TCP_FROM_AT = 6
    TCP_CONTROL = 7
    IP_PROTO = 8
    ETHER_TYPE = 9


HOW_ALL = 0x03  # one batch
HOW_ONE = 0x10  # one packet
IPV6, VLAN = 0x80, 0x40  # bits of a flow
SYN, FIN, RST = 2, 1, 4


def record(kind: Kind, body: bytes, *, flow: int = 0, split: int = 0) -> bytes:
    """Return one record; `split`: in sixteenths, where its second frame begins."""
    return bytes([split << 4 | kind, flow]) + body


def session(records: Iterable[bytes], how: int = HOW_ALL) -> bytes:
    """Return an input of several packets."""
    return bytes([how]) + SEPARATOR.join(records)


def single(packet: bytes) -> bytes:
    """Return an input that is one packet."""
    return bytes([HOW_ONE]) + packet


def control(flags: int, *, from_server: bool = False, flow: int = 0) -> bytes:
    """Return a segment of TCP with these flags."""
    return record(Kind.TCP_CONTROL, bytes([flags, from_server]), flow=flow)


def stream(to: Iterable[bytes], back: Iterable[bytes] = (), *, flow: int = 0) -> bytes:
    """Return a connection that says all of `to` and then all of `back`, in these segments."""
    return session(
        [
            control(SYN, flow=flow),
            control(SYN | 0x10, from_server=True, flow=flow),
            *(record(Kind.TCP_TO, part, flow=flow) for part in to),
            *(record(Kind.TCP_FROM, part, flow=flow) for part in back),
            control(FIN | 0x10, flow=flow),
        ]
    )
