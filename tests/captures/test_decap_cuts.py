"""Decap over every packet of the captures cut short: nothing is read beyond its end.

Packets end at a guard page. A cut alone is the outer packet's fault; so packets in tunnels are cut
once more with the lengths of the outer IP and UDP put right, and then it is the tunnel's header or
the packet within that ends early.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_headers_scapy import ethernet_packets

from guard_page import PAGE, GuardedBatch
from tunnels import consistent, mended
from xdpipe.batch import ABSENT, MALFORMED, Batch
from xdpipe.stages import Decap, Headers
from xdpipe.stages.decap import TUNNELS

HEAD = 200
TAIL = 8
REASONS = {value: name for name, value in MALFORMED.items()}
# How far the parser came shows in these, besides in those that are zero or absent
PROGRESS = (
    "flags",
    "malformed",
    "ip_proto",
    "flow_hash",
    "eth_type",
    "n_vlans",
    "vlan_tci",
    "n_mpls",
)


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    packets = [packet for packet in ethernet_packets(captures) if len(packet) <= PAGE]
    assert len(packets) > 10_000
    return packets


def run(batch: Batch) -> Batch:
    Headers().process(batch)
    Decap().process(batch)
    consistent(batch)
    return batch


def test_a_packet_cut_anywhere_is_read_no_further(packets: list[bytes]) -> None:
    guarded = GuardedBatch(HEAD)
    heads = {(packet[:HEAD], len(packet)): packet for packet in packets}
    n_tunnels = 0
    for packet in heads.values():
        batch = run(guarded.load_cuts(packet, list(range(min(HEAD, len(packet))))))
        n_tunnels += int(np.count_nonzero(batch.n_tunnels))
    assert len(heads) > 8_000
    assert n_tunnels > 0  # there may be bytes behind the packet


def test_a_tunnel_that_ends_early_is_read_no_further(packets: list[bytes]) -> None:
    """And says of the packet within what the whole one said, or nothing."""
    batch = GuardedBatch(64)
    tunnelled = []
    for first in range(0, len(packets), 64):
        group = packets[first : first + 64]
        run(batch.load(group))
        there = np.flatnonzero((batch.batch.n_tunnels > 0) & (batch.batch.n_vlans == 0))
        outer = batch.batch.outer_l3
        tunnelled += [(group[i], int(outer[i])) for i in there]
    assert len(tunnelled) > 500
    guarded = GuardedBatch(HEAD + TAIL)
    kinds: Counter[int] = Counter()
    inner_reasons: Counter[str] = Counter()
    reasons: Counter[int] = Counter()
    heads = {(packet[:HEAD], len(packet)): (packet, l3) for packet, l3 in tunnelled}
    for packet, l3 in heads.values():
        size, first = len(packet), l3 + (28 if packet[l3] >> 4 == 4 else 48)
        cuts = set(range(first, min(first + HEAD - 60, size))) | set(range(size - TAIL, size))
        lens = [n for n in sorted(cuts) if n >= first] + [size]
        rows = run(guarded.load([mended(packet, n, l3) for n in lens]))
        bad = (rows.malformed != 0) | (rows.n_tunnels < rows.n_tunnels[-1])
        bad |= rows.decap_malformed != 0
        for name in Headers.provides:
            column = getattr(rows, name)
            if name in PROGRESS:
                continue
            same = (column == column[-1]) if column.ndim == 1 else (column == column[-1]).all(1)
            if name == "payload_len":  # of what has no length of its own
                same |= column < column[-1]
            whole_is_bad = rows.malformed[-1] != 0
            assert (same | bad).all() or whole_is_bad, (name, packet.hex())
        for depth in range(4):
            entered = rows.n_tunnels > depth
            assert len(set(rows.tunnels[entered, depth].tolist())) <= 1
            assert len(set(rows.tunnel_id[entered, depth].tolist())) <= 1
        kinds.update(rows.tunnels[-1].tolist())
        inner_reasons.update(REASONS[n] for n in rows.malformed[rows.n_tunnels > 0].tolist() if n)
        reasons.update(rows.decap_malformed.tolist())
    assert set(kinds) == {0, *TUNNELS.values()}
    assert {"ETH_SHORT", "IP4_SHORT", "IP4_LEN", "IP6_SHORT", "IP6_LEN"} <= set(inner_reasons)
    assert len(reasons) >= 5, reasons
    assert ABSENT not in kinds
