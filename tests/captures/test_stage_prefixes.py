"""Every parser on every prefix of every packet: no read outside, and never something else.

Each packet ends at a guard page. It is cut in two ways: as a short capture cuts it, which Headers
finds out by IP's length; and with the lengths of IP and UDP mended, so that the cut reaches the
parser behind. A cut packet says what the whole one said, or less, and then its class says so: cut,
malformed, or not there. PARSERS has a line for each stage.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from test_headers_scapy import ethernet_packets

from fuzz.seeds import PREFACE, http2
from guard_page import PAGE, GuardedBatch
from xdpipe import stages
from xdpipe.batch import ABSENT, COLUMNS, FLAGS, Batch
from xdpipe.stage import NativeStage
from xdpipe.stages import Decap, Dns, Headers, Http1, Http2, TcpStreams, Tls

HEAD = 160
TAIL = 16
ROWS = 2048  # cuts that are tried at once, at the least


@dataclass(frozen=True)
class Parser:
    """How a stage is tried.

    Attributes:
        chain: makes the stages that it needs, itself the last.
        tells: columns that tell a packet's class: where one of them differs from what it is of the
            whole packet, the cut has been noticed, and the other columns may say nothing.
        malformed: the one that is not 0 where the packet contradicts itself; "" where there is
            none. Of what contradicts itself as a whole, a cut may say anything.
        progress: columns that say how far the parser came: they may differ once a cut is noticed.
        nothing: what a column holds where there is nothing, if that is neither 0 nor ABSENT.
        depth: bytes from the packet's start within which each cut may matter.
        mends: whether it is also cut with lengths mended.
        streams: it keeps state by flow: each cut gets a source address of its own.
        more: makes packets that the captures have none of.
    """

    chain: Callable[[], Sequence[NativeStage]]
    tells: tuple[str, ...]
    malformed: str = ""
    progress: tuple[str, ...] = ()
    nothing: Mapping[str, int] = field(default_factory=dict)
    depth: int = HEAD
    mends: bool = True
    streams: bool = False
    more: Callable[[], list[bytes]] = list

    def nothing_of(self, name: str) -> Any:
        """Return what a column holds of a packet that has nothing of the kind."""
        column = COLUMNS[name]
        if column.text:
            return ""
        return self.nothing.get(name, ABSENT if is_offset(name) else 0)


def is_offset(name: str) -> bool:
    """Whether a column says where in the packet something is."""
    return COLUMNS[name].doc.startswith("offset")


def streams(*behind: NativeStage) -> list[NativeStage]:
    """Return a chain with room for the connections of all cuts that are tried at once."""
    return [Headers(), TcpStreams(n_connections=4 * ROWS, n_chunks=64), *behind]


def http2_packets() -> list[bytes]:
    """Return the first segment of a client: its preface, and ever more frames (RFC 9113, 4.1)."""
    said, _ = http2()
    ends = [len(PREFACE)]
    while ends[-1] < len(said):
        ends.append(ends[-1] + 9 + int.from_bytes(said[ends[-1] : ends[-1] + 3], "big"))
    ether = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    tcp = TCP(sport=40000, dport=80, flags="PA", seq=1)
    return [
        bytes(ether / ip / tcp / said[:end])
        for ip in (IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2"))
        for end in ends
    ]


PARSERS = {
    "Headers": Parser(
        lambda: [Headers()], ("malformed",), "malformed", mends=False,
        progress=("flags", "ip_proto", "flow_hash", "eth_type", "n_vlans", "vlan_tci",
                  "n_mpls"),
    ),
    "Decap": Parser(
        lambda: [Headers(), Decap()], ("decap_malformed", "n_tunnels"), "decap_malformed",
        progress=("n_tunnels", "tunnels", "tunnel_id", "inner"),
    ),
    # a shorter segment is as good as a longer one; each has a connection of its own
    "TcpStreams": Parser(
        streams, ("tcp_stream", "tcp_n_pieces", "tcp_data_len"), streams=True,
        progress=("tcp_stream", "tcp_stream_id", "tcp_n_pieces", "tcp_pieces", "tcp_data_len"),
    ),
    "Dns": Parser(
        lambda: streams(Dns()), ("dns_malformed", "dns_found", "dns_len", "dns_n_messages"),
        "dns_malformed", progress=("dns_found", "dns_len", "dns_n_messages", "dns_rcode"),
        depth=400, streams=True,
    ),
    "Tls": Parser(
        lambda: streams(Tls()), ("tls_malformed", "tls_hello", "tls_n_records", "tls_alert"),
        "tls_malformed", progress=("tls_n_records",), depth=600, streams=True,
    ),
    "Http1": Parser(
        lambda: streams(Http1()), ("http_malformed", "http_kind", "http_n_messages"),
        "http_malformed", progress=("http_n_messages",), nothing={"http_content_length": -1},
        depth=400, streams=True,
    ),
    "Http2": Parser(
        lambda: streams(Http2()),
        ("http2_malformed", "http2_n_frames", "http2_n_messages", "http2_kind"), "http2_malformed",
        progress=("http2_n_frames", "http2_n_messages", "http2_n_opened", "http2_n_reset"),
        depth=400, streams=True, more=http2_packets,
    ),
}  # fmt: skip
NO_PARSERS = {"Count", "DecrementTtl", "FitMtu", "FixChecksums", "FlowMeter", "Histogram",
              "MapAddresses", "Measure", "RateLimit", "Record", "Sample", "SetAddresses", "SetVlan",
              "SwapAddresses", "Top", "Where"}  # fmt: skip
"""Stages that read of a packet only what others said of it, what libpcap reads, or a stamp at
its end."""


def values(batch: Batch, name: str) -> np.ndarray:
    """Return a column; the texts of one that holds texts."""
    if COLUMNS[name].text:
        return np.array(batch.text(name), object)
    column = getattr(batch, name)
    return column.reshape(len(batch), -1) if column.ndim > 1 else column


def same(column: np.ndarray, value: Any) -> np.ndarray:
    """Return in which rows a column has this value."""
    equal = column == value
    return equal if equal.ndim == 1 else equal.all(1)


def noticed(parser: Parser, columns: Mapping[str, np.ndarray], wholes: np.ndarray) -> np.ndarray:
    """Return of which rows the class is another one than that of their whole packets."""
    told = np.zeros(len(wholes), bool)
    for name in parser.tells:
        told |= ~same(columns[name], columns[name][wholes])
    return told


def complaint(
    parser: Parser, columns: Mapping[str, np.ndarray], wholes: np.ndarray
) -> tuple[int, str] | None:
    """Return a row that says something else than its whole packet, and what.

    Args:
        parser: how the stage is tried.
        columns: its own, by name, a row for each cut and for each whole packet.
        wholes: for each row, that of the whole packet.
    """
    told = noticed(parser, columns, wholes)
    any_goes = np.zeros(len(wholes), bool)
    if parser.malformed:
        any_goes = columns[parser.malformed][wholes] != 0
    for name, column in columns.items():
        ok = any_goes | same(column, column[wholes])
        if name == parser.malformed or name in parser.progress:
            ok |= told
        elif not ok.all():
            ok |= told & same(column, parser.nothing_of(name))
        if not ok.all():
            row = int(np.argmin(ok))
            return row, f"{name} is {column[row]}, of the whole packet {column[wholes[row]]}"
    return None


@dataclass(frozen=True)
class Whole:
    """A packet, and where its lengths stand."""

    data: bytes
    l3: int
    l4: int
    end: int
    """Where IP's packet ends: what is behind is padding."""
    payload: int
    version: int
    udp: bool
    speaks: bool
    """Whether the stage says anything of it."""

    def cuts(self, depth: int) -> list[bytes]:
        """Return it cut, the whole last."""
        size = len(self.data)
        ends = [*range(min(depth, size)), *range(max(depth, size - TAIL), size), size]
        return [self.data[:end] for end in ends]

    def mended(self, depth: int) -> list[bytes]:
        """Return it cut within its payload, lengths mended; the whole last. [] without payload."""
        if not self.version or self.payload == ABSENT:
            return []
        ends = [*range(self.payload, min(max(depth, self.payload), self.end))]
        ends += range(max(ends[-1] + 1 if ends else self.payload, self.end - TAIL), self.end)
        return [self._mended(end) for end in (*ends, self.end)]

    def _mended(self, end: int) -> bytes:
        data = bytearray(self.data[:end])
        if self.version == 4:
            data[self.l3 + 2 : self.l3 + 4] = (end - self.l3).to_bytes(2, "big")
        else:
            data[self.l3 + 4 : self.l3 + 6] = (end - self.l3 - 40).to_bytes(2, "big")
        if self.udp:
            data[self.l4 + 4 : self.l4 + 6] = (end - self.l4).to_bytes(2, "big")
        return bytes(data)

    def apart(self, cuts: list[bytes], first: int) -> list[bytes]:
        """Give each of the cuts that has one a source address of its own, from a number on."""
        at = self.l3 + (14 if self.version == 4 else 22)
        return [
            cut[:at] + k.to_bytes(2, "big") + cut[at + 2 :] if len(cut) >= at + 2 else cut
            for k, cut in enumerate(cuts, first)
        ]


def run(chain: Sequence[NativeStage], batch: Batch) -> None:
    """Run a chain on a batch from fresh states."""
    for i, stage in enumerate(chain):
        stage.join(chain[:i])
        stage.bind_alone()
    for stage in chain:
        stage.process(batch)


def speaks(parser: Parser, batch: Batch, names: Sequence[str]) -> np.ndarray:
    """Return of which packets any of these columns says something."""
    there = np.zeros(len(batch), bool)
    for name in names:
        if name != "tcp_pieces":  # a place in a list, whether there is anything or not
            there |= ~same(values(batch, name), parser.nothing_of(name))
    return there


def look(parser: Parser, packets: list[bytes]) -> Iterator[tuple[Whole, Any]]:
    """Yield each packet as a whole, and what it is alike to others by."""
    guarded = GuardedBatch(64)
    for first in range(0, len(packets), 64):
        group = packets[first : first + 64]
        batch = guarded.load(group)
        Headers().process(batch)
        rows = {name: getattr(batch, name).tolist() for name in Headers.provides}
        chain = parser.chain()
        run(chain, batch)
        said = speaks(parser, batch, chain[-1].provides).tolist()
        for i, data in enumerate(group):
            is_udp = bool(rows["flags"][i] & FLAGS["UDP"])
            whole = Whole(
                data, rows["l3"][i], rows["l4"][i], rows["payload"][i] + rows["payload_len"][i],
                rows["payload"][i], rows["ip_version"][i], is_udp, said[i],
            )  # fmt: skip
            kind = [rows[name][i] for name in ("flags", "malformed", "eth_type", "ip_proto")]
            alike = data[: parser.depth] if said[i] else tuple(kind)
            yield whole, (alike, min(len(data), parser.depth + TAIL))


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    packets = [packet for packet in ethernet_packets(captures) if len(packet) <= PAGE]
    assert len(packets) > 10_000
    return packets


class Rows:
    """Cuts of many packets, to be tried at once."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.guarded = GuardedBatch(ROWS + parser.depth + TAIL + 1)
        self.packets: list[bytes] = []
        self.wholes: list[int] = []
        self.n_noticed = 0

    def add(self, whole: Whole, cuts: list[bytes]) -> None:
        """Add the cuts of a packet, itself the last; try what there is when it is enough."""
        if self.parser.streams and whole.version:
            cuts = whole.apart(cuts, len(self.packets))
        self.packets += cuts
        self.wholes += [len(self.packets) - 1] * len(cuts)
        if len(self.packets) >= ROWS:
            self.try_all()

    def try_all(self) -> None:
        """Run the chain on them, and compare."""
        if not self.packets:
            return
        batch = self.guarded.load(self.packets)
        chain = self.parser.chain()
        run(chain, batch)
        columns = {name: values(batch, name) for name in chain[-1].provides}
        wrong = complaint(self.parser, columns, np.array(self.wholes))
        if wrong is not None:
            row, what = wrong
            whole = self.packets[self.wholes[row]]
            pytest.fail(f"cut to {len(self.packets[row])} bytes, {what}: {whole.hex()}")
        for name, column in columns.items():  # what is said lies within the packet, cut or not
            if is_offset(name):
                sizes = columns.get(f"{name}_len", np.zeros(len(batch), np.int32))
                ends = batch.len if column.ndim == 1 else batch.len[:, None]
                assert ((column + sizes <= ends) | (column == ABSENT)).all(), name
        self.n_noticed += int(noticed(self.parser, columns, np.array(self.wholes)).sum())
        self.packets, self.wholes = [], []


@pytest.mark.parametrize("name", PARSERS)
def test_a_cut_packet_says_what_the_whole_one_says_or_less(packets: list[bytes], name: str) -> None:
    parser = PARSERS[name]
    rows = Rows(parser)
    wholes = {key: whole for whole, key in look(parser, [*packets, *parser.more()])}
    for whole in wholes.values():
        rows.add(whole, whole.cuts(parser.depth))
        if parser.mends and (cuts := whole.mended(parser.depth)):
            rows.add(whole, cuts)
    rows.try_all()
    assert sum(whole.speaks for whole in wholes.values()) >= 20
    assert rows.n_noticed > 20


def test_every_native_stage_is_tried_or_is_no_parser() -> None:
    all_stages = [getattr(stages, name) for name in stages.__all__]
    native = {one.__name__ for one in all_stages if issubclass(one, NativeStage)}
    assert set(PARSERS) | NO_PARSERS == native
    assert not set(PARSERS) & NO_PARSERS


CLASS, OFFSET, NUMBER, FAR = "malformed", "payload", "ip_ttl", "flags"
TRIED = Parser(lambda: [], (CLASS,), CLASS, progress=(FAR,))


@pytest.mark.parametrize(
    ("cut", "accepted"),
    [
        ({}, True),
        ({CLASS: 3}, True),
        ({CLASS: 3, OFFSET: ABSENT, NUMBER: 0, FAR: 9}, True),
        ({OFFSET: ABSENT}, False),
        ({NUMBER: 0}, False),
        ({FAR: 9}, False),
        ({CLASS: 3, NUMBER: 63}, False),
        ({CLASS: 3, OFFSET: 0}, False),
    ],
)
def test_only_less_is_accepted_and_only_with_its_class(cut: dict[str, int], accepted: bool) -> None:
    whole = {CLASS: 0, OFFSET: 42, NUMBER: 64, FAR: 7}
    other = {CLASS: 0, OFFSET: 20, NUMBER: 99, FAR: 1}
    columns = {
        name: np.array([other[name], cut.get(name, value), value]) for name, value in whole.items()
    }
    found = complaint(TRIED, columns, np.array([0, 2, 2]))
    assert found is None if accepted else found is not None and found[0] == 1


def test_of_what_is_malformed_as_a_whole_a_cut_may_say_anything() -> None:
    columns = {CLASS: np.array([0, 3]), NUMBER: np.array([63, 64])}
    assert complaint(TRIED, columns, np.array([1, 1])) is None


def test_lengths_are_mended_so_that_headers_accepts_the_cut() -> None:
    ip = bytes.fromhex("45000024000000004011000001020304050607080001003500100000") + bytes(8)
    data = bytes(12) + b"\x08\0" + ip + b"pad"
    whole = Whole(data, 14, 34, 50, 42, 4, True, True)
    cuts = whole.mended(HEAD)
    assert [len(cut) for cut in cuts] == [*range(42, 50), 50]
    batch = GuardedBatch(16).load(whole.apart(cuts, 3))
    run([Headers()], batch)
    assert batch.malformed.tolist() == [0] * 9
    assert batch.payload_len.tolist() == [*range(9)]
    assert len(np.unique(batch.src, axis=0)) == 9
