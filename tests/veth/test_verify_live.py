"""`xdpipe verify --live`: the capture through a pipeline that runs, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import wrpcap
from test_demo import family, running

from hosts import EXAMPLES, PATIENCE, until
from traffic import numbered_flows

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
VERIFY = [sys.executable, "-P", "-m", "xdpipe", "verify"]
MIX = """
from xdpipe import PASS, Batch, Pipeline, Stage
from xdpipe.stages import Headers, SwapAddresses

class Mix(Stage):
    requires = ("flow_hash",)
    counters = ("dropped", "sent")
    def process(self, batch: Batch) -> None:
        self.count("dropped", batch.drop(batch.flow_hash % 3 == 0))
        self.count("sent", batch.tx(batch.flow_hash % 3 == 1))

pipeline = Pipeline("ip or ip6 or vlan", [Headers(), SwapAddresses(), Mix()], default=PASS)
"""
COUNT = """
from xdpipe import TX, Batch, DropSet, Pipeline, Stage, Steering
from xdpipe.stages import Headers

class Look(Stage):
    requires = ("payload_len", "src")
    counters = ("n",)
    n = 0
    def process(self, batch: Batch) -> None:
        LOOK

pipeline = Pipeline(Steering("udp", sets={"seen": DropSet(ttl_s=60)}), [Headers(), Look()], TX)
"""


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return an environment; check in the end that nothing is left behind."""
    links = sorted(os.listdir("/sys/class/net"))
    yield {**os.environ, "XDPIPE_RUN_DIR": str(tmp_path / "run")}
    assert sorted(os.listdir("/sys/class/net")) == links
    assert not list((tmp_path / "run").glob("*/control.sock"))


def capture(path: Path, packets: list[Packet]) -> Path:
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 1000
    wrpcap(str(path), packets)
    return path


def recorded(file: str | Path, pcap: Path, env: dict[str, str], *args: str) -> list[str]:
    """Record what a pipeline makes of a capture; return the command that compares it, live."""
    expect = pcap.with_suffix(".json")
    subprocess.run(
        [*VERIFY, str(file), "--pcap", str(pcap), "--record", str(expect), *args],
        check=True, capture_output=True, env=env,
    )  # fmt: skip
    return [*VERIFY, str(file), "--pcap", str(pcap), "--expect", str(expect), "--live", "--json"]


def compared(command: list[str], env: dict[str, str], code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, timeout=60 * PATIENCE
    )
    assert done.returncode == code, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def refused(command: list[str], env: dict[str, str]) -> list[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, timeout=60 * PATIENCE
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()


def queries() -> list[Packet]:
    """Return queries of which 30 clients send three each, with ANY, a response and others."""
    packets: list[Packet] = []
    for i in range(90):
        query = ETHER / IP(src=f"10.53.0.{i % 30}", dst="10.53.1.1") / UDP(sport=2000 + i, dport=53)
        packets.append(query / DNS(id=i, qd=DNSQR(qname=f"host{i}.example.com")))
    packets[7][DNSQR].qtype = "ALL"
    packets[11] = packets[11] / DNSRR(rrname="example.com", rdata="192.0.2.1")
    packets[11][DNS].qr = 1
    packets[20] = ETHER / IP(src="10.53.0.7", dst="10.53.1.1") / TCP(dport=53)
    packets[21] = ETHER / ARP(psrc="10.53.0.7", pdst="10.53.1.1")
    packets[22] = ETHER / IP(src="10.53.0.7", dst="10.53.1.1") / UDP(dport=53) / b"short"
    return packets


def echoes() -> list[Packet]:
    """Return datagrams to echo, with and without tags, and what must not be."""
    ends4 = IP(src="10.1.0.2", dst="10.1.0.1")
    ends6 = IPv6(src="fd01::2", dst="fd01::1")
    packets: list[Packet] = []
    for i in range(40):
        ends = (ends4, ends6)[i % 2]
        tags = (b"", Dot1Q(vlan=7), Dot1Q(vlan=7) / Dot1Q(vlan=8))[i % 3]
        head = ETHER / tags / ends if tags else ETHER / ends
        packets.append(head / UDP(sport=4000 + i, dport=7) / bytes(range(i * 5)))
    packets[3][UDP].sport = 7
    packets[6] = ETHER / ends4 / UDP(sport=9, dport=9)
    packets[9] = ETHER / ends4 / TCP(sport=7, dport=7)
    return packets


def between_networks() -> list[Packet]:
    """Return what comes to a NAT from inside: connections, ARP, an ICMP error, other networks."""
    packets: list[Packet] = []
    for i in range(60):
        ends = IP(src=f"10.1.0.{i}", dst=("10.1.0.1", "203.0.113.9", "10.9.9.9")[i % 3])
        packets.append(ETHER / ends / (TCP(sport=i + 1, dport=22) if i % 2 else UDP(sport=i + 1)))
    packets[5] = ETHER / ARP(psrc="10.1.0.2", pdst="10.1.0.1")
    quoted = IP(src="203.0.113.9", dst="10.1.0.2") / UDP(sport=53, dport=4000)
    packets[8] = ETHER / IP(src="10.1.0.2", dst="203.0.113.9") / ICMP(type=3, code=3) / quoted
    return packets


def mixed() -> list[Packet]:
    return [*queries(), *echoes(), *between_networks()]


@pytest.mark.parametrize(
    ("example", "packets", "verdicts"),
    [
        ("dns_guard.py", queries, {"DROP": 3, "NOT_TAKEN": 2, "TX": 85}),
        ("udp_echo.py", echoes, {"DROP": 1, "NOT_TAKEN": 15, "TX": 24}),
        ("one_to_one_nat.py", between_networks, {"FORWARD outside": 60}),
        ("inline_filter.py", mixed, {"FORWARD outside": 190}),
        ("source_limit.py", mixed, {"NOT_TAKEN": 28, "PASS": 162}),
        ("top_talkers.py", mixed, {"DROP": 190}),
        (None, mixed, None),
    ],
)
def test_a_pipeline_that_runs_does_what_it_does_over_a_capture(
    tmp_path: Path, env: dict[str, str], example: str | None, packets: Any,
    verdicts: dict[str, int] | None,
) -> None:  # fmt: skip
    file = EXAMPLES / example if example else tmp_path / "mix.py"
    if not example:
        file.write_text(MIX)
    pcap = capture(tmp_path / "some.pcap", packets())
    result = compared(recorded(file, pcap, env), env)
    totals = result["verdicts"]["recorded"]
    if verdicts is None:
        assert set(totals) == {"DROP", "TX", "PASS", "NOT_TAKEN"}
        assert min(totals.values()) > 1
    else:
        assert totals == verdicts
    live = result["live"]
    assert result["equal"] is live["equal"] is True
    assert live["compared"] == len(packets())
    assert (live["different"], live["counters"], live["unsent"]) == (0, [], [])
    assert sum(live["verdicts"]["now"].values()) == len(packets())
    assert live["verdicts"]["now"] == live["verdicts"]["recorded"]


def test_the_port_that_packets_come_by_is_the_recorded_one(
    tmp_path: Path, env: dict[str, str]
) -> None:
    pcap = capture(tmp_path / "some.pcap", mixed())
    command = recorded(EXAMPLES / "inline_filter.py", pcap, env, "--port", "outside")
    result = compared(command, env)
    assert result["live"]["equal"] is True
    # in goes UDP from port 53 (two), ARP (two), and what ICMP says of an error
    assert result["live"]["verdicts"]["now"] == {"DROP": 185, "FORWARD": 5}


def test_what_differs_only_where_it_runs_is_named(tmp_path: Path, env: dict[str, str]) -> None:
    """By the clock: the capture is of 2023, and what runs does so later."""
    file = tmp_path / "look.py"
    late = "batch.time_ns > 1_710_000_000 * 10**9"
    file.write_text(
        COUNT.replace("LOOK", f"self.count('n', batch.drop((batch.payload_len == 3) & ({late})))")
    )
    udp = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=6)
    pcap = capture(tmp_path / "some.pcap", [udp / bytes(i % 5) for i in range(20)])
    result = compared(recorded(file, pcap, env), env, code=3)
    assert (result["different"], result["counters"], result["equal"]) == (0, [], False)
    live = result["live"]
    told = [
        (each["number"], each["summary"], each["recorded"], each["now"])
        for each in live["differences"]
    ]
    summary = "10.0.0.1:5 > 10.0.0.2:6 UDP, 45 bytes"
    assert told == [(number, summary, "TX", "DROP") for number in (4, 9, 14, 19)]
    assert live["counters"] == [{"name": "Look.n", "recorded": 0, "now": 4}]


def test_other_bytes_are_named_where_it_runs(tmp_path: Path, env: dict[str, str]) -> None:
    file = tmp_path / "look.py"
    late = "batch.time_ns > 1_710_000_000 * 10**9"
    file.write_text(
        COUNT.replace("LOOK", f"batch.put_u8(42, 0xAA + ({late}), batch.payload_len == 3)")
    )
    udp = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=6)
    pcap = capture(tmp_path / "some.pcap", [udp / bytes(i) for i in range(5)])
    [difference] = compared(recorded(file, pcap, env), env, code=3)["live"]["differences"]
    assert (difference["number"], difference["byte"]) == (4, 42)
    assert difference["rewriting"] == "byte 42: aa0000, now ab0000"


def test_checksums_that_are_filled_in_as_packets_leave_are_no_difference(
    tmp_path: Path, env: dict[str, str]
) -> None:
    file = tmp_path / "look.py"
    fill = "batch.put_u8(42, 7); self.count('n', batch.fill_checksum(batch.payload_len > 2))"
    file.write_text(COUNT.replace("LOOK", fill))
    udp = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=6)
    pcap = capture(tmp_path / "some.pcap", [udp / bytes(i) for i in range(50)])
    result = compared(recorded(file, pcap, env), env)
    assert result["live"]["equal"] is True


def test_packets_that_cannot_be_sent_are_no_difference(tmp_path: Path, env: dict[str, str]) -> None:
    """What stages remember is another thing without them: each packet's verdict, by the length."""
    file = tmp_path / "look.py"
    remember = "\n            ".join(
        [
            "for i in range(len(batch)):",
            "self.n += int(batch.payload_len[i])",
            "if self.n % 2: batch.verdict[i] = 1",
            "self.count('n', int(batch.payload_len[i]))",
        ]
    )
    file.write_text(COUNT.replace("LOOK", remember))
    udp = ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="DF") / UDP(sport=5, dport=6)
    sizes = [10, 3, 4001, 20, 2001, 30, 31, 1473]
    packets: list[Packet] = [udp / bytes(size) for size in sizes]
    packets.insert(3, Ether(bytes(ETHER))[0])
    pcap = capture(tmp_path / "some.pcap", packets)
    data = bytearray(pcap.read_bytes())
    pcap.write_bytes(data + (1).to_bytes(4, "little") + bytes(4) + b"\x05\0\0\0" * 2 + b"short")
    result = compared(recorded(file, pcap, env), env)
    live = result["live"]
    assert live["unsent"] == [
        {"number": 3, "why": "longer than 3014 bytes"},
        {"number": 10, "why": "shorter than 14 bytes"},
    ] or live["unsent"] == [
        {"number": 10, "why": "shorter than 14 bytes"},
        {"number": 3, "why": "longer than 3014 bytes"},
    ]
    assert (live["compared"], live["different"], live["counters"]) == (8, 0, [])
    assert result["verdicts"]["now"] != live["verdicts"]["now"]
    shown = subprocess.run(command_shown(recorded(file, pcap, env)), capture_output=True,
                           text=True, env=env, check=True)  # fmt: skip
    assert "not sent: 1 packets, longer than 3014 bytes: 3\n" in shown.stdout


def command_shown(command: list[str]) -> list[str]:
    return [word for word in command if word != "--json"]


def test_what_a_set_in_the_kernel_decides_is_told(tmp_path: Path, env: dict[str, str]) -> None:
    file = tmp_path / "look.py"
    file.write_text(COUNT.replace("LOOK", "self.sets['seen'].add(batch.src[:1])"))
    pcap = tmp_path / "some.pcap"
    numbered_flows(pcap, 20_000, 1, dport=9)
    result = compared(recorded(file, pcap, env), env, code=3)
    live = result["live"]
    assert live["by_sets"] == live["different"] == live["verdicts"]["now"]["NOT_TAKEN"] > 0
    assert live["verdicts"]["now"]["TX"] > 0
    assert len(live["differences"]) == 20


def test_a_burst_of_all_that_goes_is_not_lost(tmp_path: Path, env: dict[str, str]) -> None:
    pcap = tmp_path / "some.pcap"
    numbered_flows(pcap, 20_000, 50, dport=7)
    live = compared(recorded(EXAMPLES / "udp_echo.py", pcap, env), env)["live"]
    assert live["verdicts"]["now"] == {"TX": 20_000}
    assert live["equal"] is True


def test_what_differs_over_the_capture_is_not_run(tmp_path: Path, env: dict[str, str]) -> None:
    file = tmp_path / "mix.py"
    file.write_text(MIX)
    command = recorded(file, capture(tmp_path / "some.pcap", mixed()), env)
    file.write_text(MIX.replace("% 3 == 1", "% 3 == 2"))
    result = compared(command, env, code=3)
    assert result["live"] is None
    assert result["different"] > 0


def test_a_worker_that_dies_is_told(tmp_path: Path, env: dict[str, str]) -> None:
    file, marker = tmp_path / "look.py", tmp_path / "recorded"
    die = f"import os; os.path.exists({str(marker)!r}) and os.getuid() and os._exit(9)"
    file.write_text(COUNT.replace("LOOK", die))
    udp = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=6)
    command = recorded(file, capture(tmp_path / "some.pcap", [udp] * 5), env)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o005:
            parent.chmod(0o755)  # so that a worker, which is nobody, finds it
    marker.touch()
    *_, line = refused(command, env)
    assert "its worker died" in line


def test_a_pipeline_that_does_not_start_is_told(tmp_path: Path, env: dict[str, str]) -> None:
    file = tmp_path / "look.py"
    file.write_text(COUNT.replace("LOOK", "pass"))
    udp = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=6)
    command = recorded(file, capture(tmp_path / "some.pcap", [udp]), env)
    file.write_text(
        "import sys\nif 'xdpipe.worker' in sys.modules or 'worker' in sys.argv[0]:\n"
        "    raise KeyError('only where it runs')\n" + file.read_text()
    )
    [line] = refused(command, env)
    assert "KeyError: 'only where it runs'" in line


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_interrupted_it_leaves_nothing_behind(
    tmp_path: Path, env: dict[str, str], number: signal.Signals
) -> None:
    file = tmp_path / "look.py"
    file.write_text(
        COUNT.replace("LOOK", "import os, time; os.getuid() and time.sleep(0.05)")
    )  # the worker, which is nobody, is slow
    pcap = tmp_path / "some.pcap"
    numbered_flows(pcap, 200_000, 50, dport=7)
    command = recorded(file, pcap, env)
    popen = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    run_dir = tmp_path / "run"
    until(lambda: list(run_dir.glob("*/control.sock")), "the pipeline runs")
    until(lambda: family(popen.pid), "its worker runs")
    processes = family(popen.pid)
    popen.send_signal(number)
    out, err = popen.communicate(timeout=30)
    until(lambda: not any(running(pid) for pid in processes), "all its processes end")
    assert out == ""
    if number is signal.SIGKILL:
        assert popen.returncode == -signal.SIGKILL
        for socket in run_dir.glob("*/control.sock"):
            socket.unlink()  # which `xdpipe down` would do
    else:
        assert popen.returncode == 1
        assert err.strip().splitlines()[-1] == ("xdpipe: interrupted before everything was sent")
