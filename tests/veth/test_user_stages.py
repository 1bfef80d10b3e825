"""Stages of each kind in running workers: who compiles, who keeps, what is told."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

import pytest

from hosts import CLIENT4, HOST4, PIPELINES, Bench, echoes, until
from xdpipe.process import Process

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("numba") is None, reason="no numba: pip install 'xdpipe[jit]'"
    ),
    pytest.mark.skipif(
        not any(map(shutil.which, ("gcc", "cc", "clang"))), reason="no C compiler: apt install gcc"
    ),
]
FILE = PIPELINES / "four_kinds.py"
KINDS = ["native", "jit", "c", "native", "array", "packet"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (cache / "stages").iterdir() if path.is_dir()}


def test_each_kind_does_its_part_and_a_later_start_compiles_nothing(
    bench: Bench, cache: Path
) -> None:
    sizes = [0, 1, 700, 1472]
    first: dict[str, int] = {}
    for start in range(2):
        running = bench.run(FILE)
        n = echoes(bench, CLIENT4, HOST4, sizes)
        status = running.status()
        assert status is not None
        assert [stage["kind"] for stage in status["stages"]] == KINDS
        final = running.end()
        _, measure, sums, _, _, answer = final["stages"]
        assert measure["counters"]["bytes"] == sums["counters"]["bytes"] == 3 * sum(sizes)
        assert answer["counters"]["bytes_and_one"] == 3 * sum(sizes) + n
        assert [stage["errors"] for stage in final["stages"]] == [0] * 6
        assert sum(report["seen"] for report in measure["reports"]) == n
        assert final["ledger"]["sent"] == n
        assert final["ledger"]["residual"] == 0
        if start == 0:
            first = kept(cache)
            assert len(first) == 2
            assert any(report["numba"] for report in measure["reports"])
        else:
            assert kept(cache) == first
            assert not any(report["numba"] for report in measure["reports"])
    if os.geteuid() == 0:
        for path in (cache / "stages").rglob("*"):
            assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (0, 0)


def test_a_worker_that_died_is_followed_by_one_that_loads_what_is_kept(bench: Bench) -> None:
    running = bench.run(FILE)
    n = echoes(bench, CLIENT4, HOST4, [9])
    status = running.status()
    assert status is not None
    for worker in status["workers"]:
        Process.of(worker["pid"]).signal(signal.SIGKILL)

    def served_again() -> bool:
        status = running.status()
        return status is not None and all(
            worker["restarts"] == 1 and worker["state"] == "serving" for worker in status["workers"]
        )

    until(served_again, "both queues are served again")
    n += echoes(bench, CLIENT4, HOST4, [9])
    final = running.end()
    assert final["stages"][2]["counters"]["bytes"] == 9 * n
    assert not any(report["numba"] for report in final["stages"][1]["reports"])


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("batch.payload_len[i]\n        state", "batch.payload[i]\n        state", "18"),
        ("sum_sizes.c", "broken.c", None),
    ],
    ids=("jit", "c"),
)
def test_what_does_not_compile_is_told_in_one_line(
    bench: Bench, tmp_path: Path, old: str, new: str, line: str | None
) -> None:
    file = tmp_path / "four_kinds.py"
    text = FILE.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    source = (FILE.parent / "sum_sizes.c").read_text()
    (tmp_path / "sum_sizes.c").write_text(source)
    (tmp_path / "broken.c").write_text(source.replace("sum_sizes", "broken").replace("i++", "j++"))
    done = bench.xdpipe("run", str(file), "--dev", "h0")
    assert done.returncode == 1
    assert done.stdout == ""
    [told] = done.stderr.strip().splitlines()
    if line:
        wanted = "batch.payload: the stage does not require it; add it to requires=(…)"
        assert told == f"xdpipe: {file}:{line}: {wanted}"
    else:
        assert told.startswith(f"xdpipe: {tmp_path}/broken.c:12: 'j' undeclared")
