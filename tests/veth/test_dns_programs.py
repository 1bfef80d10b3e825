"""Dns between real programs: what dig and dnsperf say they sent is what the stage counted."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hosts import HOST4, HOST6, PATIENCE, PIPELINES, Crossing, crossing, until

PIPELINE = PIPELINES / "dns_between.py"
STATUS = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}

# options of dig, what it is to ask for, and what the stage is to say of the query
ASKED = [
    ("", "www.example.com", "A", "www.example.com 1 edns 1232 0x0"),
    ("+noedns", "WWW.Example.COM.", "AAAA", "www.example.com 28"),
    ("+dnssec", "example.com", "TXT", "example.com 16 edns 1232 0x8000"),
    ("+bufsize=4096 +nocookie", "other.test", "HTTPS", "other.test 65 edns 4096 0x0"),
    ("+tcp", "over.tcp.example.com", "A", "over.tcp.example.com 1 edns 1232 0x0"),
    ("+tcp +noedns", "over.tcp.test", "SOA", "over.tcp.test 6"),
    ("+noedns", ".", "NS", ". 2"),
    ("+noedns +norecurse", r"a\.b\032c\\d.example.com", "A", r"a\046b\032c\092d.example.com 1"),
    ("+noedns", "x" * 63 + ".example.com", "A", "x" * 63 + ".example.com 1"),
    ("+ednsflags=0x1 +noedns", "-x", "192.0.2.77", "77.2.0.192.in-addr.arpa 12"),
    ("+noedns", "-x", "2001:db8::1", "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa 12"),
]  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Crossing]:
    with crossing(tmp_path) as bench:
        # one queue, since TcpStreams wants both directions in the same
        ends = ((bench.client, "c0"), (bench.host, "m0"), (bench.host, "m1"), (bench.far, "f0"))
        for namespace, dev in ends:
            namespace.run(["ethtool", "-L", dev, "rx", "1", "tx", "1"])
        yield bench


@contextmanager
def name_server(bench: Crossing, tmp_path: Path) -> Iterator[None]:
    """Run dnsmasq on the far host, until it answers there."""
    with bench.far.popen(
        ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root",
         "--group=root", f"--pid-file={tmp_path}/pid", f"--listen-address={HOST4},{HOST6}",
         "--bind-interfaces", "--address=/example.com/192.0.2.1"],
        stderr=subprocess.DEVNULL,
    ) as dnsmasq:  # fmt: skip
        try:

            def answers() -> bool:
                ask = ["dig", "+short", "+tries=1", "+time=1", f"@{HOST4}", "example.com"]
                done = bench.far.run(ask, check=False, capture_output=True, text=True)
                return str(done.stdout) == "192.0.2.1\n"

            until(answers, "dnsmasq answers")
            yield
        finally:
            dnsmasq.kill()


def check_books(final: dict[str, Any]) -> None:
    assert final["ledger"]["residual"] == 0, final["ledger"]


def counts(final: dict[str, Any]) -> dict[str, int]:
    [dns] = [stage for stage in final["stages"] if stage["name"] == "Dns"]
    assert dns["errors"] == 0
    return {name: n for name, n in dns["counters"].items() if n}


def noted(final: dict[str, Any]) -> Counter[str]:
    [note] = [stage for stage in final["stages"] if stage["name"] == "Note"]
    seen: Counter[str] = Counter()
    for report in note["reports"]:
        seen.update(report["seen"])
    return seen


def test_what_dig_sends_and_gets_is_what_the_stage_says(bench: Crossing, tmp_path: Path) -> None:
    wanted: Counter[str] = Counter()
    with name_server(bench, tmp_path):
        running = bench.run(PIPELINE)
        for number, (options, name, kind, told) in enumerate(ASKED):
            address = (HOST4, HOST6)[number % 2]
            done = bench.client.run(
                ["dig", "+tries=1", f"+time={5 * PATIENCE}", f"@{address}", *options.split(),
                 name, kind],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            status = re.search(r"status: ([A-Z]+), id: [0-9]+$", done.stdout, re.MULTILINE)
            assert status, done.stdout
            over = "tcp" if "+tcp" in options else "udp"
            wanted[f"query {over} {told}"] += 1
            plain = re.sub(" edns .*", "", told)
            wanted[f"response {over} {plain} rcode {STATUS[status[1]]}"] += 1
        final = running.end()
    check_books(final)
    assert noted(final) == wanted
    counted = counts(final)
    assert counted["queries"] == counted["responses"] == len(ASKED)
    assert counted["messages"] == 2 * len(ASKED)
    assert counted["tcp"] == 4
    assert "malformed" not in counted
    assert "tcp_out_of_step" not in counted
    codes = Counter(re.search("rcode ([0-9]+)", row)[1] for row in wanted if "rcode" in row)  # type: ignore[index]
    for name, code in STATUS.items():
        assert counted.get(name.lower(), 0) == codes[str(code)], name


@pytest.mark.parametrize("mode", ["udp", "tcp"])
@pytest.mark.parametrize("edns", [False, True])
def test_dnsperf_sends_and_gets_as_much_as_the_stage_counts(
    bench: Crossing, tmp_path: Path, mode: str, edns: bool
) -> None:
    if shutil.which("dnsperf") is None:
        pytest.skip("dnsperf is not installed")
    # dnsmasq takes 100 queries over a TCP connection and closes it; what dnsperf has written to it
    # since, and says it sent, never leaves the client.
    n = 900
    asked = tmp_path / "asked"
    asked.write_text("".join(f"host{i}.example.com {('A', 'AAAA')[i % 2]}\n" for i in range(n)))
    with name_server(bench, tmp_path):
        running = bench.run(PIPELINE)
        done = bench.client.run(
            ["dnsperf", "-s", HOST4, "-m", mode, "-d", str(asked), "-n", "1", "-c", "10",
             "-q", "20", "-t", str(5 * PATIENCE), *(["-e", "-D"] if edns else [])],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        final = running.end()
    check_books(final)
    told = {
        name: int(value) for name, value in re.findall(r"Queries (\w+): +([0-9]+)", done.stdout)
    }
    assert told["sent"] == n, done.stdout
    counted = counts(final)
    assert counted["queries"] == told["sent"]
    assert counted["responses"] == told["completed"] == n
    codes = {name: int(k) for name, k in re.findall(r"([A-Z]+) ([0-9]+) \(", done.stdout)}
    assert sum(codes.values()) == n, done.stdout
    assert {name: counted.get(name.lower(), 0) for name in codes} == codes
    assert counted.get("tcp", 0) == (2 * n if mode == "tcp" else 0)
    assert counted.get("edns", 0) == (2 * n if edns else 0)
    assert not {name for name in counted if name.startswith(("malformed", "tcp_"))}, counted
    if mode == "udp":  # over TCP several may end in a packet
        tail = " edns 4096 0x8000" if edns else ""
        seen = noted(final).items()
        queries = {row.removesuffix(tail): k for row, k in seen if row.startswith("query")}
        assert queries == {f"query udp host{i}.example.com {(1, 28)[i % 2]}": 1 for i in range(n)}
