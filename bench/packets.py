"""Packets that the stages are measured on: of the captures, or crafted where there are none."""

import itertools
import mmap
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xdpipe.batch import FLAGS, Batch
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"
LONGEST = 1792  # bytes that fit into a frame of 2048 behind XDP's headroom
_CRAFTED = 2000
_NOT_PLAIN = FLAGS["FRAGMENT"] | FLAGS["IP_OPTIONS"] | FLAGS["MALFORMED"]


def _has(batch: Batch, *flags: str) -> np.ndarray:
    return (batch.flags & sum(FLAGS[flag] for flag in flags)) != 0


def _at_port(batch: Batch, port: int) -> np.ndarray:
    return (batch.l4_sport == port) | (batch.l4_dport == port)


def _whole_hello(batch: Batch) -> np.ndarray:
    """A record of TLS that is all of a ClientHello (RFC 8446, 5.1 and 4.1.2)."""
    at = batch.payload
    is_hello = (batch.u8(at) == 22) & (batch.u8(at + 1) == 3) & (batch.u8(at + 5) == 1)
    size = batch.u16(at + 3).astype(np.int32) + 5
    whole = (size == batch.u16(at + 7).astype(np.int32) + 9) & (size <= batch.payload_len)
    return _has(batch, "TCP") & is_hello & whole


KINDS: dict[str, Callable[[Batch], np.ndarray]] = {
    "all": lambda batch: np.ones(len(batch), bool),
    # what every contestant takes for the same: TCP or UDP over IPv4 or IPv6, with nothing between
    "plain": lambda batch: (
        ((batch.flags & _NOT_PLAIN) == 0) & _has(batch, "TCP", "UDP") & (batch.l3 == 14)
    ),
    "udp": lambda batch: _has(batch, "UDP") & (batch.payload_len > 0),
    "tcp": lambda batch: _has(batch, "TCP") & (batch.payload_len > 0),
    "dns": lambda batch: _has(batch, "UDP") & _at_port(batch, 53) & (batch.payload_len >= 12),
    "http": lambda batch: _has(batch, "TCP") & _at_port(batch, 80) & (batch.payload_len > 0),
    "tls": lambda batch: _has(batch, "TCP") & _at_port(batch, 443) & (batch.payload_len > 0),
    "hello": _whole_hello,
}


def _captured() -> list[bytes]:
    packets: list[bytes] = []
    for path in sorted(path for path in CAPTURES.rglob("*") if path.is_file()):
        try:
            with CaptureReader(path) as reader:
                reader.require_ethernet()
                packets += (packet.data for packet in reader)
        except XdpipeError:
            continue  # another link type, or the licence
    return [packet for packet in packets if 0 < len(packet) <= LONGEST]


def _sized(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size, "big") + body


def _hello(name: bytes) -> bytes:
    """Return a record with a ClientHello that names a server and offers what few clients do."""
    server_name = b"\0\0" + _sized(2, _sized(2, b"\0" + _sized(2, name)))
    alpn = b"\0\x10" + _sized(2, _sized(2, _sized(1, b"h2") + _sized(1, b"http/1.1")))
    versions = b"\0\x2b" + _sized(2, _sized(1, b"\3\4\3\3"))
    body = b"\3\3" + bytes(32) + _sized(1, bytes(32)) + _sized(2, b"\x13\1\x13\2\xc0\x2f")
    body += _sized(1, b"\0") + _sized(2, server_name + alpn + versions)
    return b"\x16\3\1" + _sized(2, b"\1" + _sized(3, body))


def _crafted() -> list[bytes]:
    """Return packets of some clients with a name server and a web server."""
    from scapy.layers.dns import DNS, DNSQR
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    rng = random.Random(5)
    ether = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    packets = []
    for i in range(_CRAFTED):
        client, port = rng.randrange(1, 250), rng.randrange(1024, 65536)
        name = f"{rng.choice('abcdefgh') * rng.randrange(1, 20)}.example.com"
        ip = (
            IPv6(src=f"2001:db8::{client}", dst="2001:db8::1:1")
            if i % 4 == 0
            else IP(src=f"192.0.2.{client}", dst="198.51.100.1")
        )
        tcp = TCP(sport=port, flags="PA", seq=1, ack=1)
        head = f"GET /{name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        body = [
            UDP(sport=port, dport=53) / DNS(id=i, qd=DNSQR(qname=name)),
            tcp.copy() / head,
            tcp.copy() / _hello(name.encode()),
            tcp.copy() / rng.randbytes(rng.choice((0, 100, 1300))),
        ][i // 4 % 4]
        if TCP in body:
            body[TCP].dport = 443 if body[TCP].load[:1] == b"\x16" else 80
        packets.append(bytes(ether / ip / body))
    return packets


def again(packet: bytes, k: int) -> bytes:
    """Return a packet as one of other hosts: the same ones for the same k, up to 65535.

    Of both of its IP addresses the last two bytes change, so that the directions of a flow stay
    those of one flow. Checksums do not follow.
    """
    ends = {b"\x08\0": (30, 34), b"\x86\xdd": (38, 54)}.get(packet[12:14], ())
    other = bytearray(packet)
    for end in ends if k and len(packet) >= 54 else ():
        last = int.from_bytes(packet[end - 2 : end], "big") ^ k
        other[end - 2 : end] = last.to_bytes(2, "big")
    return bytes(other)


def _http2() -> list[bytes]:
    """Return the first segments of HTTP/2's clients: preface, SETTINGS, a request (RFC 9113)."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    request = bytes.fromhex("828684410f7777772e6578616d706c652e636f6d")  # RFC 7541, C.3.1
    said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    said += len(request).to_bytes(3, "big") + b"\1\5\0\0\0\1" + request
    ether = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    tcp = TCP(sport=40000, dport=80, flags="PA", seq=1)
    return [bytes(ether / IP(src="192.0.2.1", dst="198.51.100.1") / tcp / said)]


class Traffic:
    """All packets there are, and by kind; HTTP/2 is crafted, the captures have none.

    Attributes:
        source: what they are, to be told.
    """

    def __init__(self) -> None:
        self._packets = _captured() if CAPTURES.is_dir() else []
        self.source = f"{len(self._packets)} of the captures"
        if not self._packets:
            self._packets = _crafted()
            self.source = f"{len(self._packets)} crafted: there are no captures"
        self._batch = Batch(mmap.mmap(-1, 2048 * len(self._packets)), len(self._packets))
        self._batch.load(self._packets)
        Headers().process(self._batch)

    def of(self, kind: str) -> list[bytes]:
        """Return the packets of a kind, in their order."""
        if kind == "http2":
            return _http2()
        return list(itertools.compress(self._packets, KINDS[kind](self._batch).tolist()))
