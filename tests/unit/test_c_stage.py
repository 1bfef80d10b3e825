"""Stages in C beside the pipeline's file: what they are given, what is kept, what is told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap
from test_multi_buffer import cut, in_frames

from xdpipe import DROP, Batch, CStage, Pipeline, Stage, XdpipeError, c_compiler
from xdpipe.chain import Chain
from xdpipe.errors import CodeError
from xdpipe.pipeline import load_pipeline
from xdpipe.stages import Headers
from xdpipe.verdict import FORWARD, PASS, TX

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
PACKETS = [
    bytes(
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000 + i, dport=9) / bytes([i] * 9)
    )
    for i in range(6)
]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler: apt install gcc")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=COMPILERS or [pytest.param("gcc", marks=needs_compiler)])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(c_compiler, "_NAMES", (request.param,))
    name: str = request.param
    return name


def batch_of(packets: list[bytes] = PACKETS, ports: tuple[str, ...] = ("",)) -> Batch:
    batch = Batch(bytearray(1 << 16), 16, ports)
    batch.load(packets)
    batch.set_port(ports[0])
    return batch


def written(tmp_path: Path, source: str, name: str = "stage.c") -> Path:
    path = tmp_path / name
    path.write_text(source)
    return path


COUNTS = """
int stage(struct xp_batch *b, struct xp_own *own)
{
	for (uint32_t i = 0; i < b->n; i++)
		own->counters->n += xp_u8(b, i, b->payload[i]) == 3;
	return 0;
}
"""


def test_it_counts_and_runs_in_the_c_call_of_the_native_stages(
    tmp_path: Path, compiler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = CStage(written(tmp_path, COUNTS), requires=("payload",), counters=("n",))
    batch = batch_of()
    chain = Chain([Headers(), stage], batch)
    chain.run()
    chain.run()
    assert chain.native
    counts = chain.read_counts()[1]
    assert (counts["name"], counts["kind"], counts["counters"]) == ("stage", "c", {"n": 2})
    assert capfd.readouterr().err == ""


FLOWS = """
#include <stdlib.h>
#include "xp_batch.h"
#include "flows.h"

int judge(struct xp_batch *b, struct xp_own *own)
{
	struct flows *flows = own->state;

	for (uint32_t i = 0; i < b->n; i++) {
		flows->n[b->l4_sport[i] % SLOTS]++;
		own->pair[2 * i] = (int16_t)-(int)i;
		own->pair[2 * i + 1] = (int16_t)flows->n[b->l4_sport[i] % SLOTS];
		own->yes[i] = i & 1;
		own->score[i] += 0.5;
	}
	flows->n_batches++;
	return flows->n_batches == 3 ? -1 : 0;
}
"""


@needs_compiler
def test_columns_and_state_are_there_by_name(tmp_path: Path) -> None:
    class Score(Stage):
        columns = {"score": "float64", "unused": "int8"}

        def process(self, batch: Batch) -> None:
            batch.score[:] = 4

    written(
        tmp_path,
        "#define SLOTS 4\nstruct flows { uint64_t n_batches; uint32_t n[SLOTS]; };",
        "flows.h",
    )
    stage = CStage(
        written(tmp_path, FLOWS), function="judge", requires=("l4_sport", "score"),
        columns={"pair": ("int16", 2), "yes": "bool"}, state="struct flows",
    )  # fmt: skip
    batch = batch_of()
    chain = Chain([Headers(), Score(), stage], batch)
    for n in (1, 2, 3):
        chain.run()
        assert chain.read_counts()[2]["errors"] == (n == 3)
    assert batch.score.tolist() == [4.5] * 6
    assert batch.yes.tolist() == [False, True] * 3
    assert batch.pair[:, 0].tolist() == [0, -1, -2, -3, -4, -5]
    assert batch.pair[:, 1].tolist() == [5, 5, 3, 3, 6, 6]
    assert stage.state_bytes.view(np.uint64)[0] == 3
    assert stage.state_bytes[8:24].view(np.uint32).tolist() == [6, 6, 3, 3]
    other = Chain([Headers(), Score(), stage], batch_of())
    other.run()
    assert stage.state_bytes.view(np.uint64)[0] == 1  # a chain, a state
    chain.run()
    assert chain.read_counts()[2]["errors"] == 1


ONE_PACKET = """
int stage(struct xp_batch *b, struct xp_own *own)
{
	for (uint32_t i = 0; i < b->n; i++) {
		own->got[4 * i] = xp_u8(b, i, own->at[i]);
		own->got[4 * i + 1] = xp_u16(b, i, own->at[i]);
		own->got[4 * i + 2] = xp_u32(b, i, own->at[i]);
		own->got[4 * i + 3] = xp_u64(b, i, own->at[i]);
	}
	return 0;
}
"""


@needs_compiler
def test_loads_are_those_of_the_array_kind(tmp_path: Path) -> None:
    class Place(Stage):
        columns = {"at": "int32"}

        def process(self, batch: Batch) -> None:
            batch.at[:] = at

    packet = bytes(ETHER / IP() / TCP(sport=5, dport=80) / bytes(range(200)))
    stage = CStage(written(tmp_path, ONE_PACKET), requires=("at",), columns={"got": ("uint64", 4)})
    for batch in (batch_of([packet, *PACKETS]), in_frames([cut(packet, 60, 99), [PACKETS[0]]])):
        chain = Chain([Place(), stage], batch)
        for at in (-1, 0, 56, 57, 58, 59, 95, 99, 250, 253, 254, 1 << 30, 2**31 - 1):
            chain.run()
            for k, load in enumerate((batch.u8, batch.u16, batch.u32, batch.u64)):
                assert batch.got[:, k].tolist() == load(at).tolist()


REWRITES = """
int stage(struct xp_batch *b, struct xp_own *own)
{
	for (uint32_t i = 0; i < b->n; i++) {
		own->counters->stored += xp_put(b, i, b->l4[i], 53, 2, 1);
		own->counters->stored += xp_put(b, i, b->len[i] - 1, 53, 2, 1);
		if (i == 0)
			own->counters->decided += xp_drop(b, i);
		else if (i == 1)
			own->counters->decided += xp_tx(b, i);
		else if (i == 2)
			own->counters->decided += xp_pass(b, i);
		else if (i == 3)
			own->counters->decided += xp_forward_to(b, i, 2);
		own->counters->decided += 10 * xp_decide_one(b, i, XP_DROP);
	}
	return 0;
}
"""


@needs_compiler
def test_stores_and_decisions_are_those_of_the_array_kind(tmp_path: Path) -> None:
    stage = CStage(written(tmp_path, REWRITES), requires=("l4",), counters=("stored", "decided"))
    batch = batch_of(ports=("a", "b", "c"))
    chain = Chain([Headers(), stage], batch)
    chain.run()
    assert chain.read_counts()[1]["counters"] == {"stored": 6, "decided": 4 + 20}
    assert batch.verdict.tolist() == [DROP, TX, PASS, FORWARD, DROP, DROP]
    assert batch.out_port.tolist() == [1, 1, 1, 2, 1, 1]
    for i in range(6):
        parsed = Ether(bytes(batch.packet(i)))
        assert parsed[UDP].sport == 53
        checksum = parsed[UDP].chksum
        del parsed[UDP].chksum
        assert Ether(bytes(parsed))[UDP].chksum == checksum


@needs_compiler
def test_the_stage_alone_runs_on_a_batch(tmp_path: Path) -> None:
    stage = CStage(written(tmp_path, COUNTS), requires=("payload",), counters=("n",))
    batch = batch_of()
    Headers().process(batch)
    stage.process(batch)
    stage.process(batch)
    assert stage.counted("n") == 2


def kept(cache: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_ino for path in cache.glob("stages/*/code.so")}


@needs_compiler
def test_it_is_compiled_again_only_when_something_changed(tmp_path: Path, cache: Path) -> None:
    def load(**options: Any) -> dict[str, int]:
        stage = CStage(
            path, function="judge", requires=("l4_sport",), state="struct flows",
            **{"columns": {"pair": ("int16", 2), "yes": "bool", "score": "float64"}, **options},
        )  # fmt: skip
        Pipeline("", [Headers(), stage], default=DROP)
        return kept(cache)

    header = "#define SLOTS 4\nstruct flows { uint64_t n_batches; uint32_t n[SLOTS]; };\n"
    written(tmp_path, header, "flows.h")
    path = written(tmp_path, FLOWS)
    first = load()
    assert len(first) == 1
    assert load() == first
    written(tmp_path, header.replace("SLOTS 4", "SLOTS 8"), "flows.h")
    second = load()
    assert second.keys() == first.keys()
    assert second != first
    assert load() == second
    path.write_text(FLOWS + "\n")
    third = load()
    assert third.keys() == first.keys()
    assert third != second
    assert len(load(flags=("-O1",))) == 2
    assert len(load(columns={"pair": ("int32", 2), "yes": "bool", "score": "float64"})) == 3


@needs_compiler
def test_the_path_is_relative_to_the_pipelines_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path, COUNTS, "sub/count me.c")
    file = tmp_path / "sub/counts.py"
    file.write_text(
        "from xdpipe import CStage, DROP, Pipeline\n"
        "from xdpipe.stages import Headers\n"
        "class Counts(CStage):\n"
        "    def __init__(self):\n"
        "        super().__init__(\n"
        "            'count me.c', function='stage', requires=('payload',), counters=('n',))\n"
        "    def report(self):\n"
        "        return {'state': len(self.state_bytes)}\n"
        "pipeline = Pipeline('', [Headers(), Counts()], default=DROP)\n"
    )
    capture = tmp_path / "a.pcap"
    wrpcap(str(capture), [Ether(packet) for packet in PACKETS])
    done = subprocess.run(
        [sys.executable, "-m", "xdpipe", "check", file, "--pcap", capture, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stage = json.loads(done.stdout)["stages"][1]
    assert (stage["kind"], stage["counters"], stage["reports"]) == ("c", {"n": 1}, [{"state": 0}])


@needs_compiler
def test_warnings_are_told_as_it_compiles(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, COUNTS.replace("{\n\tfor", "{\n\tint left;\n\tfor"))
    stage = CStage(path, requires=("payload",), counters=("n",))
    Pipeline("", [Headers(), stage])
    told = capfd.readouterr().err
    assert told.startswith(f"xdpipe: {path}:4: warning: unused variable 'left'")
    assert told.count("\n") == 1


WRONG = [
    (
        "int stage(",
        "int stag(",
        {},
        "1",
        "wanted is a function int stage(struct xp_batch *, struct xp_own *)",
    ),
    ("struct xp_own *own", "struct xp_other *own", {}, "5", "undefined type 'struct xp_other'"),
    ("return 0;", "return zero;", {}, "6", "'zero' undeclared"),
    ("return 0;", "return 0", {}, "6", "expected ';'"),
    ("->n +=", "->m +=", {}, "5", "no member named 'm'"),
    ("xp_u8(b", "xp_u9(b", {}, "5", "xp_u9"),
    ("b->payload", "b->paylod", {}, "5", "no member named 'paylod'"),
    ("\nint stage", '#include "nowhere.h"\nint stage', {}, "1", "nowhere.h"),
    (
        "int stage",
        "int stage",
        {"state": "struct flows"},
        "1",
        "state='struct flows': the file does not",
    ),
    ("return 0;", "extern int nobody(void);\n return nobody();", {}, "7", "undefined reference to"),
]


@needs_compiler
@pytest.mark.parametrize(("old", "new", "options", "line", "message"), WRONG)
def test_what_does_not_compile_is_told_in_one_line(
    tmp_path: Path, old: str, new: str, options: Any, line: str, message: str
) -> None:
    path = written(tmp_path, COUNTS.replace(old, new))
    stage = CStage(path, requires=("payload",), **{"counters": ("n",), **options})
    with pytest.raises(CodeError) as told:
        Pipeline("", [Headers(), stage])
    text = str(told.value)
    assert "\n" not in text
    place, _, reason = text.partition(": ")
    assert place == f"{path}:{line}", text
    assert message in reason, text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": "a-b"}, "'a-b' is no name of a C function; say which it is by function="),
        ({"state": "struct a b"}, "state='struct a b': write 'struct NAME'"),
        ({"counters": ("a b",)}, "counters: 'a b' is no name that its code can use"),
    ],
)
def test_names_that_c_does_not_know_are_told(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(XdpipeError) as told:
        CStage(written(tmp_path, COUNTS), **options)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told_with_the_line_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "p.py"
    file.write_text("from xdpipe import CStage\n\nstage = CStage('nowhere.c')\n")
    with pytest.raises(XdpipeError) as told:
        load_pipeline(file)
    where = tmp_path / "nowhere.c"
    assert str(told.value) == f"{file}:3: CStage('nowhere.c'): no such file: {where}"


def test_without_a_compiler_the_cure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c_compiler, "_NAMES", ("no-such-compiler",))
    path = written(tmp_path, COUNTS)
    with pytest.raises(CodeError) as told:
        Pipeline("", [Headers(), CStage(path, requires=("payload",), counters=("n",))])
    assert str(told.value) == f"{path}:1: no C compiler; install one: apt install gcc"


@needs_compiler
def test_a_compiler_that_fails_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, COUNTS)
    stage = CStage(path, requires=("payload",), counters=("n",), flags=("--no-such-flag",))
    with pytest.raises(CodeError, match=r"stage.c:1: the compiler fails: .*no-such-flag"):
        Pipeline("", [Headers(), stage])
    broken = tmp_path / "gcc"
    broken.write_text("no program")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    stage = CStage(path, requires=("payload",), counters=("n",))
    with pytest.raises(XdpipeError, match=r"gcc: .*Exec format error"):
        Pipeline("", [Headers(), stage])
