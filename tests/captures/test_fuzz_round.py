"""A short round of `./dev fuzz`: nothing is found, but for a mistake that was put there."""

import os
import subprocess
from pathlib import Path

import pytest

from fuzz.build import CLANG, ROOT, build, program
from fuzz.captures import from_captures
from fuzz.run import environment, run, write_seeds
from fuzz.seeds import crafted
from fuzz.targets import TARGETS, Target
from xdpipe.stage import NativeStage
from xdpipe.stages import Headers

SECONDS = 2
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
    assert len(list(seeds.iterdir())) > 100
    outcome = run(program(build(CLANG), name, target), name, target, seeds, SECONDS)
    assert not outcome.found, f"{outcome.says}\n{outcome.again()}"
    assert outcome.n_runs > len(list(seeds.iterdir()))
    assert outcome.coverage > 50


def test_a_mistake_is_found_and_told_with_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.run.BUILD", tmp_path)
    source = tmp_path / "no_fragments.c"
    source.write_text(SOURCE)
    target = Target(lambda: [Headers(), NoFragments()])
    path = program(build(CLANG, source, place=tmp_path), "broken", target)
    outcome = run(path, "broken", target, write_seeds("broken", crafted()), 60)
    assert outcome.line().endswith("FOUND: fuzz: broken: NoFragments returns -1")
    assert outcome.input is not None
    where = os.path.relpath(outcome.input, ROOT)
    assert outcome.again() == f"{where}; again: ./dev fuzz broken --again {where}"
    done = subprocess.run(
        [path, outcome.input], env=environment(), capture_output=True, check=False
    )
    assert b"NoFragments returns -1" in done.stderr
