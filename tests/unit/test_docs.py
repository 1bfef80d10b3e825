"""The documentation says what the code does."""

import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xdpipe.check import check
from xdpipe.pipeline import load_pipeline

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
