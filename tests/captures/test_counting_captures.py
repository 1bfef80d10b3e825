"""What counting and limiting stages say of the captures is what plain Python says."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from test_filter_agreement import FILTERS

from xdpipe import DROP, PASS, Pipeline, Stage, Steering
from xdpipe.batch import Batch
from xdpipe.check import CaptureBatches, check
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.stages import Count, Flow, Headers, Histogram, Prefix, RateLimit, Sample, Top, Where

SECOND = 10**9
EDGES = [0, 60, 61, 128, 512, 1514]
FILTER = "udp or icmp6 or tcp port 80"
COLUMNS = ("time_ns", "len", "src", "dst", "l4_sport", "l4_dport", "ip_proto", "ip_version")
RATE, BURST, BYTE_RATE, BYTE_BURST = Fraction(7, 2), 6, Fraction(200), 300
ALL = 1 << 16


def ethernet_captures(captures: Path) -> Iterator[Path]:
    for path in sorted(path for path in captures.rglob("*") if path.is_file()):
        try:
            CaptureBatches(path, 1).close()
        except XdpipeError:
            continue
        yield path


class Packet:
    """A packet as the columns have it, in numbers and texts of Python's."""

    def __init__(self, batch: Batch, i: int, matches: bool) -> None:
        for name in COLUMNS:
            setattr(self, name, getattr(batch, name)[i].tolist())
        self.src, self.dst = (ip_address(bytes(getattr(self, name))) for name in ("src", "dst"))
        self.matches = matches

    def net(self) -> str:
        """Return the /16 or /48 of the source."""
        packed = self.src.packed
        if packed[:12] == bytes(10) + b"\xff\xff":
            return f"{packed[12]}.{packed[13]}.0.0/16"
        return f"{ip_address(packed[:6] + bytes(10))}/48"

    def flow(self) -> frozenset[Any]:
        ends = [(self.src, self.l4_sport), (self.dst, self.l4_dport)]
        return frozenset([*Counter(ends).items(), self.ip_proto])


class Bucket:
    def __init__(self, rate: Fraction, burst: int) -> None:
        self.rate, self.burst, self.level, self.at = rate, burst, Fraction(burst), 0

    def conforms(self, tokens: int, now: int) -> bool:
        if self.at:
            self.level = min(
                self.level + self.rate * (now - self.at) / SECOND, Fraction(self.burst)
            )
        self.at = now
        if tokens > self.level:
            return False
        self.level -= tokens
        return True


def read(path: Path) -> list[Packet]:
    """Return the packets of a capture, by times that never go back."""
    taken = Filter(FILTER)
    packets = []
    batches = CaptureBatches(path, 100)
    headers = Headers()
    for batch in batches:
        headers.process(batch)
        for i in range(len(batch)):
            packets.append(Packet(batch, i, taken.matches(bytes(batch.packet(i)))))
    batches.close()
    latest = put_back = 0
    for packet in packets:
        now = packet.time_ns + put_back
        if latest - now >= SECOND:
            put_back += latest - now
        latest = packet.time_ns = max(latest, now)
    return packets


def stages() -> list[Stage]:
    return [
        Headers(),
        Where(FILTER, mark=7),
        Count("ip_version", "ip_proto", n=ALL, shown=ALL),
        Count(Prefix("src", bits4=16, bits6=48), n=ALL, shown=ALL),
        Count("src", "l4_dport", n=ALL, shown=ALL, only=7),
        Count(Flow(), n=ALL, shown=ALL),
        Count(only=7),
        Histogram("len", bins=EDGES),
        Histogram("l4_dport", only=7),
        Top("src", n=3),
        Top("dst", n=8, by="bytes", only=7),
        RateLimit("src", rate=RATE, burst=BURST, verdict=DROP, mark=9),
        RateLimit("dst", rate=BYTE_RATE, burst=BYTE_BURST, unit="bytes", verdict=PASS, only=7),
        Count("verdict", "mark"),
        Sample(3, verdict=DROP, otherwise=PASS, seed=1),
    ]


def model(packets: list[Packet]) -> dict[str, Any]:
    """Return what plain Python finds: the same numbers by the same names."""
    marked = [packet for packet in packets if packet.matches]
    sources: defaultdict[Any, Bucket] = defaultdict(lambda: Bucket(RATE, BURST))
    targets: defaultdict[Any, Bucket] = defaultdict(lambda: Bucket(BYTE_RATE, BYTE_BURST))
    dropped = {
        id(packet) for packet in packets if not sources[packet.src].conforms(1, packet.time_ns)
    }
    passed = {
        id(packet) for packet in marked
        if id(packet) not in dropped
        and not targets[packet.dst].conforms(packet.len, packet.time_ns)
    }  # fmt: skip
    return {
        "protocols": Counter((packet.ip_version, packet.ip_proto) for packet in packets),
        "nets": Counter(packet.net() for packet in packets),
        "services": Counter((str(packet.src), packet.l4_dport) for packet in marked),
        "flows": sorted(Counter(packet.flow() for packet in packets).values()),
        "marked": (len(marked), sum(packet.len for packet in marked)),
        "dropped": len(dropped),
        "passed": len(passed),
        "undecided": len(packets) - len(dropped) - len(passed),
    }


def plain(address: str) -> str:
    return f"::ffff:{address}" if ":" not in address else address


def check_top(report: dict[str, Any], true: Counter[str], column: str, n: int) -> None:
    total = sum(true.values())
    assert report["total"] == total
    assert report["none_missing_above"] == total // n
    there = {row[column]: row for row in report["keys"]}
    assert len(there) == min(n, len(true))
    for key, row in there.items():
        assert row["count"] - row["error"] <= true[key] <= row["count"]
        assert row["error"] * n <= total
    assert {key for key, number in true.items() if number * n > total} <= set(there)


def test_all_numbers_of_all_captures_are_those_of_plain_python(captures: Path) -> None:
    n_files = n_packets = n_dropped = n_passed = 0
    for path in ethernet_captures(captures):
        packets = read(path)
        expected = model(packets)
        pipeline = Pipeline(Steering("ip"), stages(), DROP)
        result = check(pipeline, path, batch_size=100)
        assert [stage["errors"] for stage in result["stages"]] == [0] * len(pipeline.stages), path
        told = {stage["name"]: stage for stage in result["stages"]}
        report = {name: (stage["reports"] or [{}])[0] for name, stage in told.items()}
        count = {name: stage["counters"] for name, stage in told.items()}
        n = len(packets)
        for stage in result["stages"][1:]:
            parts = [
                number for name, number in stage["counters"].items()
                if name not in ("bytes", "no_room_bytes", "keys", "replaced")
            ]  # fmt: skip
            assert sum(parts) == n, (path, stage)

        assert (count["Where"]["matched"], count["Count#5"]["bytes"]) == expected["marked"]
        rows = report["Count"]["keys"]
        assert {(r["ip_version"], r["ip_proto"]): r["packets"] for r in rows} == expected[
            "protocols"
        ]
        rows = report["Count#2"]["keys"]
        assert {row["src"]: row["packets"] for row in rows} == expected["nets"]
        rows = report["Count#3"]["keys"]
        assert {
            (str(ip_address(plain(row["src"]))), row["l4_dport"]): row["packets"] for row in rows
        } == expected["services"]
        assert sorted(row["packets"] for row in report["Count#4"]["keys"]) == expected["flows"]

        bins = {row["from"]: row["packets"] for row in report["Histogram"].get("bins", ())}
        for first, behind in itertools.pairwise(EDGES):
            assert bins.get(first, 0) == sum(first <= packet.len < behind for packet in packets)
        assert count["Histogram"]["over"] == sum(packet.len >= EDGES[-1] for packet in packets)
        ports = sorted(packet.l4_dport for packet in packets if packet.matches)
        if ports:
            median = ports[-(-len(ports) // 2) - 1]
            assert report["Histogram#2"]["p50"] == pytest.approx(median, rel=1 / 64)
            assert report["Histogram#2"]["greatest"] == ports[-1]

        check_top(report["Top"], Counter(show(packet.src) for packet in packets), "src", 3)
        by_target: Counter[str] = Counter()
        for packet in packets:
            if packet.matches:
                by_target[show(packet.dst)] += packet.len
        check_top(report["Top#2"], by_target, "dst", 8)

        assert count["RateLimit"]["exceeded"] == expected["dropped"], path
        assert count["RateLimit#2"]["exceeded"] == expected["passed"], path
        verdicts: Counter[str] = Counter()
        for row in report["Count#6"]["keys"]:
            verdicts[row["verdict"]] += row["packets"]
        assert verdicts == +Counter(
            DROP=expected["dropped"], PASS=expected["passed"], UNDECIDED=expected["undecided"]
        )
        n_files += 1
        n_packets += n
        n_dropped += expected["dropped"]
        n_passed += expected["passed"]
    assert n_files > 300
    assert n_packets > 10_000
    assert n_dropped > 1000
    assert n_passed > 500


def show(address: Any) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


def test_where_takes_what_libpcap_takes_of_the_captures(captures: Path) -> None:
    filters = [Filter(expression) for expression in FILTERS]
    wheres = [Where(expression, mark=1) for expression in FILTERS]
    seen: set[bytes] = set()
    taken: Counter[str] = Counter()
    for path in ethernet_captures(captures):
        batches = CaptureBatches(path, 256)
        for batch in batches:
            packets = [bytes(batch.packet(i)) for i in range(len(batch))]
            new = [packet not in seen and not seen.add(packet) for packet in packets]
            for expression, by_libpcap, where in zip(FILTERS, filters, wheres, strict=True):
                batch.mark[:] = 0
                where.process(batch)
                for packet, is_new, mark in zip(packets, new, batch.mark.tolist(), strict=True):
                    if is_new:
                        assert by_libpcap.matches(packet) == mark, (path, expression)
                        taken[expression] += mark
        batches.close()
    assert len(seen) > 10_000
    assert len([expression for expression in FILTERS if taken[expression]]) > 50
