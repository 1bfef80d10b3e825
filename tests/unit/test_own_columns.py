"""Columns that users' stages declare: where they are, what they hold, and what they cannot be."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xdpipe import DROP, Batch, PacketStage, Pipeline, Stage, XdpipeError
from xdpipe.chain import Chain, ChainError, describe
from xdpipe.check import check
from xdpipe.stages import Headers

PACKETS = [
    bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
          / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000 + i, dport=9) / b"payload")
    for i in range(8)
]  # fmt: skip


def batch_of(packets: list[bytes], capacity: int = 16) -> Batch:
    batch = Batch(bytearray(1 << 16), capacity)
    batch.load(packets)
    return batch


class Score(Stage):
    columns = {"score": "float32", "trace": (np.uint16, 3)}

    def process(self, batch: Batch) -> None:
        batch.score[:] = batch.len * 0.5
        batch.trace[:, 1] = 7


class Judge(Stage):
    requires = ("score",)
    counters = ("high",)

    def process(self, batch: Batch) -> None:
        self.count("high", batch.drop(batch.score > 20))


def test_a_column_is_a_writable_view_of_the_batchs_rows() -> None:
    batch = batch_of(PACKETS)
    Chain([Score()], batch).run()
    assert (batch.score.dtype, batch.score.shape) == (np.float32, (8,))
    assert (batch.trace.dtype, batch.trace.shape) == (np.uint16, (8, 3))
    assert batch.score.tolist() == [len(packet) / 2 for packet in PACKETS]
    assert batch.trace.tolist() == [[0, 7, 0]] * 8
    assert batch.score.base is not None
    assert batch.score.ctypes.data % 64 == 0
    before = batch.score.ctypes.data
    batch.load(PACKETS[:3])
    assert batch.score.shape == (3,)
    assert batch.score.ctypes.data == before  # allocated once


def test_a_later_stage_can_require_it() -> None:
    batch = batch_of(PACKETS)
    chain = Chain([Score(), Judge()], batch)
    chain.run()
    assert chain.read_counts()[1]["counters"] == {"high": 8}


def test_rows_begin_at_0_with_each_batch() -> None:
    class Odd(Stage):
        columns = {"odd": "int8"}

        def process(self, batch: Batch) -> None:
            seen.append(batch.odd.tolist())
            batch.odd[:] = 5

    seen: list[list[int]] = []
    batch = batch_of(PACKETS)
    chain = Chain([Headers(), Odd()], batch)
    chain.run()
    batch.load(PACKETS)
    chain.run()
    assert seen == [[0] * 8] * 2


def test_stages_that_declare_the_same_share_it() -> None:
    class Add(Stage):
        columns = {"total": "int32"}

        def process(self, batch: Batch) -> None:
            batch.total += 1

    batch = batch_of(PACKETS)
    chain = Chain([Add(), Add(), Add()], batch)
    chain.run()
    chain.run()
    assert batch.total.tolist() == [3] * 8


def test_chains_in_one_process_have_columns_of_their_own() -> None:
    one, other = batch_of(PACKETS), batch_of(PACKETS[:2], capacity=2)
    stages = [Score(), Judge()]
    Chain(stages, one).run()
    Chain(stages, other).run()
    other.score[:] = 99
    assert one.score.tolist() == [len(packet) / 2 for packet in PACKETS]


def test_assigning_to_the_attribute_writes_the_rows() -> None:
    batch = batch_of(PACKETS)
    Chain([Score()], batch)
    rows = batch.score
    batch.score = np.arange(8)
    assert rows.tolist() == list(range(8))
    batch.score = 4
    assert rows.tolist() == [4.0] * 8
    batch.mark = 3
    assert batch.mark.tolist() == [3] * 8
    with pytest.raises(ValueError, match="read-only"):
        batch.payload = 3


def test_check_runs_them(tmp_path: Path) -> None:
    capture, file = tmp_path / "a.pcap", tmp_path / "scored.py"
    wrpcap(str(capture), [Ether(packet) for packet in PACKETS])
    file.write_text(
        "from xdpipe import DROP, Pipeline, Stage\n"
        "class Score(Stage):\n"
        "    columns = {'score': 'float32'}\n"
        "    def process(self, batch):\n"
        "        batch.score[:] = batch.len\n"
        "class Judge(Stage):\n"
        "    requires = ('score',)\n"
        "    counters = ('n',)\n"
        "    def process(self, batch):\n"
        "        self.count('n', (batch.score > 1).sum())\n"
        "pipeline = Pipeline('', [Score(), Judge()], default=DROP)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "xdpipe", "check", file, "--pcap", capture, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["stages"][1]["counters"] == {"n": 8}


def test_one_pipeline_is_checked_twice(tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), [Ether(packet) for packet in PACKETS])
    pipeline = Pipeline("", [Score(), Judge()], default=DROP)
    for batch_size in (3, 512):
        assert check(pipeline, capture, batch_size=batch_size)["stages"][1]["counters"]["high"] == 8


def declaring(what: Any) -> Stage:
    class Declares(Stage):
        columns = what

        def process(self, batch: Batch) -> None:
            pass

    return Declares()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"payload": "int32"}, "there is one, filled by Headers"),
        ({"len": "int32"}, "there is one, filled by receive"),
        ({"drop": "int32"}, "a batch has an attribute of that name"),
        ({"capacity": "int32"}, "a batch has an attribute of that name"),
        ({"scapy": "int32"}, "a batch has an attribute of that name"),
        ({"_x": "int32"}, "a batch has an attribute of that name"),
        ({"while": "int32"}, "a word of Python's or C's own"),
        ({"register": "int32"}, "a word of Python's or C's own"),
        ({"a-b": "int32"}, "its name must be one that Python and C know"),
        ({"größe": "int32"}, "its name must be one that Python and C know"),
        ({3: "int32"}, "its name must be one that Python and C know"),
        ({"x": "float16"}, "no dtype 'float16'"),
        ({"x": "complex64"}, "no dtype 'complex64'"),
        ({"x": "O"}, "no dtype 'O'"),
        ({"x": ">i4"}, "no dtype '>i4'"),
        ({"x": "nonsense"}, "no dtype 'nonsense'"),
        ({"x": None}, "no dtype None"),
        ({"x": ("int32", 0)}, "0 values per packet"),
        ({"x": ("int32", 1025)}, "1025 values per packet"),
        ({"x": ("int32", True)}, "True values per packet"),
        (("x", "int32"), "write a dict of name and dtype"),
    ],
)
def test_what_cannot_be_a_column_is_told(columns: Any, message: str) -> None:
    with pytest.raises(ChainError) as told:
        describe([declaring(columns)])
    assert message in str(told.value)
    assert str(told.value).startswith("stage Declares: column")
    assert "\n" not in str(told.value)


def test_two_that_mean_another_column_by_one_name_are_told() -> None:
    with pytest.raises(
        ChainError, match=r"stage Declares: column 'score' as int32, but stage Score"
    ):
        describe([Score(), declaring({"score": "int32"})])
    with pytest.raises(ChainError, match=r"as \(float32, 2\), but stage Score has it as float32"):
        describe([Score(), declaring({"score": ("float32", 2)})])


def test_two_chains_on_one_batch_agree() -> None:
    batch = batch_of(PACKETS)
    Chain([Score()], batch)
    Chain([Score()], batch)
    with pytest.raises(ChainError, match="the batch has it as float32, of stage Score"):
        Chain([declaring({"score": "int32"})], batch)


def test_the_stage_that_provides_it_is_named() -> None:
    with pytest.raises(ChainError, match=r"'score', which no stage before .*: Score does, put it"):
        describe([Judge(), Score()])
    with pytest.raises(ChainError, match="there is no column 'score'"):
        describe([Judge()])


def test_an_unknown_column_of_a_pipeline_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(XdpipeError, match="stage Judge: there is no column 'score'"):
        Pipeline("", [Judge()])


def test_a_packet_stage_has_them_too() -> None:
    class Each(PacketStage):
        columns = {"twice": "int64", "pair": ("uint8", 2)}

        def packet(self, p: Any) -> None:
            p.twice = 2 * len(p)
            p.pair = (1, p.index)
            assert p.twice == 2 * len(p)

    batch = batch_of(PACKETS)
    Chain([Each()], batch).run()
    assert batch.twice.tolist() == [2 * len(packet) for packet in PACKETS]
    assert batch.pair.tolist() == [[1, i] for i in range(8)]
