"""Inputs to begin with that need no captures: one of most things that the parsers know."""

import struct
from collections.abc import Iterator

from fuzz.records import IPV6, Kind, record, session, single, stream

_MACS = bytes.fromhex("020000000001020000000002")


def _name(name: str) -> bytes:
    labels = (label.encode() for label in name.split(".") if label)
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _dns() -> Iterator[bytes]:
    question = _name("www.Example.com") + struct.pack(">HH", 1, 1)
    edns = b"\0" + struct.pack(">HHIH", 41, 1232, 0x8000, 12) + struct.pack(">HHQ", 10, 8, 77)
    yield struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + question
    yield struct.pack(">6H", 8, 0x0120, 1, 0, 0, 1) + question + edns
    answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 1])
    chained = b"\x03ftp\xc0\x10" + struct.pack(">HHIH", 5, 1, 60, 2) + b"\xc0\x0c"
    yield struct.pack(">6H", 7, 0x8580, 1, 2, 0, 0) + question + answer + chained
    yield struct.pack(">6H", 9, 0x8183, 1, 0, 0, 0) + question  # NXDOMAIN
    yield struct.pack(">6H", 9, 0x2800, 1, 1, 0, 0) + question + answer  # UPDATE


def _extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


def _sized(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size, "big") + body


def _record_of_hello(kind: int, body: bytes) -> bytes:
    handshake = bytes([kind]) + _sized(3, body)
    return b"\x16\x03\x01" + _sized(2, handshake)


def _client_hello(name: bytes = b"www.example.com") -> bytes:
    """Return a record with a ClientHello (RFC 8446, 4.1.2), GREASE (RFC 8701) in its lists."""
    extensions = (
        _extension(0x0A0A, b""),
        _extension(0, _sized(2, b"\0" + _sized(2, name))),
        _extension(16, _sized(2, _sized(1, b"h2") + _sized(1, b"http/1.1"))),
        _extension(43, _sized(1, struct.pack(">3H", 0x0A0A, 0x0304, 0x0303))),
        _extension(13, _sized(2, struct.pack(">2H", 0x0403, 0x0804))),
        _extension(10, _sized(2, struct.pack(">2H", 29, 23))),
        _extension(51, _sized(2, struct.pack(">H", 29) + _sized(2, bytes(32)))),
    )
    ciphers = struct.pack(">4H", 0x0A0A, 0x1301, 0x1302, 0xC02F)
    body = b"\x03\x03" + bytes(range(32)) + _sized(1, bytes(32)) + _sized(2, ciphers)
    return _record_of_hello(1, body + _sized(1, b"\0") + _sized(2, b"".join(extensions)))


def _server_hello() -> bytes:
    extensions = _extension(43, b"\x03\x04") + _extension(16, _sized(2, _sized(1, b"h2")))
    body = b"\x03\x03" + bytes(32) + _sized(1, bytes(32)) + struct.pack(">HB", 0x1301, 0)
    return _record_of_hello(2, body + _sized(2, extensions))


def _frame(kind: int, flags: int, stream_id: int, body: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, 4.1)."""
    return _sized(3, body)[:3] + bytes([kind, flags]) + struct.pack(">I", stream_id) + body


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_GET = b"GET /a?b=c HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: x\r\n\r\n"
_POST = b"POST /form HTTP/1.1\r\nhost:example.com\r\nContent-Length: 5\r\n\r\nhello"
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


def http2() -> tuple[bytes, bytes]:
    """Return what a client and a server say: requests by the static table, Huffman, and indices."""
    get = bytes.fromhex("828684410f7777772e6578616d706c652e636f6d")  # RFC 7541, C.3.1
    huffman = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")  # RFC 7541, C.4.1
    to = (
        PREFACE
        + _frame(4, 0, 0, struct.pack(">HIHI", 3, 100, 4, 65535))
        + _frame(8, 0, 0, struct.pack(">I", 1 << 20))
        + _frame(1, 5, 1, get)
        + _frame(1, 1, 3, huffman[:6])
        + _frame(9, 4, 3, huffman[6:])
        + b"".join(_frame(1, 5, n, b"\x82\x86\x84\xbe") + _frame(3, 0, n, bytes(4)) for n in (5, 7))
        + _frame(7, 0, 0, struct.pack(">II", 3, 0))
    )
    back = (
        _frame(4, 0, 0, b"")
        + _frame(4, 1, 0, b"")
        + _frame(1, 4, 1, b"\x88\x5f\x0atext/plain")
        + _frame(0, 1, 1, b"hello")
        + _frame(6, 0, 0, bytes(8))
    )
    return to, back


def _cut(data: bytes, *sizes: int) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def _streams() -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield what two ends say, in segments."""
    dns = [_sized(2, message) for message in _dns()]
    yield dns, dns
    yield [b"".join(dns)], list(_cut(b"".join(dns), 1, 1, 20))
    hello, answer = _client_hello(), _server_hello()
    yield [hello], [answer]
    yield list(_cut(hello, 3, 2, 5, 60)), list(_cut(answer, 50))
    yield (
        [hello + b"\x14\x03\x03\0\x01\x01" + b"\x17\x03\x03\0\x05hello"],
        [b"\x15\x03\x03\0\x02\x02\x28"],
    )
    yield [_client_hello(b"a" * 300)], []
    yield [_GET, _POST], [_OK, _CHUNKED]
    yield [_GET + _GET + _POST], list(_cut(_OK + _CHUNKED, 9, 3, 20))
    yield [b"CONNECT a:443 HTTP/1.0\r\n\r\n", b"OPTIONS * HTTP/1.1\n\n"], [b"HTTP/1.1 100 \r\n\r\n"]
    to, back = http2()
    yield [to], [back]
    yield list(_cut(to, 10, 14, 4, 40, 9)), list(_cut(back, 5, 9))


def _ipv4(proto: int, body: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    head = struct.pack(
        ">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), 1, fragment, 64,
        proto, 0,
    )  # fmt: skip
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + body


def _ipv6(proto: int, body: bytes) -> bytes:
    addresses = b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\2"
    return struct.pack(">IHBB", 0x60000000, len(body), proto, 64) + addresses + body


def _udp(dport: int, body: bytes) -> bytes:
    return struct.pack(">HHHH", 5000, dport, 8 + len(body), 0) + body


_TCP = struct.pack(">HHIIBBHHH", 5000, 80, 1, 1, 0x80, 0x18, 512, 0, 0) + bytes(12) + b"hello"


def _frames() -> Iterator[bytes]:
    """Yield frames of many shapes, and tunnels around some of them."""
    inner = _ipv4(17, _udp(53, next(_dns())))
    inner6 = _ipv6(6, _TCP)
    extended = (  # hop by hop, routing, fragment (a whole datagram), destination options
        b"\x2b\0\x05\2\0\0\0\0" b"\x2c\0\4\0\0\0\0\0" b"\x3c\0\0\0\0\0\0\7"
        b"\x11\0\1\4\0\0\0\0" + _udp(53, b"")
    )  # fmt: skip
    shapes = [
        (0x0800, inner),
        (0x0800, _ipv4(6, _TCP, options=b"\x94\x04\0\0")),
        (0x0800, _ipv4(17, _udp(9, bytes(8)), fragment=0x2000)),
        (0x0800, _ipv4(17, bytes(16), fragment=3)),
        (0x0800, _ipv4(1, b"\x08\0\0\0\0\1\0\1ping")),
        (0x0800, _ipv4(2, b"\x16\0\0\0\xe0\0\0\xfb", options=b"\x94\x04\0\0")),  # IGMP
        (0x0800, _ipv4(132, struct.pack(">HHII", 7, 8, 1, 0))),  # SCTP
        (0x86DD, inner6),
        (0x86DD, _ipv6(0, extended)),
        (0x86DD, _ipv6(51, b"\x3a\4\0\0" + bytes(20) + b"\x87\0\0\0\0\0\0\0" + bytes(16))),
        (0x86DD, _ipv6(58, b"\x80\0\0\0\0\1\0\1")),
        (0x8100, b"\0\7\x08\0" + inner),
        (0x88A8, b"\0\7\x81\0\x20\7\x86\xdd" + inner6),
        (0x8847, b"\0\1\0\x40\0\2\1\x40" + inner),  # MPLS, two labels
        (0x8864, b"\x11\0\0\1" + _sized(2, b"\0\x21" + inner)),  # PPPoE
        (0x0806, bytes.fromhex("0001080006040001") + _MACS[6:] + bytes(14)),  # ARP
        (0x88CC, b"\2\7\4" + _MACS[:6] + bytes(4)),
        (8 + len(inner), b"\xaa\xaa\3\0\0\0\x08\0" + inner),  # LLC, SNAP
        (38, b"\x42\x42\3" + bytes(35)),  # LLC: spanning tree
    ]  # fmt: skip
    yield from (_MACS + struct.pack(">H", kind) + body for kind, body in shapes)
    ethernet = _MACS + b"\x08\0" + inner
    tunnels = [
        _ipv4(4, inner),  # RFC 2003
        _ipv4(41, inner6),  # RFC 4213
        _ipv4(47, b"\0\0\x08\0" + inner),  # GRE, RFC 2784
        _ipv4(47, b"\xb0\0\x65\x58" + bytes(12) + ethernet),  # with checksum, key, sequence
        _ipv4(47, b"\x10\0\x88\xbe\0\0\0\1\x10\7\0\1\0\0\0\0" + ethernet),  # ERSPAN II
        _ipv4(47, b"\x10\0\x22\xeb\0\0\0\1\x20\7\0\1" + bytes(8) + ethernet),  # ERSPAN III
        _ipv4(47, b"\x20\1\x88\x0b" + _sized(2, b"\xff\3\0\x21" + inner) + b"\0\1"),  # PPTP
        _ipv4(17, _udp(4789, b"\x08\0\0\0\0\0\7\0" + ethernet)),  # VXLAN, RFC 7348
        _ipv4(17, _udp(6081, b"\1\0\x65\x58\0\0\7\0\0\0\0\0" + ethernet)),  # Geneve, RFC 8926
        _ipv4(17, _udp(6081, b"\0\0\x08\0\0\0\7\0" + inner)),
        _ipv4(17, _udp(2152, b"\x30\xff" + _sized(2, inner)[:2] + b"\0\0\0\1" + inner)),  # GTP-U
        _ipv4(17, _udp(2152, b"\x34\xff" + _sized(2, bytes(8) + inner)[:2] + b"\0\0\0\1"
                       b"\0\0\0\x85\1\0\1\0" + inner)),
    ]  # fmt: skip
    yield from (_MACS + b"\x08\0" + tunnel for tunnel in tunnels)
    yield _MACS + b"\x08\0" + _ipv4(4, _ipv4(4, _ipv4(47, b"\0\0\x86\xdd" + inner6)))
    yield _MACS + b"\x86\xdd" + _ipv6(41, _ipv6(4, inner))


def _stamp(number: int, *, run: int = 1, stream: int = 0, time: int = 0) -> bytes:
    """Return a stamp, as core/traffic/probe.h draws it."""
    words = struct.pack(">HHHIHI", 0x7850, run, stream << 8 | number >> 32,
                        number & 0xFFFFFFFF, time >> 32, time & 0xFFFFFFFF)  # fmt: skip
    return words + struct.pack(">H", 0xFFFF - sum(struct.unpack(">8H", words)) % 0xFFFF)


def _stamps() -> Iterator[bytes]:
    """Yield stamps in order, lost, doubled, late, too late; of more runs and streams than fit."""
    yield from map(_stamp, (0, 1, 5, 3, 3, 70, 5, 2, 1 << 39, 1))
    yield from (_stamp(7, stream=stream, time=1 << 47) for stream in range(4))
    yield from (_stamp(9, run=run, time=12345) for run in range(2, 5))


def crafted() -> Iterator[bytes]:
    """Yield inputs, for all targets."""
    frames = list(_frames())
    yield from map(single, frames)
    yield session(record(Kind.FRAME, frame) for frame in frames)
    yield session((record(Kind.FRAME, frame, split=i % 16) for i, frame in enumerate(frames)), 0x41)
    for flow in (0, IPV6 | 1):
        for message in _dns():
            yield session([record(Kind.UDP_TO, message, flow=flow)])
            yield session([record(Kind.UDP_FROM, message, flow=flow, split=9)])
        for to, back in _streams():
            yield stream(to, back, flow=flow)
    # more connections than a table of a few has room for, twice
    flows = [*range(16), *(IPV6 | flow for flow in range(16))]
    yield session(record(Kind.TCP_TO, _GET, flow=flow) for flow in flows * 2)
    yield session(record(Kind.UDP_TO, stamp, flow=i % 2) for i, stamp in enumerate(_stamps()))
    # what is lost, comes late, and comes again
    said, _ = http2()
    yield session(
        [
            record(Kind.TCP_TO, said[:30]),
            record(Kind.TCP_TO_AT, struct.pack(">h", 20) + said[50:90]),
            record(Kind.TCP_TO_AT, struct.pack(">h", -60) + said[30:50]),
            record(Kind.TCP_TO_AT, struct.pack(">h", -20) + said[70:120]),
            record(Kind.TCP_TO, said[120:]),
        ],
        0,
    )
