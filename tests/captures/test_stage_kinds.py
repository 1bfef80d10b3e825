"""One stage, in each of the four kinds, over every packet of all captures: equal results."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_headers_scapy import ethernet_packets

from xdpipe import Batch, CStage, Packet, PacketStage, Stage
from xdpipe.chain import Chain
from xdpipe.jit import jit_stage
from xdpipe.stages import Headers

REQUIRES = (
    "flags", "l3", "payload", "payload_len", "ip_ttl", "l4_sport", "l4_dport", "dst",
)  # fmt: skip
COUNTERS = ("rewritten", "dns", "tls", "large", "from_one")
COLUMNS = {"score": "float32"}
BATCH = 256


class DropSome(Stage):
    """So that there are packets that are decided already."""

    requires = ("flow_hash",)

    def process(self, batch: Batch) -> None:
        batch.drop(batch.flow_hash % 8 == 0)


class Array(Stage):
    requires, counters, columns = REQUIRES, COUNTERS, COLUMNS

    def process(self, batch: Batch) -> None:
        at, undecided = batch.payload, batch.undecided
        tcp, udp = batch.has("TCP"), batch.has("UDP")
        batch.score[undecided] = (batch.len * 0.5 + batch.ip_ttl)[undecided]
        mark = batch.u16(at).astype(np.uint32) + batch.u8(at + 40) + batch.dst[:, 15]
        batch.mark[undecided] = mark[undecided]
        where = undecided & tcp & (batch.payload_len > 0)
        self.count("rewritten", batch.put_u8(at, batch.u8(at) ^ 0x20, where, fix_checksum=True))
        dns = udp & ((batch.l4_sport == 53) | (batch.l4_dport == 53))
        tls = ~dns & tcp & (batch.u16(at) == 0x3603)
        self.count("dns", batch.tx(dns))
        self.count("tls", batch.pass_(tls))
        self.count("large", batch.drop(~dns & ~tls & (batch.score > 300)))
        self.count("from_one", batch.drop(batch.u32(batch.l3 + 12) == 0x0A000001))


@jit_stage(requires=REQUIRES, counters=COUNTERS, columns=COLUMNS)
def jit(batch, counters):  # type: ignore[no-untyped-def]
    for i in range(batch.n):
        if not batch.undecided[i]:
            continue
        at = batch.payload[i]
        batch.score[i] = batch.len[i] * 0.5 + batch.ip_ttl[i]
        batch.mark[i] = batch.u16(i, at) + batch.u8(i, at + 40) + batch.dst[i, 15]
        if batch.has(i, "TCP") and batch.payload_len[i] > 0:
            counters.rewritten += batch.put_u8(i, at, batch.u8(i, at) ^ 0x20, fix_checksum=True)
        if batch.has(i, "UDP") and (batch.l4_sport[i] == 53 or batch.l4_dport[i] == 53):
            counters.dns += batch.tx(i)
        elif batch.has(i, "TCP") and batch.u16(i, at) == 0x3603:
            counters.tls += batch.pass_(i)
        elif batch.score[i] > 300:
            counters.large += batch.drop(i)
        if batch.u32(i, batch.l3[i] + 12) == 0x0A000001:
            counters.from_one += batch.drop(i)


class Each(PacketStage):
    requires, counters, columns = REQUIRES, COUNTERS, COLUMNS

    def packet(self, p: Packet) -> None:
        at = p.payload
        p.score = len(p) * 0.5 + p.ip_ttl
        p.mark = p.u16(at) + p.u8(at + 40) + p.dst[15]
        if p.has("TCP") and p.payload_len > 0:
            self.count("rewritten", p.put_u8(at, p.u8(at) ^ 0x20, fix_checksum=True))
        if p.has("UDP") and 53 in (p.l4_sport, p.l4_dport):
            self.count("dns", p.tx())
        elif p.has("TCP") and p.u16(at) == 0x3603:
            self.count("tls", p.pass_())
        elif p.score > 300:
            self.count("large", p.drop())
        if p.u32(p.l3 + 12) == 0x0A000001:
            self.count("from_one", p.drop())


class Uncompiled(Stage):
    """The jit stage's function as it was written."""

    requires, counters, columns = REQUIRES, COUNTERS, COLUMNS

    def __init__(self) -> None:
        self.jit = jit()

    def process(self, batch: Batch) -> None:
        before = [self.jit.counted(name) for name in COUNTERS]
        self.jit.python(batch)
        for name, n in zip(COUNTERS, before, strict=True):
            self.count(name, self.jit.counted(name) - n)


class Results:
    """What a stage makes of all packets."""

    def __init__(self, stage: Stage, packets: list[bytes]) -> None:
        batch = Batch(bytearray(8 << 20), BATCH)
        errors: list[Exception] = []
        chain = Chain([Headers(), DropSome(), stage], batch, on_error=lambda _, e: errors.append(e))
        self.columns: dict[str, list[Any]] = {"verdict": [], "mark": [], "score": []}
        self.packets: list[bytes] = []
        for first in range(0, len(packets), BATCH):
            batch.load(packets[first : first + BATCH])
            chain.run()
            for name, values in self.columns.items():
                values += getattr(batch, name).tolist()
            self.packets += [bytes(batch.packet(i)) for i in range(len(batch))]
        if errors:
            raise errors[0]
        counts = chain.read_counts()[2]
        assert counts["errors"] == 0
        self.counters = counts["counters"]


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    packets = ethernet_packets(captures)
    assert len(packets) > 10_000
    return packets


@pytest.fixture(scope="module")
def array(packets: list[bytes]) -> Results:
    return Results(Array(), packets)


def test_the_stage_has_something_to_do(array: Results, packets: list[bytes]) -> None:
    assert all(n > 20 for n in array.counters.values()), array.counters
    assert {array.columns["verdict"].count(verdict) > 100 for verdict in range(4)} == {True}
    assert sum(a != b for a, b in zip(array.packets, packets, strict=True)) > 1000


def same(results: Results, array: Results) -> None:
    assert results.counters == array.counters
    for name, values in array.columns.items():
        assert results.columns[name] == values, name
    assert results.packets == array.packets


@pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="no numba: pip install 'xdpipe[jit]'"
)
@pytest.mark.parametrize("stage", [jit, Uncompiled])
def test_jit_does_what_array_does(stage: Any, packets: list[bytes], array: Results) -> None:
    same(Results(stage(), packets), array)


@pytest.mark.skipif(
    not any(map(shutil.which, ("gcc", "cc", "clang"))), reason="no C compiler: apt install gcc"
)
def test_c_does_what_array_does(packets: list[bytes], array: Results) -> None:
    stage = CStage("judge.c", requires=REQUIRES, counters=COUNTERS, columns=COLUMNS)
    same(Results(stage, packets), array)


def test_packet_does_what_array_does(packets: list[bytes], array: Results) -> None:
    same(Results(Each(), packets), array)
