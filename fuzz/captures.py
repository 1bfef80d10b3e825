"""Inputs to begin with, from captures: single packets and whole flows that a target looks into."""

import mmap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fuzz.records import Kind, record, session, single
from fuzz.targets import Target
from xdpipe.batch import ABSENT, COLUMNS, ENUMS, FLAGS, Batch
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.stage import NativeStage

ALIKE = 3  # packets of which the stages say the same, as far as it is a matter of kind
LONGEST = 6000  # bytes of an input
IN_FLOW = 16  # packets of a flow
_BATCH = 256
_MEMORY = 32 << 20
_NOT_A_KIND = ("ip_ttl", "ip_tos", "icmp_code")


def captures_below(directory: Path) -> Iterator[list[bytes]]:
    """Yield the packets of each Ethernet capture."""
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        try:
            with CaptureReader(path) as reader:
                reader.require_ethernet()
                yield [packet.data for packet in reader]
        except XdpipeError:
            continue  # another link type, or no capture


class _Looked:
    """What a target's stages say of packets: the kind of each, and its flow."""

    def __init__(self, stages: Sequence[NativeStage]) -> None:
        self.stages = stages
        self.batch = Batch(mmap.mmap(-1, _MEMORY), _BATCH)
        for i, stage in enumerate(stages):
            stage.join(stages[:i])
            stage.bind_alone()
        said = {name for stage in stages for name in stage.provides}
        self.kinds = [
            column.name
            for column in COLUMNS.values()
            if column.name in said
            and column.name not in _NOT_A_KIND
            and column.width == 1
            and (column.dtype == np.uint8 or column.name in ENUMS or column.name == "eth_type")
        ]
        self.own = [COLUMNS[name] for name in stages[-1].provides]

    def look(self, packets: list[bytes]) -> Iterator[tuple[bytes, bool, bytes]]:
        """Yield kind, whether the last stage said anything, and flow of each packet."""
        batch = self.batch
        batch.load(packets)
        for stage in self.stages:
            stage.process(batch)
        kinds = np.stack([getattr(batch, name).astype(np.uint32) for name in self.kinds])
        speaks = np.full(len(batch), not self.own)
        for column in self.own:
            values = getattr(batch, column.name)
            values = values["len"] if column.text else values
            there = (values != 0) & (values != ABSENT)
            speaks |= there if there.ndim == 1 else there.any(1)
        for i in range(len(packets)):
            yield kinds[:, i].tobytes(), bool(speaks[i]), batch.flow_hash[i].tobytes()

    def payload(self, i: int) -> tuple[Kind, Kind, bytes, int] | None:
        """Return kinds to and from the server, payload and source port, if packet i has any."""
        batch = self.batch
        udp, tcp = (bool(batch.flags[i] & FLAGS[name]) for name in ("UDP", "TCP"))
        at, n = int(batch.payload[i]), int(batch.payload_len[i])
        if not (udp or tcp) or at == ABSENT or n == 0:
            return None
        kinds = (Kind.UDP_TO, Kind.UDP_FROM) if udp else (Kind.TCP_TO, Kind.TCP_FROM)
        return *kinds, bytes(batch.packet(i)[at : at + n]), int(batch.l4_sport[i])


def _flow_inputs(looked: _Looked, packets: list[bytes]) -> Iterator[bytes]:
    """Yield a flow as its packets, and as its payloads, as far as they are not too long."""
    list(looked.look(packets))
    payloads = [looked.payload(i) for i in range(len(packets))]
    for records in (
        [record(Kind.FRAME, packet) for packet in packets],
        _as_payloads([one for one in payloads if one]),
    ):
        size, kept = 0, []
        for one in records:
            size += len(one) + 4
            if size > LONGEST:
                break
            kept.append(one)
        if kept:
            yield session(kept)


def _as_payloads(payloads: list[tuple[Kind, Kind, bytes, int]]) -> list[bytes]:
    if not payloads:
        return []
    client = payloads[0][3]
    return [record(to if port == client else back, body) for to, back, body, port in payloads]


def from_captures(directory: Path, target: Target) -> Iterator[bytes]:
    """Yield inputs: packets, a few of each kind, and flows of which the last stage tells."""
    looked = _Looked(list(target.stages()))
    seen: Counter[bytes] = Counter()
    for packets in captures_below(directory):
        flows: dict[bytes, list[bytes]] = defaultdict(list)
        wanted: dict[bytes, None] = {}
        for first in range(0, len(packets), _BATCH):
            group = packets[first : first + _BATCH]
            for packet, (kind, speaks, flow) in zip(group, looked.look(group), strict=True):
                if len(flows[flow]) < IN_FLOW:
                    flows[flow].append(packet)
                if not speaks or len(packet) > LONGEST or seen[kind] >= ALIKE:
                    continue
                seen[kind] += 1
                wanted[flow] = None
                yield single(packet)
        for flow in wanted:
            yield from _flow_inputs(looked, flows[flow])
