"""`xdpipe check` as a user runs it: verdicts, counters, packets written out, odd files."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap, wrpcap

from xdpipe.pipeline import load_pipeline

PIPELINE = """
from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers

class DropOdd(Stage):
    requires = ("l4_sport",)
    counters = ("odd",)
    def process(self, batch: Batch) -> None:
        self.count("odd", batch.drop(batch.l4_sport % 2 == 1))
    def report(self):
        return {"seen": {"an": "example"}}

pipeline = Pipeline(Steering("udp dst port 9"), [Headers(), DropOdd()], default=TX)
"""


def packets(n: int, dport: int = 9) -> list[bytes]:
    return [
        bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
              / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000 + i, dport=dport) / b"payload")
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    path = tmp_path / "drop_odd.py"
    path.write_text(PIPELINE)
    return str(path)


def xdpipe_check(*args: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "xdpipe", "check", *map(str, args)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def checked(*args: str | Path) -> dict[str, object]:
    done = xdpipe_check(*args, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def refused(*args: str | Path) -> str:
    done = xdpipe_check(*args)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    [line] = done.stderr.strip().splitlines()
    return line


def test_verdicts_counters_and_reports_are_told(pipeline: str, tmp_path: Path) -> None:
    capture = tmp_path / "ten.pcap"
    wrpcap(str(capture), packets(1001))
    result = checked(pipeline, "--pcap", capture, "--batch", "64")
    assert result["packets"] == 1001
    assert result["verdicts"] == {"DROP": 500, "TX": 501, "PASS": 0, "FORWARD": 0, "INVALID": 0}
    assert result["link_type"] == "EN10MB"
    assert result["truncated"] is None
    headers, drop_odd = result["stages"]
    assert headers["counters"]["udp"] == headers["packets"] == drop_odd["packets"] == 1001
    assert drop_odd["counters"] == {"odd": 500}
    assert drop_odd["reports"] == [{"seen": {"an": "example"}}]
    assert (headers["kind"], drop_odd["kind"]) == ("native", "array")


def test_packets_are_written_by_verdict(pipeline: str, tmp_path: Path) -> None:
    capture, dropped, sent = (tmp_path / name for name in ("all.pcap", "drop.pcap", "tx.pcap"))
    all_packets = packets(10)
    wrpcap(str(capture), all_packets)
    checked(pipeline, "--pcap", capture, "--write", f"DROP={dropped}", "--write", f"TX={sent}")
    assert [bytes(p) for p in rdpcap(str(dropped))] == all_packets[1::2]
    assert [bytes(p) for p in rdpcap(str(sent))] == all_packets[0::2]


def test_steer_leaves_out_what_the_filter_does_not_take(pipeline: str, tmp_path: Path) -> None:
    capture = tmp_path / "mixed.pcap"
    wrpcap(str(capture), packets(10) + packets(7, dport=10))
    result = checked(pipeline, "--pcap", capture, "--steer")
    assert (result["packets"], result["not_taken"]) == (17, 7)
    assert result["verdicts"] == {"DROP": 5, "TX": 5, "PASS": 0, "FORWARD": 0, "INVALID": 0}


def test_stages_see_no_batch_of_which_nothing_is_left(tmp_path: Path) -> None:
    file = tmp_path / "last.py"
    file.write_text(
        "from xdpipe import DROP, Pipeline, Stage, Steering\n"
        "class Last(Stage):\n"
        "    requires = ('time_ns',)\n"
        "    counters = ('seen',)\n"
        "    def process(self, batch):\n"
        "        self.count('seen', int(batch.time_ns[-1] > 0))\n"
        "pipeline = Pipeline(Steering('udp dst port 9'), [Last()], default=DROP)\n"
    )
    capture = tmp_path / "others.pcap"
    wrpcap(str(capture), packets(7, dport=10) + packets(1))
    result = checked(str(file), "--pcap", capture, "--steer", "--batch", "4")
    assert (result["packets"], result["not_taken"]) == (8, 7)
    assert result["stages"][0]["errors"] == 0
    assert result["stages"][0]["counters"] == {"seen": 1}


def test_a_gzipped_capture_is_read(pipeline: str, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.pcap", tmp_path / "a.pcap.gz"
    wrpcap(str(plain), packets(10))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert checked(pipeline, "--pcap", packed)["packets"] == 10


def test_a_truncated_capture_gives_what_was_whole_and_says_where_it_ends(
    pipeline: str, tmp_path: Path
) -> None:
    capture = tmp_path / "cut.pcap"
    wrpcap(str(capture), packets(10))
    size = 16 + len(packets(1)[0])
    capture.write_bytes(capture.read_bytes()[: 24 + 7 * size + 20])
    result = checked(pipeline, "--pcap", capture)
    assert result["packets"] == 7
    truncated = result["truncated"]
    assert truncated["after_packets"] == 7
    assert "truncated" in truncated["reason"]
    told = xdpipe_check(pipeline, "--pcap", capture)
    assert "the file ends early: after packet 7" in " ".join(told.stdout.split())


def test_another_link_type_is_named(pipeline: str, tmp_path: Path) -> None:
    capture = tmp_path / "raw.pcap"
    capture.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
    line = refused(pipeline, "--pcap", capture)
    assert "link type RAW" in line
    assert "Ethernet" in line


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"", ""), (b"not a capture at all", "")]
)
def test_what_is_no_capture_is_told(
    pipeline: str, tmp_path: Path, content: bytes | None, message: str
) -> None:
    capture = tmp_path / "odd.pcap"
    if content is not None:
        capture.write_bytes(content)
    line = refused(pipeline, "--pcap", capture)
    assert "odd.pcap" in line
    assert message in line


@pytest.mark.parametrize("write", ["DROP", "BACK=x.pcap", "DROP="])
def test_a_write_that_makes_no_sense_is_told(pipeline: str, tmp_path: Path, write: str) -> None:
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), packets(1))
    assert "say VERDICT=FILE" in refused(pipeline, "--pcap", capture, "--write", write)


def test_it_does_not_write_over_what_it_reads(pipeline: str, tmp_path: Path) -> None:
    capture, out = tmp_path / "a.pcap", tmp_path / "out.pcap"
    wrpcap(str(capture), packets(10))
    before = capture.read_bytes()
    line = refused(pipeline, "--pcap", capture, "--write", f"DROP={tmp_path}/./a.pcap")
    assert "that is the capture itself; name another file" in line
    assert capture.read_bytes() == before
    both = ("--write", f"DROP={out}", "--write", f"TX={out}")
    assert f"that is DROP={out}" in refused(pipeline, "--pcap", capture, *both)


def test_what_the_file_prints_does_not_spoil_json(tmp_path: Path) -> None:
    file, capture = tmp_path / "prints.py", tmp_path / "a.pcap"
    file.write_text(
        "print('at import')\n" + PIPELINE.replace("self.count", "print('x'); self.count")
    )
    wrpcap(str(capture), packets(10))
    assert checked(file, "--pcap", capture)["packets"] == 10


def test_a_report_may_hold_numpy_and_tells_what_it_may_not(tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), packets(10))
    for report, told in (
        ("{'n': __import__('numpy').int64(3)}", {"n": 3}),
        ("{(1, 2): 3}", "TypeError"),
        ("{'n': float('nan')}", "ValueError"),
    ):
        file = tmp_path / "reports.py"
        file.write_text(PIPELINE.replace('{"seen": {"an": "example"}}', report))
        [got] = checked(file, "--pcap", capture)["stages"][1]["reports"]
        assert got == told if isinstance(told, dict) else told in got["error"]


def test_it_needs_no_privilege(pipeline: str, tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), packets(3))
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", sys.executable,
         "-m", "xdpipe", "check", pipeline, "--pcap", str(capture), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["packets"] == 3


def test_files_loaded_again_and_again_leave_the_search_path_as_long(
    pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    load_pipeline(pipeline)
    first = [*sys.path]
    assert first[0] == str(Path(pipeline).parent)
    load_pipeline(pipeline)
    assert sys.path == first
