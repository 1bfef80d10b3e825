"""What cannot be a jit stage is told at load, in one line with file, line and reason."""

import importlib.util
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xdpipe import Pipeline, Stage, jit_code
from xdpipe.chain import ChainError
from xdpipe.errors import CodeError
from xdpipe.jit import jit_stage
from xdpipe.jit_layout import layout_of
from xdpipe.own_columns import OwnColumn, Scope
from xdpipe.pipeline import load_pipeline

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="no numba: pip install 'xdpipe[jit]'"
)
LIST, DICT = [1, 2], {1: 2}
SCOPE = Scope(
    (OwnColumn("score", "float32", 1, "x"), OwnColumn("other", "int8", 1, "x")), ("a", "b")
)
LAYOUT = layout_of(
    ("payload", "src"),
    ("score",),
    ("monlist",),
    {"seen": np.zeros(16), "limit": np.int64(3)},
    SCOPE,
)


def bad_helper(batch: Any, i: int) -> int:
    return int(batch.u8(i, batch.nothing[i]))


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


# Each is wrong in its last line but those that say otherwise.


def unknown_column(batch):
    for i in range(batch.n):
        batch.mark[i] = batch.paylod[i]


def not_required(batch):
    batch.mark[0] = batch.dst[0, 1]


def others_column(batch):
    batch.mark[0] = batch.other[0]


def read_only(batch):
    batch.payload[0] = 3


def read_only_undecided(batch):
    batch.undecided[0] = True


def whole_column(batch):
    batch.score = 3


def as_an_array(batch):
    batch.score[0] = (batch.payload + 1)[0]


def summed(batch):
    batch.score[0] = np.sum(batch.payload)


def masked(batch):
    batch.drop(batch.payload[0] > 3.5)


def by_text(batch):
    batch.drop("x")


def one_too_few(batch):
    batch.u8(3)


def no_such_keyword(batch):
    batch.u8(3, 4, absent=0)


def no_flag(batch):
    batch.has(0, "UPD")


def flags_not_required(batch):
    batch.has(0, "UDP")


def no_port(batch):
    batch.forward(0, "up")


def compared_with_no_port(batch):
    batch.mark[0] = batch.port == "up"


def no_counter(batch, counters):
    counters.foo += 1


def no_state(batch, state):
    state.foo[3] = 1


def state_replaced(batch, state):
    state.seen = 3


def row_index(batch):
    batch.mark[0] = batch.src[0, 1, 2]


def row_for_value(batch):
    batch.mark[0] = batch.payload[0, 1]


def allocates(batch):
    batch.score[0] = np.zeros(10)[3]


def allocates_list(batch):
    numbers = []
    for i in range(batch.n):
        numbers.append(i)


def allocates_dict(batch):
    seen = {}
    seen[1] = 2


def allocates_text(batch):
    batch.mark[0] = len(f"{batch.n}")


def allocates_copy(batch, state):
    batch.score[0] = state.seen.copy()[0]


def prints(batch):
    print(batch.n)


def random_number(batch):
    batch.score[0] = random.random()


def numpys_random_number(batch):
    batch.score[0] = np.random.random()


def opens(batch):
    open("/etc/passwd")  # noqa: SIM115


def sleeps(batch):
    time.sleep(1)


def changes_global(batch):
    LIST[0] = batch.n


def uses_dict(batch):
    batch.mark[0] = DICT[1]


def undefined(batch):
    undefined_name(3)  # type: ignore[name-defined]  # noqa: F821


def imports(batch):
    import os  # noqa: F401


def manages(batch):
    with open("f"):
        pass


def two_types(batch):
    for i in range(batch.n):
        _ = 1 if i else "a"


def raises_value(batch):
    raise ValueError(batch.n)


def recursion(batch):
    batch.mark[0] = fibonacci(batch.n)


def helper_is_wrong(batch):
    batch.mark[0] = bad_helper(batch, 0)


def returns(batch):
    return 3


def complex_number(batch):
    batch.score[0] = 3j


ALLOCATE = "it makes an array, a list, a text or the like, and a jit stage may not allocate"
REASONS = {
    unknown_column: "batch.paylod: there is no such column, nor such a method in a jit stage",
    not_required: "batch.dst: the stage does not require it; add it to requires=(…)",
    others_column: "batch.other: the stage does not require it; add it to requires=(…)",
    read_only: "column payload is read-only",
    read_only_undecided: "column undecided is read-only",
    whole_column: "batch.score = …: write into it, batch.score[i] = …",
    as_an_array: "cannot be compiled: add(column payload, 1); a column is read and written by",
    summed: "cannot be compiled: sum(column payload); a column is read and written by packet",
    masked: "batch.drop: i must be an integer, not bool",
    by_text: "batch.drop: i must be an integer, not ",
    one_too_few: "batch.u8(i, offset, missing=0): missing a required argument: 'offset'",
    no_such_keyword: "batch.u8(i, offset, missing=0): got an unexpected keyword argument 'absent'",
    no_flag: "batch.has: no flag 'UPD'; there are VLAN, IPV4",
    flags_not_required: "batch.has takes the column flags: add it to requires=(…)",
    no_port: "port 'up': the pipeline's ports are: a, b",
    compared_with_no_port: "port 'up': the pipeline's ports are: a, b",
    no_counter: "counters.foo: the stage declares none of that name by counters=…",
    no_state: "state.foo: the stage declares none of that name by state=…",
    state_replaced: "state.seen = …: write into it, state.seen[i] = …",
    row_index: "column src: the index must be a packet's number, not ",
    row_for_value: "column payload: the index must be a packet's number, not ",
    allocates: ALLOCATE,
    allocates_list: ALLOCATE,
    allocates_dict: ALLOCATE,
    allocates_text: ALLOCATE,
    allocates_copy: ALLOCATE,
    prints: "it calls Python itself (numba_gil_ensure), which a jit stage may not: no print",
    random_number: "it calls Python itself (numba_get_py_random_state), which a jit stage",
    numpys_random_number: "it calls Python itself (numba_get_np_random_state), which a jit",
    opens: "cannot be compiled: Untyped global name 'open'",
    sleeps: "cannot be compiled: Unknown attribute 'sleep' of type Module",
    changes_global: "cannot be compiled: ",
    uses_dict: "cannot be compiled: Untyped global name 'DICT'",
    undefined: "cannot be compiled: NameError: name 'undefined_name' is not defined",
    imports: "an import within the function; write it at the top of the file",
    manages: "cannot be compiled: ",
    two_types: "cannot be compiled: Cannot unify ",
    raises_value: "an exception with a value that is known only at run time; raise it with",
    recursion: "fibonacci calls itself; write it as a loop",
    helper_is_wrong: "batch.nothing: there is no such column",
    returns: "the stage returns a ",
    complex_number: "column score: complex128 is no number that it could hold",
}  # fmt: skip
PLACES = {
    allocates_list: 1, allocates_dict: 2, manages: 1, returns: 0, helper_is_wrong: bad_helper,
    recursion: fibonacci,
}  # fmt: skip
"""Where numba places it, but in the last line: so many lines below the def, or in a helper."""


def line_of(function: Any) -> int:
    place = PLACES.get(function)
    if place is fibonacci:
        return fibonacci.__code__.co_firstlineno
    if callable(place):
        return line_of(place)
    first = int(function.__code__.co_firstlineno)
    last = max(line for _, _, line in function.__code__.co_lines() if line is not None)
    return last if place is None else first + place


@needs_numba
@pytest.mark.parametrize("function", REASONS, ids=lambda function: function.__name__)
def test_what_does_not_compile_is_told_in_one_line(
    function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path))
    with pytest.raises(CodeError) as told:
        jit_code.load(function, LAYOUT)
    text = str(told.value)
    place, _, reason = text.partition(": ")
    assert reason.startswith(REASONS[function])
    assert place == f"{__file__}:{line_of(function)}", text
    assert "\n" not in text
    assert "\x1b" not in text
    assert not any(path.is_dir() for path in (tmp_path / "stages").iterdir())  # nothing is kept


async def coroutine(batch):
    pass


def generator(batch):
    yield 1


def other_parameter(batch, count):
    pass


def many_parameters(*batch):
    pass


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (coroutine, {}, "coroutine: a generator or coroutine cannot be a stage"),
        (generator, {}, "generator: a generator or coroutine cannot be a stage"),
        (
            other_parameter,
            {},
            "other_parameter: parameter count: its parameters are batch, counters",
        ),
        (
            many_parameters,
            {},
            "many_parameters: parameter *batch: its parameters are batch, counters",
        ),
        (
            prints,
            {"state": {"x": [1]}},
            "state: x=[1]: write an array of numbers, or a number of up to",
        ),
        (prints, {"state": {"x": 1 << 64}}, "state: x=18446744073709551616: write an array"),
        (prints, {"state": {"x": 3j}}, "state: x=3j: write an array"),
        (prints, {"state": {"x": np.float16(3)}}, "state: x="),
        (prints, {"state": {"x": np.array(["a", None], object)}}, "state: x="),
    ],
)
def test_what_cannot_be_a_stage_is_told_where_it_is_defined(
    function: Any, options: Any, reason: str
) -> None:
    with pytest.raises(CodeError) as told:
        jit_stage(**options)(function)
    place, _, text = str(told.value).partition(": ")
    assert text.startswith(reason)
    assert place == f"{__file__}:{function.__code__.co_firstlineno}"


def test_what_is_no_function_is_told() -> None:
    with pytest.raises(CodeError, match=r"jit_stage: <built-in function sqrt> is no function"):
        jit_stage(math.sqrt)
    with pytest.raises(
        CodeError, match=r"jit_stage: <class .* is no function; write it above a def"
    ):
        jit_stage(Stage)


@pytest.mark.parametrize("names", [{"counters": ("a-b",)}, {"state": {"a b": 3}}])
def test_names_that_code_cannot_use_are_told(names: Any) -> None:
    with pytest.raises(
        Exception, match=r"test_jit_errors.py:\d+: returns: .* is no name that its code"
    ):
        jit_stage(**names)(returns)


def test_values_for_an_instance_must_fit() -> None:
    stage = jit_stage(state={"limit": 3, "table": np.zeros(3, np.uint8)})(returns)
    with pytest.raises(CodeError, match=r"returns\(limits=…\): no such state"):
        stage(limits=3)
    with pytest.raises(CodeError, match=r"returns\(limit=2.5\): int64 wanted"):
        stage(limit=2.5)
    with pytest.raises(CodeError, match="state: table='x': write an array of numbers"):
        stage(table="x")


def test_the_chain_is_checked_before_anything_is_compiled() -> None:
    stage = jit_stage(requires=("payload",))(returns)
    with pytest.raises(ChainError, match="add Headers"):
        Pipeline("", [stage()])


PIPELINE = """
from xdpipe import Pipeline
from xdpipe.jit import jit_stage
from xdpipe.stages import Headers

@jit_stage(requires=("payload",))
def wrong(batch):
    for i in range(batch.n):
        batch.mark[i] = batch.paylod[i]

pipeline = Pipeline("", [Headers(), wrong()])
"""


@needs_numba
def test_check_prints_one_line(tmp_path: Path) -> None:
    file, capture = tmp_path / "wrong.py", tmp_path / "a.pcap"
    file.write_text(PIPELINE)
    wrpcap(str(capture), [Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP() / UDP()])
    done = subprocess.run(
        [sys.executable, "-m", "xdpipe", "check", file, "--pcap", capture],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"xdpipe: {file}:9: "
        "batch.paylod: there is no such column, nor such a method in a jit stage\n"
    )


def test_without_numba_the_cure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit_code, "find_spec", lambda name: None)
    file = tmp_path / "wrong.py"
    file.write_text(PIPELINE)
    with pytest.raises(CodeError) as told:
        load_pipeline(file)
    assert str(told.value) == f"{file}:6: a jit stage takes numba: pip install 'xdpipe[jit]'"
