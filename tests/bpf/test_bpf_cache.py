"""Compiled programs are kept, used again, and never trusted from where others could write."""

import os
from pathlib import Path

import pytest

from xdpipe import bpf_cache, bpf_compile
from xdpipe.bpf_cache import compiled
from xdpipe.bpf_module import Compiled, Module

SOURCE = """
#include "answer.h"
struct numbers { u64 runs; u64 unused; };
BPF_ARRAY(numbers, struct numbers, 1);
BPF_ARRAY(other, u32, 7);
int answer(struct xdp_md *ctx)
{
    int zero = 0;
    struct numbers *at = numbers.lookup(&zero);
    if (at)
        at->runs++;
    return ANSWER;
}
"""


@pytest.fixture
def include(tmp_path: Path) -> Path:
    (tmp_path / "include").mkdir()
    (tmp_path / "include/answer.h").write_text("#define ANSWER 41\n")
    return tmp_path / "include"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def n_compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by one with each compilation."""
    sources: list[str] = []
    really = bpf_compile.compile_source

    def compile_source(source: str, include: Path) -> Compiled:
        sources.append(source)
        return really(source, include)

    monkeypatch.setattr(bpf_compile, "compile_source", compile_source)
    return sources


def answer(program: Compiled) -> tuple[int, bytes]:
    with Module(program) as module, module.load("answer") as loaded, module.map("numbers") as runs:
        assert module.fields("numbers") == ("runs", "unused")
        assert module.fields("other") == ()
        return loaded.test_run(bytes(60), repeat=3).action, runs.lookup(0)[:8]


def test_what_was_compiled_once_is_not_compiled_again(
    include: Path, cache: Path, n_compiled: list[str]
) -> None:
    for _ in range(3):
        assert answer(compiled(SOURCE, include)) == (41, (3).to_bytes(8, "little"))
    assert len(n_compiled) == 1
    assert cache.stat().st_mode & 0o777 == 0o700


def test_another_source_or_header_is_another_program(
    include: Path, cache: Path, n_compiled: list[str]
) -> None:
    compiled(SOURCE, include)
    assert answer(compiled(SOURCE.replace("ANSWER;", "ANSWER + 1;"), include))[0] == 42
    (include / "answer.h").write_text("#define ANSWER 40\n")
    assert answer(compiled(SOURCE, include))[0] == 40
    assert len(n_compiled) == len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_compiled_anew(
    include: Path, cache: Path, n_compiled: list[str], damage: bytes | None
) -> None:
    compiled(SOURCE, include)
    [file] = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"answer", b"amswer") if damage is None else damage)
    assert answer(compiled(SOURCE, include))[0] == 41
    assert len(n_compiled) == 2
    assert file.read_bytes() == whole


def test_a_directory_that_others_can_write_to_is_not_used(
    include: Path, cache: Path, n_compiled: list[str]
) -> None:
    compiled(SOURCE, include)
    cache.chmod(0o770)
    compiled(SOURCE, include)
    cache.chmod(0o700)
    os.chown(cache, 65534, 65534)
    compiled(SOURCE, include)
    assert len(n_compiled) == 3


def test_without_a_place_to_keep_it_it_is_compiled_each_time(
    include: Path, cache: Path, n_compiled: list[str]
) -> None:
    cache.write_text("a file")
    assert answer(compiled(SOURCE, include))[0] == answer(compiled(SOURCE, include))[0] == 41
    assert len(n_compiled) == 2


def test_the_longest_unused_go(
    include: Path, cache: Path, n_compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf_cache, "_N_KEPT", 2)
    sources = [SOURCE + f"// {n}" for n in range(3)]
    for used_at, source in enumerate(sources):
        compiled(source, include)
        newest = max(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (used_at, used_at))
    assert len(list(cache.iterdir())) == 2
    compiled(sources[2], include)
    assert len(n_compiled) == 3
    compiled(sources[0], include)
    assert len(n_compiled) == 4
