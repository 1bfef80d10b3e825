"""`xdpipe replay --to`: sent by one interface, measured at another, a known link in between."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import PIPELINES, Crossing, close, pps
from traffic import numbered_flows
from xdpipe.netns import Namespace, VethEnd, veth_pair

N = 5000


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Crossing]:
    """A client with both ends, `c0` and `f0`, and a host between them that links the two."""
    bench = Crossing(Namespace(), Namespace(), tmp_path / "run", devs=("inside=m0", "outside=m1"))
    for middle, end in (("m0", "c0"), ("m1", "f0")):
        veth_pair(VethEnd(middle, bench.host), VethEnd(end, bench.client), n_queues=1)
    yield bench
    close(bench)
    bench.far.close()


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "flows.pcap"
    numbered_flows(path, N, 20, dport=9)
    return path


def measured(lab: Crossing, capture: Path, *args: str) -> dict[str, Any]:
    done = lab.xdpipe(
        "replay", str(capture), "--dev", "c0", "--to", "f0", "--json", *args, where=lab.client
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("engine", ["xdp", "live", "socket"])
def test_what_a_link_loses_is_told_to_the_packet(lab: Crossing, capture: Path, engine: str) -> None:
    link = lab.run(PIPELINES / "lossy_link.py")
    told = measured(lab, capture, "--engine", engine, "--pps", pps(10_000), "--loop", "2")
    measurement = told["measurement"]
    assert (told["engine"], told["sent"], told["stamped"]) == (engine, 2 * N, 2 * N)
    assert (measurement["sent"], measurement["received"]) == (2 * N, 2 * N * 9 // 10)
    assert measurement["lost_share"] == 0.1
    assert (measurement["duplicates"], measurement["reordered"]) == (0, 0)
    assert measurement["receiver_dropped"] == 0
    assert link.end()["ledger"]["verdicts"]["DROP"] == 2 * N // 10


def test_a_few_packets_that_are_sent_again_and_again_are_told_apart(
    lab: Crossing, tmp_path: Path
) -> None:
    """Each has a number of its own though its bytes lie in one place."""
    path = tmp_path / "three.pcap"
    numbered_flows(path, 3, 3, dport=9)
    lab.run(PIPELINES / "lossy_link.py")
    told = measured(lab, path, "--pps", pps(50_000), "--engine", "xdp", "--loop", "1000")
    assert told["stamped"] == 3000
    assert told["measurement"]["received"] == 2700
    assert told["measurement"]["duplicates"] == 0


def test_what_has_no_room_for_a_stamp_is_sent_without(lab: Crossing, tmp_path: Path) -> None:
    path = tmp_path / "short.pcap"
    numbered_flows(path, 100, 20, dport=9, pad=9)
    told = measured(lab, path, "--pps", "10000")
    assert (told["sent"], told["stamped"]) == (100, 0)
    assert told["measurement"]["received"] == 0


def test_where_nothing_comes_all_is_lost(lab: Crossing, capture: Path) -> None:
    told = measured(lab, capture, "--pps", "50000")  # nobody links the two
    assert told["measurement"]["received"] == 0
    assert (told["measurement"]["sent"], told["measurement"]["lost"]) == (N, N)


@pytest.mark.alone
def test_a_search_ends_with_a_rate_at_which_nothing_was_lost(lab: Crossing, capture: Path) -> None:
    """The link takes all but a tenth at any rate: none is without loss, any is with a fifth."""
    lab.run(PIPELINES / "lossy_link.py")
    rate = pps(4000)
    args = ("--search-rate", "--duration", "0.2", "--least-pps", rate, "--most-pps", rate)
    search = measured(lab, capture, *args)["search"]
    assert search["pps"] is None
    assert [trial["lost"] > 0 for trial in search["trials"]] == [True]
    search = measured(lab, capture, *args, "--acceptable-loss", "0.2")["search"]
    assert search["limited_by"] == "range"
    assert search["pps"] == pytest.approx(int(rate), rel=0.05)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--report", "x.html"], "--report takes --to DEV"),
        (["--search-rate"], "--search-rate takes --to DEV"),
        (["--to", "f0", "--search-rate", "--pps", "9"], "--search-rate chooses the pace"),
        (["--to", "nosuch"], "nosuch: no such interface"),
    ],
)
def test_what_cannot_be_is_told(lab: Crossing, capture: Path, args: list[str], told: str) -> None:
    done = lab.xdpipe("replay", str(capture), "--dev", "c0", *args, where=lab.client)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
