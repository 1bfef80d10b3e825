"""Kept machine code is used again only while all that it was made of is the same."""

import importlib.util
import math
import os
import subprocess
import sys
import types
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xdpipe import kept_code
from xdpipe.jit_key import key_of
from xdpipe.jit_layout import layout_of
from xdpipe.own_columns import Scope

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="no numba: pip install 'xdpipe[jit]'"
)
LAYOUT = layout_of((), (), ("n",), {}, Scope())

SOURCE = """
import math
import numpy as np
import limits
from kinds import Level

LIMIT = 3
TABLE = np.arange(4)
UNUSED = object()

def helper(n):
    return n + LIMIT

def outer(n):
    return helper(n)

def make(inner):
    def stage(batch, counters, k=1):
        for i in range(batch.n):
            if outer(i) > limits.HIGH + inner and Level.LOW == 3 and TABLE[0] == 0:
                counters.n += int(math.sqrt(np.float64(i)))
    return stage

stage = make(7)
"""


def made(source: str = SOURCE, high: int = 9, low: int = 3) -> Callable[..., Any]:
    """Return the function `stage` of a source, with the modules that it imports."""
    module = types.ModuleType("limits")
    module.HIGH = high  # type: ignore[attr-defined]
    kinds = types.ModuleType("kinds")
    kinds.Level = IntEnum("Level", {"LOW": low, "HIGH": 99})  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"__name__": "pipeline"}
    code = source.replace("import limits", "").replace("from kinds import Level", "")
    scope.update(limits=module, Level=kinds.Level)
    exec(compile(code, "/pipeline.py", "exec"), scope)
    stage: Callable[..., Any] = scope["stage"]
    return stage


def test_the_same_has_the_same_key() -> None:
    assert key_of(made(), LAYOUT) == key_of(made(), LAYOUT) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("np.arange(4)", "np.arange(4, dtype=np.int32)"),
        ("np.arange(4)", "np.arange(4)[::-1]"),
        ("make(7)", "make(8)"),
        ("return n + LIMIT", "return n - LIMIT"),
        ("k=1", "k=2"),
        ("math.sqrt", "math.floor"),
        ("LIMIT = 3", "LIMIT = 3\n"),  # what it raises names the line
    ],
)
def test_what_has_a_say_changes_it(old: str, new: str) -> None:
    assert SOURCE.count(old) >= 1
    assert key_of(made(SOURCE.replace(old, new)), LAYOUT) != key_of(made(), LAYOUT)


def test_what_modules_and_enumerations_say_changes_it() -> None:
    keys = {key_of(made(high=high, low=low), LAYOUT) for high in (9, 10) for low in (3, 4)}
    assert len(keys) == 4
    assert None not in keys


def test_what_it_does_not_reach_does_not() -> None:
    assert key_of(made(SOURCE.replace("UNUSED = object()", "UNUSED = 3")), LAYOUT) == key_of(
        made(), LAYOUT
    )


def test_the_layout_the_cpu_and_numba_have_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    from xdpipe import jit_key

    first = key_of(made(), LAYOUT)
    keys = {first, key_of(made(), layout_of((), (), ("n", "m"), {}, Scope()))}
    keys.add(key_of(made(), layout_of((), (), ("n",), {"x": np.int64(3)}, Scope())))
    keys.add(key_of(made(), layout_of((), (), ("n",), {}, Scope(ports=("a", "b")))))
    with monkeypatch.context() as patch:
        patch.setattr(jit_key, "cpu", lambda: "flags: another")
        keys.add(key_of(made(), LAYOUT))
    with monkeypatch.context() as patch:
        patch.setattr(jit_key.metadata, "version", lambda name: "99")
        keys.add(key_of(made(), LAYOUT))
    monkeypatch.setenv("NUMBA_OPT", "0")
    keys.add(key_of(made(), LAYOUT))
    assert len(keys) == 7


def test_what_cannot_be_told_has_no_key() -> None:
    source = SOURCE.replace("LIMIT = 3", "LIMIT = object()")
    assert key_of(made(source), LAYOUT) is None


def test_functions_of_libraries_are_told_by_their_version() -> None:
    def stage(batch: Any) -> None:
        batch.mark[0] = int(np.sum(np.zeros(3)) + math.sqrt(3) + np.uint64(3))

    assert key_of(stage, LAYOUT) is not None


def test_the_file_has_a_say(tmp_path: Path) -> None:
    keys = set()
    for name in ("a.py", "b.py"):
        scope: dict[str, Any] = {}
        exec(compile("def stage(batch): pass", str(tmp_path / name), "exec"), scope)
        keys.add(key_of(scope["stage"], LAYOUT))
    assert len(keys) == 2


def test_a_later_start_of_a_jit_stage_imports_no_numba(tmp_path: Path) -> None:
    file = tmp_path / "counts.py"
    file.write_text(
        "import sys\n"
        "from xdpipe import Pipeline\n"
        "from xdpipe.jit import jit_stage\n"
        "@jit_stage(counters=('n',))\n"
        "def count(batch, counters):\n"
        "    counters.n += batch.n\n"
        "pipeline = Pipeline('', [count()])\n"
        "print([name in sys.modules for name in ('numba', 'llvmlite')])\n"
    )
    for path, wanted in (
        (os.environ["PATH"], ["[True, True]", "[False, False]"]),
        ("/nowhere", ["[True, True]", "[False, True]"]),  # no compiler to link with
    ):
        told = []
        environment = {
            **os.environ, "PATH": path, "PYTHONPATH": str(Path(kept_code.__file__).parents[1]),
            "XDPIPE_CACHE_DIR": str(tmp_path / path.strip("/").replace("/", "-")),
        }  # fmt: skip
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, file], capture_output=True, text=True, check=True,
                env=environment,
            )  # fmt: skip
            told.append(done.stdout.strip())
        assert told == wanted
