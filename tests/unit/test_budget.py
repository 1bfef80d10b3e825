"""Batches for which a stage took longer than its budget are counted, and the stage is named."""

import io
import json
import math
import mmap
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xdpipe import Batch, Pipeline, Stage, view
from xdpipe.chain import Chain, ChainError
from xdpipe.core._core import lib
from xdpipe.counters import CountersPage
from xdpipe.pipeline import load_pipeline
from xdpipe.stage import BUDGET_US, NO_BUDGET_NS
from xdpipe.stage_info import StageInfo
from xdpipe.stages import Headers, SwapAddresses

PACKET = bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
               / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2))  # fmt: skip
LONG_S = 0.03
NEVER_US = 3.6e9
"""No batch takes an hour."""


class Array(Stage):
    def process(self, batch: Batch) -> None:
        """Do nothing."""


class Sleepy(Stage):
    """Takes long for the batches that it is told to."""

    def __init__(self, *long: bool) -> None:
        self.long = list(long)

    def process(self, batch: Batch) -> None:
        if self.long.pop(0):
            time.sleep(LONG_S)


class Raises(Stage):
    def process(self, batch: Batch) -> None:
        raise ValueError


def chain_of(*stages: Stage, budget_us: float = BUDGET_US) -> Chain:
    batch = Batch(mmap.mmap(-1, 65536), 16)
    batch.load([PACKET] * 3)
    return Chain(stages, batch, on_error=lambda *_: None, budget_us=budget_us)


def counted(chain: Chain) -> list[tuple[str, int]]:
    return [(stage["name"], stage["over_budget"]) for stage in chain.read_counts()]


def test_every_batch_is_over_a_budget_of_0_and_none_over_one_of_an_hour() -> None:
    for budget_us, n in ((0, 5), (NEVER_US, 0), (math.inf, 0)):
        chain = chain_of(Headers(), Array(), SwapAddresses(), budget_us=budget_us)
        for _ in range(5):
            chain.run()
        names = ("Headers", "Array", "SwapAddresses")
        assert counted(chain) == [(name, n) for name in names], budget_us


def test_the_leading_native_stages_of_a_worker_are_counted_in_the_core() -> None:
    chain = chain_of(Headers(), SwapAddresses(), Array(), budget_us=0)
    for _ in range(4):
        lib.xp_run_stages(chain.batch.c, chain.c_stages, chain.n_lead)
    assert counted(chain) == [("Headers", 4), ("SwapAddresses", 4), ("Array", 0)]


def test_a_stages_own_budget_goes_before_the_pipelines() -> None:
    headers, swap, lazy = Headers(), SwapAddresses(), Array()
    headers.budget_us = NEVER_US
    lazy.budget_us = math.inf
    chain = chain_of(headers, lazy, swap, budget_us=0)
    chain.run()
    assert counted(chain) == [("Headers", 0), ("Array", 0), ("SwapAddresses", 1)]
    told = [stage["budget_us"] for stage in chain.read_counts()]
    assert told == [NEVER_US, None, 0.0]


def test_batches_that_took_long_are_counted_and_the_longest_is_kept() -> None:
    chain = chain_of(Headers(), Sleepy(True, False, True, False), budget_us=LONG_S / 3 * 1e6)
    longest = []
    for _ in range(4):
        chain.run()
        longest.append(chain.read_counts()[1]["max_ns"])
    [headers, sleepy] = chain.read_counts()
    assert sleepy["over_budget"] >= 2  # a machine that stands still makes a quick batch a long one
    assert LONG_S * 1e9 <= longest[0] <= longest[1] <= longest[2] <= longest[3] == sleepy["max_ns"]
    assert sleepy["max_ns"] <= sleepy["ns"]
    assert 0 < headers["max_ns"] <= headers["ns"]


def test_the_longest_batch_of_all_native_stages_is_their_time_when_there_is_one() -> None:
    chain = chain_of(Headers(), SwapAddresses())
    chain.run()
    for stage in chain.read_counts():
        assert stage["max_ns"] == stage["ns"] > 0


def test_a_batch_in_which_a_stage_raises_counts_as_well() -> None:
    chain = chain_of(Raises(), budget_us=0)
    chain.run()
    [stage] = chain.read_counts()
    assert (stage["errors"], stage["over_budget"], stage["packets"]) == (1, 1, 3)


def test_the_budget_of_a_pipeline_is_10_ms_unless_it_says_otherwise() -> None:
    native = Headers()
    pipeline = Pipeline("udp", [Headers(), Array()])
    assert [info.budget_us for info in pipeline.infos] == [BUDGET_US] * 2 == [10_000.0] * 2
    native.budget_us = 0.25  # parts of a microsecond
    pipeline = Pipeline("udp", [native, Array()], budget_us=7)
    assert [info.budget_us for info in pipeline.infos] == [0.25, 7.0]
    assert [info.budget_ns for info in pipeline.infos] == [250, 7000]


@pytest.mark.parametrize("budget_us", [-1, math.nan, "10", True, (5,)])
def test_a_budget_that_is_none_is_told(budget_us: object) -> None:
    with pytest.raises(ChainError, match=r"pipeline: budget_us=.*: microseconds for a batch"):
        Pipeline("udp", [Headers()], budget_us=budget_us)  # type: ignore[arg-type]
    stage = Array()
    stage.budget_us = budget_us  # type: ignore[assignment]
    with pytest.raises(ChainError, match="stage Array: budget_us="):
        Pipeline("udp", [stage])


@pytest.mark.parametrize("budget_us", [0.0, 1.5, 1e30, math.inf])
def test_a_budget_crosses_to_the_supervisor(budget_us: float) -> None:
    info = StageInfo("Array", False, ("a",), None, budget_us)
    assert StageInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info
    assert info.budget_ns <= NO_BUDGET_NS
    page = CountersPage([info])
    page.stage_counts[lib.XP_STAGE_OVER_BUDGET] = 3
    page.stage_counts[lib.XP_STAGE_MAX_NS] = 1234
    page.stage_counts[lib.XP_STAGE_OWN] = 9
    [stage] = page.read_stages()
    page.close()
    assert (stage["over_budget"], stage["max_ns"], stage["counters"]) == (3, 1234, {"a": 9})
    json.dumps(stage, allow_nan=False)


PIPELINE = """
import math, time
from xdpipe import Pipeline, Stage, TX
from xdpipe.stages import Headers

class Sleepy(Stage):
    def process(self, batch):
        time.sleep(0.03)

headers = Headers()
headers.budget_us = math.inf
pipeline = Pipeline("udp", [headers, Sleepy()], default=TX, budget_us=1000)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sleepy.py"
    path.write_text(PIPELINE)
    return path


def test_the_command_line_says_another_budget(file: Path, tmp_path: Path) -> None:
    assert load_pipeline(file).budget_us == 1000
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), [PACKET])
    said = []
    for options in ([], ["--budget-us", "3600000000"]):
        done = subprocess.run(
            [sys.executable, "-m", "xdpipe", "check", str(file), "--pcap", str(capture),
             "--json", *options],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        sleepy = json.loads(done.stdout)["stages"][1]
        said.append((sleepy["budget_us"], sleepy["over_budget"]))
    assert said == [(1000.0, 1), (3.6e9, 0)]


def test_check_names_the_stage(file: Path, tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), [PACKET])
    done = subprocess.run(
        [sys.executable, "-m", "xdpipe", "check", str(file), "--pcap", str(capture)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    text = " ".join(done.stdout.split())
    assert "Sleepy was over its budget of 1 ms in 1 batch, at the longest " in text
    assert "Headers was" not in text


def drawn(*stages: view.Status) -> str:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(view.stages_table(list(stages)), *view.over_budget(list(stages)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def status(name: str, **values: object) -> view.Status:
    return {
        "name": name, "kind": "array", "packets": 231_900, "ns": 10**9, "errors": 0,
        "over_budget": 0, "max_ns": 999_900, "budget_us": 10_000.0, "counters": {}, **values,
    }  # fmt: skip


def test_the_table_of_stages_has_a_column_for_batches_over_budget_where_there_are_some() -> None:
    quick, slow = status("Quick"), status("Slow", over_budget=1200, max_ns=48_300_000)
    headings = "stage kind packets ns/pkt longest errors counters"
    assert drawn(quick).splitlines()[1].split() == headings.split()
    text = drawn(quick, slow)
    assert text.splitlines()[1].split() == headings.replace("errors", "over errors").split()
    assert "…" not in text, text
    assert "Slow was over its budget of 10 ms in 1,200 batches, at the longest 48.3 ms" in text
    assert "Quick was" not in text


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (870, "870 ns"), (4_160, "4.2 µs"), (48_300_000, "48.3 ms"), (250e6, "250 ms"),
     (10_000_000, "10 ms"), (1.23e9, "1.2 s")],
)  # fmt: skip
def test_times_are_short_to_read(ns: float, text: str) -> None:
    assert view.duration(ns) == text
