"""Headers through `check` over all captures, and over every packet cut: whole or nothing.

Each different packet is cut at every length up to HEAD bytes and at each of its last TAIL bytes;
in between lies payload, where one cut is as good as another. Packets end at a guard page, which
limits them to PAGE bytes here; test_headers_scapy.py has the longer ones.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_headers_scapy import ethernet_packets

from guard_page import PAGE, GuardedBatch
from xdpipe import DROP, Pipeline, Steering
from xdpipe.batch import ABSENT, FLAGS, MALFORMED
from xdpipe.capture import CaptureReader
from xdpipe.check import check
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers

HEAD = 160
TAIL = 16
MALFORMED_BIT = FLAGS["MALFORMED"]
# What a cut may change though it leaves a value: how far the parser came shows in these.
PROGRESS = ("flags", "malformed", "ip_proto", "flow_hash", "eth_type", "n_vlans", "vlan_tci",
            "n_mpls")  # fmt: skip
NOTHING = {name: ABSENT if name in ("l3", "l4", "payload") else 0 for name in Headers.provides}
TRANSPORT = sum(FLAGS[name] for name in ("TCP", "UDP", "ICMP", "ICMP6", "IGMP"))


@pytest.fixture(scope="module")
def packets(captures: Path) -> list[bytes]:
    packets = [packet for packet in ethernet_packets(captures) if len(packet) <= PAGE]
    assert len(packets) > 10_000
    return packets


def test_check_reads_every_capture_to_its_end(captures: Path) -> None:
    """Each packet counts once, as what it is; another link type is one line that says so."""
    outcomes: Counter[str] = Counter()
    for path in sorted(path for path in captures.rglob("*") if path.is_file()):
        pipeline = Pipeline(steering=Steering("udp"), stages=[Headers()], default=DROP)
        try:
            result = check(pipeline, path)
        except XdpipeError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        with CaptureReader(path) as reader:
            packets = [packet.data for packet in reader]
        n_bad = len([1 for packet in packets if len(packet) < 14])
        (stage,) = result["stages"]
        counts = stage["counters"]
        assert result["packets"] == len(packets) == stage["packets"], path
        assert result["verdicts"] == {
            "DROP": len(packets),
            "TX": 0,
            "PASS": 0,
            "FORWARD": 0,
            "INVALID": 0,
        }
        assert stage["errors"] == 0
        reasons = {name: counts[f"malformed_{name.lower()}"] for name in MALFORMED}
        assert counts["malformed"] == sum(reasons.values())
        assert reasons["ETH_SHORT"] == n_bad
        before_ip = (
            "ETH_SHORT", "VLAN_SHORT", "IP4_SHORT", "IP4_VERSION", "IP4_IHL", "IP6_SHORT",
            "IP6_VERSION", "ARP_SHORT", "LLC_LEN", "LLC_SHORT", "MPLS_SHORT", "PPPOE_SHORT",
            "PPPOE_VERSION", "PPPOE_CODE", "PPPOE_LEN",
        )  # fmt: skip
        without_ip = counts["other"] + sum(reasons[name] for name in before_ip)
        assert counts["ipv4"] + counts["ipv6"] + without_ip == len(packets), path
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 0


def test_a_cut_packet_says_what_the_whole_one_said_or_nothing(packets: list[bytes]) -> None:
    guarded = GuardedBatch(HEAD + TAIL + 1)
    stage = Headers()
    reasons: Counter[int] = Counter()
    groups = {(packet[:HEAD], len(packet)): packet for packet in packets}
    for packet in groups.values():
        size = len(packet)
        lens = [*range(min(HEAD, size)), *range(max(HEAD, size - TAIL), size), size]
        batch = guarded.load_cuts(packet, lens)
        stage.process(batch)
        bad = batch.malformed != 0
        reasons.update(batch.malformed[bad].tolist())
        whole_is_bad = bool(bad[-1])
        for name in Headers.provides:
            column = getattr(batch, name)
            # a cut that still makes sense only took away padding: it says what the whole one said
            same = column == column[-1]
            if name not in PROGRESS:
                ok = same | (bad[:, None] if column.ndim > 1 else bad) & (column == NOTHING[name])
                assert ok.all() or whole_is_bad, (name, packet.hex())
            elif batch.ip_version[-1]:
                assert (same if column.ndim == 1 else same.all(1))[~bad].all(), (name, packet.hex())
        there = batch.payload != ABSENT
        ends = batch.payload + batch.payload_len
        assert (ends <= batch.len)[there].all(), packet.hex()
        assert ((batch.flags & MALFORMED_BIT != 0) == bad).all(), packet.hex()
    assert len(reasons) >= 8
    assert len(groups) > 8_000


def test_what_is_no_transport_header_gives_no_field_of_one(packets: list[bytes]) -> None:
    """Ports, TCP flags and ICMP types come with a whole header of theirs, or not at all."""
    batch = GuardedBatch(64)
    stage = Headers()
    n_later = 0
    for first in range(0, len(packets), 64):
        group = batch.load(packets[first : first + 64])
        stage.process(group)
        without = (group.flags & TRANSPORT) == 0
        for name in ("l4_sport", "l4_dport", "tcp_flags", "icmp_type", "icmp_code", "igmp_type"):
            assert not getattr(group, name)[without].any(), name
        later = (group.flags & FLAGS["LATER_FRAGMENT"]) != 0
        assert without[later].all()
        assert (group.l4[later] == ABSENT).all()
        n_later += int(np.count_nonzero(later))
    assert n_later > 0
