"""The examples over all captures: no stage raises, every packet ends in a verdict."""

from pathlib import Path

import pytest

from xdpipe.check import check
from xdpipe.errors import XdpipeError
from xdpipe.pipeline import load_pipeline

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_over_every_capture(captures: Path, name: str) -> None:
    n_files = n_packets = 0
    for path in sorted(path for path in captures.rglob("*") if path.is_file()):
        try:
            result = check(load_pipeline(EXAMPLES / name), path)
        except XdpipeError as error:
            assert "link type" in str(error) or path.suffix not in (".pcap", ".pcapng"), error
            continue
        n_files += 1
        n_packets += result["packets"]
        assert sum(result["verdicts"].values()) == result["packets"], path
        assert [stage["errors"] for stage in result["stages"]] == [0] * len(result["stages"]), path
    assert n_files > 300
    assert n_packets > 10_000


def test_the_dns_guard_tells_queries_from_responses(captures: Path) -> None:
    result = check(load_pipeline(EXAMPLES / "dns_guard.py"), captures / "dns-caa.pcap")
    counters = result["stages"][1]["counters"]
    assert (counters["queries"], counters["unasked_response"]) == (1, 1)
    [report] = result["stages"][1]["reports"]
    assert report == {
        "names": {"google.com": 1},
        "types": {"TYPE257": 1},
        "clients": {"192.168.17.58": 1},
    }
