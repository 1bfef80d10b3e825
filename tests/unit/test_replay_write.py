"""`xdpipe replay -w`: no link, the capture as the edits leave it, and every packet counted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from test_capture_source import SECOND, capture

from xdpipe.capture import CaptureReader
from xdpipe.cli import main

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
XDPIPE = [sys.executable, "-P", "-m", "xdpipe"]


def packet(i: int, size: int = 20, **ip: Any) -> Any:
    ends = {"src": f"10.1.2.{i}", "dst": "10.9.9.9"} | ip
    return Ether(**MACS) / IP(**ends) / UDP(sport=1000 + i, dport=80) / bytes(size)


def write(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["replay", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def packets_of(path: Path) -> list[tuple[int, bytes]]:
    with CaptureReader(path) as reader:
        return [(each.time_ns, each.data) for each in reader]


def test_all_edits_at_once_in_their_order(tmp_path: Path) -> None:
    tcp = Ether(**MACS) / IP(src="10.1.2.3", dst="10.9.9.9") / TCP(sport=80, dport=1003)
    given = [packet(1), packet(2, 2000), tcp, packet(4, dst="172.16.0.1")]
    given[0][UDP].chksum = 0x1234
    path = capture(tmp_path / "a.pcap", list(map(raw, given)))
    out = tmp_path / "out.pcap"
    result = write(
        str(path), "-w", str(out), "--filter", "net 10.0.0.0/8 and not tcp", "--vlan", "7:3",
        "--map-ip", "10.0.0.0/8=192.168.0.0/16", "--map-mac", f"{MACS['dst']}=02:00:00:00:00:aa",
        "--map-port", "80-89=8080-8089", "--map-port", "1001=9", "--mtu", "1000", "--truncate",
        "--fix-checksums",
    )  # fmt: skip
    assert result == {
        "capture": str(path), "file": str(out), "read": 4, "added": 0, "written": 3,
        "left_out": {"filter": 1, "too_long": 0}, "truncated": None, "interrupted": False,
    }  # fmt: skip

    def expected(i: int, size: int, sport: int, dst: str) -> bytes:
        ether = Ether(src=MACS["src"], dst="02:00:00:00:00:aa")
        ip = IP(src=f"192.168.2.{i}", dst=dst)
        return raw(ether / Dot1Q(vlan=7, prio=3) / ip / UDP(sport=sport, dport=8080) / bytes(size))

    assert packets_of(out) == [
        (SECOND, expected(1, 20, 9, "192.168.9.9")),
        (SECOND + 1, expected(2, 1000 - 28, 1002, "192.168.9.9")),
        (SECOND + 3, expected(4, 20, 1004, "172.16.0.1")),
    ]


def test_without_edits_it_is_a_copy_and_times_stay_as_they_are(tmp_path: Path) -> None:
    given = [raw(packet(i)) for i in range(5)]
    path = capture(tmp_path / "a.pcap", given, [5, 3, 9, 1, 2])
    out = tmp_path / "out.pcap"
    assert write(str(path), "-w", str(out))["written"] == 5
    assert packets_of(out) == packets_of(path)


def test_what_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    given = [raw(packet(1, size)) for size in (971, 972, 973)]
    path, out = capture(tmp_path / "a.pcap", given), tmp_path / "out.pcap"
    result = write(str(path), "-w", str(out), "--mtu", "1000")
    assert (result["written"], result["left_out"]) == (2, {"too_long": 1})
    assert [data for _, data in packets_of(out)] == given[:2]


def test_a_function_is_one_of_the_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "twice.py"
    file.write_text(
        "from scapy.layers.inet import IP\n\n"
        "def edit(packet):\n"
        "    print('to stderr, not into the JSON')\n"
        "    return [packet, packet] if packet[IP].src == '10.1.2.1' else None\n"
    )
    path = capture(tmp_path / "a.pcap", [raw(packet(i)) for i in range(3)])
    out = tmp_path / "out.pcap"
    done = subprocess.run(
        [*XDPIPE, "replay", str(path), "-w", str(out), "--edit", str(file), "--json",
         "--map-ip", "10.1.2.1=10.1.2.77"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert (result["read"], result["added"], result["written"]) == (3, 1, 2)
    assert result["left_out"] == {"edit": 2}
    assert packets_of(out) == [(SECOND + 1, raw(packet(1, src="10.1.2.77")))] * 2
    assert done.stderr.count("to stderr, not into the JSON") == 3


def test_a_capture_can_go_to_standard_output(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", [raw(packet(1))])
    done = subprocess.run(
        [*XDPIPE, "replay", str(path), "-w", "-"], capture_output=True, check=True
    )
    out = tmp_path / "out.pcap"
    out.write_bytes(done.stdout)
    assert packets_of(out) == packets_of(path)
    assert done.stderr.decode().splitlines() == [f"{path} to -: wrote 1 of 1 packets"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "say where to: --dev DEV or -w FILE"),
        (["-w", "{out}", "--dev", "lo"], 2, "say where to"),
        (["-w", "{out}", "--pps", "5"], 2, "--pps is about sending, and -w sends nothing"),
        (["-w", "{out}", "--top-speed"], 2, "--top-speed is about sending"),
        (["-w", "-", "--json"], 2, "both are for standard output"),
        (["-w", "{out}", "--mtu", "60"], 2, "60 is not in the range"),
        (["-w", "{capture}"], 1, "that is the capture itself; name another file"),
        (["-w", "{out}", "--truncate"], 1, "--truncate: there is no link whose MTU would count"),
        (["-w", "{out}", "--filter", "no filter"], 1, 'filter "no filter": '),
        (["-w", "{out}", "--map-ip", "10.0.0.0/8"], 1, "--map-ip 10.0.0.0/8: write FROM=TO"),
        (["-w", "{out}", "--vlan", "9999"], 1, "--vlan 9999: a VLAN"),
        (["-w", "{out}", "--edit", "/none.py"], 1, "--edit /none.py: no such file"),
        (["-w", "/none/out.pcap"], 1, "/none/out.pcap: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    path, out = capture(tmp_path / "a.pcap", [raw(packet(1))]), tmp_path / "out.pcap"
    before = path.read_bytes()
    done = CliRunner().invoke(
        main, ["replay", str(path), *(word.format(out=out, capture=path) for word in arguments)]
    )
    assert done.exit_code == code
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()
    assert path.read_bytes() == before
