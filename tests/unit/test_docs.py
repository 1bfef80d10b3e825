"""The documentation says what the code does."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.compat import raw
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xdpipe.capture import CaptureReader
from xdpipe.check import check
from xdpipe.pipeline import load_pipeline
from xdpipe.traffic.edit_file import edited

# With both addresses: scapy would ask the network for a missing one.
ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def code_blocks(name: str) -> list[str]:
    parts = (ROOT / name).read_text().split("```python\n")[1:]
    return [part.partition("```")[0] for part in parts]


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_the_pipelines_shown_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where FlowMeter writes
    capture = tmp_path / "some.pcap"
    wrpcap(
        str(capture), [ETHER / IP() / UDP(sport=53, dport=4000) / (b"\x00\x00\x80" + bytes(600))]
    )
    blocks = code_blocks(name)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"shown{number}.py"
        file.write_text(block)
        result = check(load_pipeline(file), capture)
        assert result["packets"] == 1
        assert not any(stage["errors"] for stage in result["stages"])


def stages_shown(tmp_path: Path) -> list[Path]:
    """Write the files that docs/stages.md shows; return the pipelines, in its order."""
    text = (ROOT / "docs/stages.md").read_text()
    files = []
    for place, block in enumerate(text.split("```python\n")[1:]):
        file = tmp_path / f"shown{place}.py"
        file.write_text(block.partition("```")[0])
        files.append(file)
    for name, block in re.findall(r"`(\w+\.c)`:\n\n```c\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(block)
    return files


def runnable(files: list[Path]) -> list[Path]:
    """Return those that this machine can run, which are most."""
    has_numba = importlib.util.find_spec("numba") is not None
    has_compiler = any(map(shutil.which, ("gcc", "cc", "clang")))
    lacking = [file for file in files if "jit_stage" in file.read_text() and not has_numba]
    lacking += [file for file in files if "CStage" in file.read_text() and not has_compiler]
    return [file for file in files if file not in lacking]


def ntp_capture(tmp_path: Path) -> Path:
    """Return a capture of NTP, of which 5 packets ask for monlist; and one of another protocol."""
    requests = [
        b"\x17\x00\x03\x2a",
        b"\x27\x00\x03\x2a\x00",
        b"\x17\x00\x03\x2b",
        b"\x17\x00\x03",
        b"",
    ]
    packets = [
        ETHER
        / IP(src=f"10.0.0.{k}", ttl=3, dst="10.0.0.2")
        / UDP(sport=9, dport=123)
        / (request + bytes(k))
        for k in range(5)
        for request in requests[: 1 + k]
    ]
    path = tmp_path / "ntp.pcap"
    wrpcap(str(path), [*packets, ETHER / IP() / ICMP()])
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))


def test_the_stages_shown_run(tmp_path: Path, cache: None) -> None:
    capture = ntp_capture(tmp_path)
    files = stages_shown(tmp_path)
    assert len(files) == 7
    for file in runnable(files):
        result = check(load_pipeline(file), capture)
        assert result["packets"] == 16
        assert sum(stage["errors"] for stage in result["stages"]) == 0, file.read_text()
        assert not any("error" in report for s in result["stages"] for report in s["reports"])


def test_one_and_the_same_stage_is_shown_in_four_kinds(tmp_path: Path, cache: None) -> None:
    capture = ntp_capture(tmp_path)
    files = [file for file in stages_shown(tmp_path) if "monlist requests" in file.read_text()]
    assert len(files) == 4
    results = [check(load_pipeline(file), capture) for file in runnable(files)]
    kinds = [result["stages"][1]["kind"] for result in results]
    assert kinds == [kind for kind in ("array", "packet", "jit", "c") if kind in kinds]
    assert {"array", "packet"} <= set(kinds)
    for result in results:
        assert result["stages"][1]["counters"] == {"monlist": 9}
        assert result["verdicts"] == {"DROP": 9, "TX": 0, "PASS": 7, "FORWARD": 0, "INVALID": 0}


def test_what_the_other_stages_shown_find(tmp_path: Path, cache: None) -> None:
    capture = ntp_capture(tmp_path)
    found = {}
    for file in runnable(stages_shown(tmp_path)):
        result = check(load_pipeline(file), capture)
        found[file.read_text().partition("\n")[0]] = result["stages"][-1]
    [scored] = [stage for text, stage in found.items() if "a score" in text]
    assert scored["counters"] == {"suspect": 0}
    [ttl] = [stage for text, stage in found.items() if "time to live" in text]
    assert ttl["counters"] == {"changed": 15}
    asked = [stage for text, stage in found.items() if "20 times" in text]
    for stage in asked:  # none without numba
        assert stage["reports"] == [{"busiest": 5}]


def test_the_guide_says_what_its_stage_counts(tmp_path: Path) -> None:
    sizes = (3, 512, 513, 1400)
    capture = tmp_path / "some.pcap"
    packets = [
        ETHER / IP() / UDP(sport=53, dport=4000) / (b"\x00\x00\x80" + bytes(size - 3))
        for size in sizes
    ]
    wrpcap(str(capture), packets)
    file = tmp_path / "quiet.py"
    file.write_text(code_blocks("docs/guide.md")[0])
    result = check(load_pipeline(file), capture)
    assert result["stages"][1]["counters"] == {"large": 2, "small": 2}
    assert result["verdicts"] == {"DROP": 2, "TX": 2, "PASS": 0, "FORWARD": 0, "INVALID": 0}


def test_the_edit_that_the_guide_shows_does_what_it_says(tmp_path: Path, cache: None) -> None:
    [block] = re.findall(r"```py\n(.*?)```", (ROOT / "docs/guide.md").read_text(), re.DOTALL)
    file = tmp_path / "twice.py"
    file.write_text(block)
    question = DNS(id=7, qd=DNSQR(qname="www.example.com"))
    answer = DNS(id=7, qr=1, qd=DNSQR(qname="www.example.com"))
    ends = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=53, dport=53)
    capture = tmp_path / "dns.pcap"
    wrpcap(str(capture), [ends / question, ends / answer, ETHER / IP(dst="10.0.0.2") / ICMP()])
    with edited(capture, file) as made, CaptureReader(made.path) as reader:
        packets = [packet.data for packet in reader]
    assert (made.read, made.removed, made.added) == (3, 2, 1)
    other = DNS(id=7, qd=DNSQR(qname="WWW.EXAMPLE.COM"))
    assert packets == [raw(ends / question), raw(ends / other)]
