"""The parts of ./dev vm that need no VM: what is kept, and what is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from vm import cache, qemu
from vm.kernel import Kernel, _with_dependencies

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_thing_is_made_once_and_again_when_its_inputs_change(
    tmp_path: Path, own_cache: Path
) -> None:
    source = tmp_path / "source"
    made: list[str] = []

    def make(place: Path) -> None:
        made.append(source.read_text())
        (place / "thing").write_text(source.read_text())

    def thing() -> str:
        return (cache.cached("thing", ["x", source], make) / "thing").read_text()

    source.write_text("one")
    assert [thing(), thing()] == ["one", "one"]
    assert made == ["one"]
    source.write_text("two")
    assert thing() == "two"
    kept = [path.name for path in own_cache.iterdir() if path.is_dir()]
    assert len(kept) == 1, "what it was before is gone"


def test_two_inputs_are_not_taken_for_one(tmp_path: Path) -> None:
    places = {cache.cached(name, inputs, lambda place: None).name.partition("-")[2]
              for name, inputs in (("a", ["xy", "z"]), ("b", ["x", "yz"]))}  # fmt: skip
    assert len(places) == 2


def test_making_that_is_interrupted_leaves_nothing_that_would_be_used(own_cache: Path) -> None:
    def interrupted(place: Path) -> None:
        (place / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.cached("thing", [], interrupted)
    assert [path.name for path in own_cache.iterdir()] == ["thing.lock"]
    # one that was killed leaves its part, which the next does not build upon
    (own_cache / "thing.part").mkdir()
    (own_cache / "thing.part/half").touch()
    place = cache.cached("thing", [], lambda place: (place / "whole").touch())
    assert [path.name for path in place.iterdir()] == ["whole"]


def test_modules_come_with_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\nd.ko: c.ko\n")
    assert _with_dependencies(tmp_path, ["a.ko"]) == ["a.ko", "b.ko", "c.ko"]
    assert _with_dependencies(tmp_path, ["d.ko"]) == ["c.ko", "d.ko"]


@pytest.mark.parametrize(("says", "boots"), [("true", "no"), ("echo Linux version >&2", "yes")])
def test_the_probe_believes_only_a_kernel_that_speaks(
    tmp_path: Path, says: str, boots: str
) -> None:
    """A QEMU that ends, or hangs, without a word is what one sees where KVM boots no kernel."""
    fake = tmp_path / "qemu"
    fake.write_text(f"#!/bin/sh\n{says}\n")
    fake.chmod(0o755)
    kernel = Kernel("7.3", *(tmp_path / name for name in ("vmlinuz", "vmlinux", "initrd")))
    qemu._probe(tmp_path, qemu.Qemu((str(fake),), "a test"), kernel)
    assert (tmp_path / "boots").read_text() == boots


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "--nic", "e99", "true"], "'e99' is not one of"),
        (["run"], "Missing argument 'COMMAND...'"),
        (["run", "--queues", "0", "true"], "0 is not in the range"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_options_are_told(args: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vm", *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
