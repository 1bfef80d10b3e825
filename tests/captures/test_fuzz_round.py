"""A short round of `./dev fuzz`: nothing is found, but for a mistake that was put there."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from fuzz.__main__ import main
from fuzz.build import CLANG, ROOT, build, program
from fuzz.captures import from_captures
from fuzz.run import run, write_seeds
from fuzz.seeds import crafted
from fuzz.targets import TARGETS, Target
from xdpipe.stage import NativeStage
from xdpipe.stages import Headers

SECONDS = 1
LACKS = CLANG.lacks()
pytestmark = pytest.mark.skipif(LACKS is not None, reason=f"{LACKS}: ./dev fuzz installs it")

SOURCE = """
#include "xp.h"
int xp_stage_no_fragments(struct xp_batch *b, void *state)
{
	(void)state;
	for (uint32_t i = 0; i < b->n; i++)
		if (b->flags[i] & XP_FLAG_LATER_FRAGMENT)
			return -1;
	return 0;
}
"""


class NoFragments(NativeStage):
    """Fails for what some seeds have."""

    function = "xp_stage_nothing"

    def bind(self, counts: memoryview) -> None:
        super().bind(counts)
        self.function = "xp_stage_no_fragments"  # type: ignore[misc] # the core has none


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(captures: Path, name: str) -> None:
    target = TARGETS[name]
    seeds = write_seeds(name, [*crafted(), *from_captures(captures, target)])
    assert len(list(seeds.iterdir())) > 50  # there is no HTTP/2 in the captures
    outcome = run(program(build(CLANG), name, target), name, target, seeds, SECONDS)
    assert not outcome.found, f"{outcome.says}\n{outcome.again()}"
    assert outcome.n_runs > len(list(seeds.iterdir()))
    assert outcome.coverage > 50


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Have a stage with a mistake in the place of the target headers."""
    source = tmp_path / "no_fragments.c"
    source.write_text(SOURCE)
    target = Target(lambda: [Headers(), NoFragments()])
    monkeypatch.setitem(TARGETS, "headers", target)
    monkeypatch.setattr("fuzz.run.BUILD", tmp_path)
    monkeypatch.setattr(
        "fuzz.__main__.build", lambda compiler: build(compiler, source, place=tmp_path)
    )
    return target


def test_a_mistake_is_told_with_its_input_and_how_to_run_it_again(
    broken: Target, tmp_path: Path
) -> None:
    done = CliRunner().invoke(main, ["headers", "--seconds", "60"])
    assert done.exit_code == 1
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("headers ")
    assert first.endswith("FOUND: fuzz: headers: NoFragments returns -1")
    where = os.path.relpath(next((tmp_path / "findings").iterdir()), ROOT)
    assert last == f"{where}; again: ./dev fuzz headers --again {where}"
    again = CliRunner().invoke(main, ["headers", "--again", str(ROOT / where)])
    assert again.exit_code == 1


def test_what_does_no_harm_runs_again_without_a_word_of_it(tmp_path: Path) -> None:
    harmless = tmp_path / "harmless"
    harmless.write_bytes(b"\x10" + bytes(60))
    assert CliRunner().invoke(main, ["headers", "--again", str(harmless)]).exit_code == 0
