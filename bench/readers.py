"""What others read packets with: dpkt, pypacker, scapy, libtins; and what xdpipe's columns say.

A reader takes packets and gives, for each, the fields of a protocol, all of them looked at: where
a library reads only what is asked for, it is asked. READERS has a line for each of them.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from xdpipe.batch import Batch

WORD = 1 << 64


class Headers(NamedTuple):
    """Addresses are the 16 bytes as a number; IPv4 as ::ffff:a.b.c.d."""

    version: int
    src: int
    dst: int
    proto: int
    ttl: int
    sport: int
    dport: int
    tcp_flags: int


class Question(NamedTuple):
    """The first question of a DNS message; the name in lower case, without the last dot."""

    id: int
    name: str
    type: int


class Hello(NamedTuple):
    """A ClientHello: how many ciphers it offers, and the server's name in lower case, or ""."""

    n_ciphers: int
    name: str


Fields = Headers | Question | Hello


def digest(all_fields: Iterable[Fields]) -> dict[str, int]:
    """Return how many there are, and of each field a sum in which each packet has its weight."""
    sums: dict[str, int] = {"packets": 0}
    for weight, fields in enumerate(all_fields, 1):
        sums["packets"] += 1
        for name, value in fields._asdict().items():
            number = fnv(value.encode()) if isinstance(value, str) else value
            number = (number >> 64) * 3 + number % WORD
            sums[name] = (sums.get(name, 0) + weight * number) % WORD
    return sums


def fnv(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % WORD
    return value


_MAPPED = 0xFFFF << 32


def _address(raw: bytes) -> int:
    number = int.from_bytes(raw, "big")
    return number | _MAPPED if len(raw) == 4 else number


def _server_name(extension: bytes) -> str:
    """Return the name in an extension server_name (RFC 6066, 3)."""
    return extension[5 : 5 + int.from_bytes(extension[3:5], "big")].decode("latin-1").lower()


# Each of these makes a reader: import once, then a function of one packet.


def dpkt_headers() -> Callable[[bytes], Headers]:
    import dpkt

    def read(packet: bytes) -> Headers:
        ip = dpkt.ethernet.Ethernet(packet).data
        l4 = ip.data
        v4 = ip.v == 4
        return Headers(
            ip.v, _address(ip.src), _address(ip.dst), ip.p if v4 else ip.nxt,
            ip.ttl if v4 else ip.hlim, l4.sport, l4.dport, getattr(l4, "flags", 0) & 0xFF,
        )  # fmt: skip

    return read


def dpkt_question() -> Callable[[bytes], Question]:
    import dpkt

    def read(payload: bytes) -> Question:
        message = dpkt.dns.DNS(payload)
        question = message.qd[0]
        return Question(message.id, question.name.lower(), question.type)

    return read


def dpkt_hello() -> Callable[[bytes], Hello]:
    from dpkt.ssl import TLSHandshake, tls_multi_factory

    def read(payload: bytes) -> Hello:
        records, _ = tls_multi_factory(payload)
        hello = TLSHandshake(records[0].data).data
        names = [body for kind, body in getattr(hello, "extensions", ()) if kind == 0]
        return Hello(len(hello.ciphersuites), _server_name(names[0]) if names else "")

    return read


def pypacker_headers() -> Callable[[bytes], Headers]:
    from pypacker.layer3 import ip, ip6
    from pypacker.layer4 import tcp, udp
    from pypacker.layer12.ethernet import Ethernet

    def read(packet: bytes) -> Headers:
        ethernet = Ethernet(packet)
        l3 = ethernet[ip.IP]
        v4 = l3 is not None
        if not v4:
            l3 = ethernet[ip6.IP6]
        l4 = l3[tcp.TCP]
        flags = 0 if l4 is None else l4.flags & 0xFF
        if l4 is None:
            l4 = l3[udp.UDP]
        return Headers(
            4 if v4 else 6, _address(l3.src), _address(l3.dst), l3.p if v4 else l3.nxt,
            l3.ttl if v4 else l3.hlim, l4.sport, l4.dport, flags,
        )  # fmt: skip

    return read


def pypacker_question() -> Callable[[bytes], Question]:
    from pypacker.layer567.dns import DNS

    def read(payload: bytes) -> Question:
        message = DNS(payload)
        question = message.queries[0]
        return Question(message.id, question.name_s.lower().rstrip("."), question.type)

    return read


def scapy_headers() -> Callable[[bytes], Headers]:
    from socket import AF_INET, AF_INET6, inet_pton

    from scapy.layers.inet import TCP
    from scapy.layers.inet6 import IPv6  # noqa: F401 - Ether finds it from now on
    from scapy.layers.l2 import Ether

    def read(packet: bytes) -> Headers:
        ip = Ether(packet).payload
        l4 = ip.payload
        v4 = ip.version == 4
        family = AF_INET if v4 else AF_INET6
        src, dst = (_address(inet_pton(family, text)) for text in (ip.src, ip.dst))
        return Headers(
            4 if v4 else 6, src, dst,
            ip.proto if v4 else ip.nh, ip.ttl if v4 else ip.hlim, l4.sport, l4.dport,
            int(l4.flags) & 0xFF if isinstance(l4, TCP) else 0,
        )  # fmt: skip

    return read


def scapy_question() -> Callable[[bytes], Question]:
    from scapy.layers.dns import DNS

    def read(payload: bytes) -> Question:
        message = DNS(payload)
        question = message.qd[0]
        name = question.qname.decode("latin-1").lower()
        return Question(message.id, name.rstrip("."), question.qtype)

    return read


def scapy_hello() -> Callable[[bytes], Hello]:
    from scapy.layers.tls.extensions import TLS_Ext_ServerName
    from scapy.layers.tls.record import TLS

    def read(payload: bytes) -> Hello:
        hello = TLS(payload).msg[0]
        names = [ext for ext in hello.ext or () if isinstance(ext, TLS_Ext_ServerName)]
        name = names[0].servernames[0].servername.decode("latin-1") if names else ""
        return Hello(len(hello.ciphers), name.lower())

    return read


READERS: dict[str, dict[str, Callable[[], Callable[[bytes], Any]]]] = {
    "headers": {"dpkt": dpkt_headers, "pypacker": pypacker_headers, "scapy": scapy_headers},
    "dns": {"dpkt": dpkt_question, "pypacker": pypacker_question, "scapy": scapy_question},
    "hello": {"dpkt": dpkt_hello, "scapy": scapy_hello},
}
"""By protocol and library. Of `headers` a reader is given packets, of all others payloads."""


def xdpipe_headers(batch: Batch) -> list[Fields]:
    """Return what the columns of Headers say."""
    src, dst = (
        [int.from_bytes(row.tobytes(), "big") for row in column]
        for column in (batch.src, batch.dst)
    )
    columns = (batch.ip_version, batch.ip_proto, batch.ip_ttl, batch.l4_sport, batch.l4_dport,
               batch.tcp_flags)  # fmt: skip
    version, proto, ttl, sport, dport, flags = (column.tolist() for column in columns)
    rows = zip(version, src, dst, proto, ttl, sport, dport, flags, strict=True)
    return [Headers(*row) for row in rows]


def xdpipe_question(batch: Batch) -> list[Fields]:
    """Return what the columns of Dns say."""
    columns = (batch.dns_id.tolist(), batch.text("dns_name"), batch.dns_type.tolist())
    rows = zip(*columns, strict=True)
    return [Question(number, "" if name == "." else name, kind) for number, name, kind in rows]


def xdpipe_hello(batch: Batch) -> list[Fields]:
    """Return what the columns of Tls say."""
    ciphers = (batch.tls_ciphers["len"] // 2).tolist()
    return [Hello(n, name) for n, name in zip(ciphers, batch.text("tls_sni"), strict=True)]


def cpu_ns(read: Callable[[bytes], Any], packets: Sequence[bytes], seconds: float) -> float:
    """Return ns of this process's time for a packet; all packets again and again."""
    n = 0
    began = time.process_time_ns()
    while (spent := time.process_time_ns() - began) < seconds * 1e9:
        for packet in packets:
            read(packet)
        n += len(packets)
    return spent / n
