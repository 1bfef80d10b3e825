"""The fuzzers' driver, without libFuzzer: what was found once stays mended, and it does find.

The same driver as in `./dev fuzz`, built by gcc with its sanitizers.
"""

import ctypes
import mmap
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fuzz.build import GCC, build, program
from fuzz.image import ImageError, image
from fuzz.run import FOUND, environment, write_seeds
from fuzz.seeds import crafted
from fuzz.targets import LEFT_OUT, TARGETS, Target
from xdpipe import stages
from xdpipe.batch import COLUMNS, MALFORMED
from xdpipe.core._core import ffi, lib
from xdpipe.keep import keep_with
from xdpipe.stage import OWN, NativeStage
from xdpipe.stages import Headers

LACKS = GCC.lacks()
needs_gcc = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))


@pytest.fixture(scope="module")
def driver() -> Path:
    return build(GCC)


@pytest.fixture(scope="module")
def seeds() -> list[Path]:
    return sorted(write_seeds("crafted", crafted()).iterdir())


def run(path: Path, inputs: Sequence[Path]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [path, *inputs], env=environment(), capture_output=True, text=True, check=False
    )


@needs_gcc
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_in_what_was_found_before_nor_in_the_seeds(
    driver: Path, seeds: list[Path], name: str
) -> None:
    inputs = [*sorted((FOUND / name).glob("*")), *seeds]
    done = run(program(driver, name, TARGETS[name]), inputs)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(inputs)} inputs, nothing found\n"


def test_what_was_found_is_of_targets_that_there_are() -> None:
    assert {path.name for path in FOUND.glob("*")} <= set(TARGETS)


def test_every_native_stage_is_fuzzed_or_left_out_with_a_reason() -> None:
    all_stages = [getattr(stages, name) for name in stages.__all__]
    native = {one.__name__ for one in all_stages if issubclass(one, NativeStage)}
    fuzzed = {type(target.stages()[-1]).__name__ for target in TARGETS.values()}
    assert fuzzed | set(LEFT_OUT) == native
    assert not fuzzed & set(LEFT_OUT)


BROKEN = {
    "reads_beyond": (
        "sink = p[b->head_len[i]];",
        "heap-buffer-overflow",
    ),
    "reads_before": (
        "sink = p[-1];",
        "heap-buffer-overflow",
    ),
    "writes_a_row_too_many": ("b->ip_ttl[i] = 1; b->ip_ttl[b->n < b->capacity ? b->n : 0] = 1;",
                              "ip_ttl: row"),
    "writes_beyond_a_column": ("b->ip_ttl[b->capacity] = 1;", "heap-buffer-overflow"),
    "writes_beyond_its_counters": (f"counters[{len(MALFORMED) + 2}] = 1;", "heap-buffer-overflow"),
    "says_an_offset_beyond": ("b->l3[i] = b->len[i] + 1;", "l3 is"),
    "says_a_negative_offset": ("b->l3[i] = -1;", "l3 is -1"),
    "says_too_much_payload": ("b->payload[i] = 1; b->payload_len[i] = b->len[i];", "payload 1 +"),
    "says_payload_where_there_is_none": (
        "b->payload[i] = XP_ABSENT; b->payload_len[i] = 1;", "payload is absent"),
    "says_a_nameless_bit": ("b->flags[i] = 1u << 31;", "which has no name"),
    "says_a_nameless_reason": ("b->malformed[i] = 200;", "which has no name"),
    "leaves_a_column": ("b->ip_ttl[i] = b->ip_ttl[i];", "ip_ttl differs when it is run again"),
    "depends_on_the_batch": ("b->ip_ttl[i] = (uint8_t)b->n;", "ip_ttl differs"),
    "counts_otherwise": (f"counters[{len(MALFORMED) + 1}] += b->n;", "other counts"),
    "miscounts": ("b->malformed[i] = 1;", "malformed_eth_short counts 0"),
    "counts_without_reason": ("counters[0]++;", "malformed counts 1, and the reasons together 0"),
    "changes_a_packet": ("p[0] ^= 1;", "is changed"),
    "gives_no_verdict": ("b->verdict[i] = 9;", "verdict 9"),
    "decides_again": ("b->verdict[i] = XP_TX;", "verdict was 1 and is 2"),
    "allocates": ("kept = malloc(1); free(kept);", "Broken allocates"),
    "fails": ("return -1;", "returns -1"),
    "loses_packets": ("b->n--;", "packets and has"),
    "overflows": ("b->l3[i] = INT32_MAX; b->l3[i] += b->len[i];", "signed integer overflow"),
}  # fmt: skip
TEXTS = [column.name for column in COLUMNS.values() if column.text][:1]
BROKEN |= {
    f"says_a_text_beyond_{text}": (
        f"b->{text}[i].at = b->n_text; b->{text}[i].len = 1;", f"{text} is 1 bytes"
    )
    for text in TEXTS
}  # fmt: skip
SOURCE = """
#include <stdlib.h>
#include "xp.h"
extern volatile uint8_t sink;
extern void *volatile kept;
int xp_stage_{name}(struct xp_batch *b, void *state)
{{
	struct xp_counts_state *s = state;
	uint64_t *counters = s->counters;

	for (uint32_t i = 0; i < b->n; i++) {{
		uint8_t *p = xp_packet(b, i);

		if (b->len[i] == 0)
			continue;
		(void)p, (void)counters;
		{body}
	}}
	return 0;
}}
"""


class Broken(NativeStage):
    """Fills the columns as Headers does, but for one mistake."""

    counters = ("malformed", *(f"malformed_{reason.lower()}" for reason in MALFORMED), "other")
    provides = ("flags", "malformed", "l3", "payload", "payload_len", "ip_ttl", *TEXTS)
    function = "xp_stage_nothing"

    def __init__(self, name: str) -> None:
        self._name = name

    def bind(self, counts: memoryview) -> None:
        super().bind(counts)
        self.function = f"xp_stage_{self._name}"  # type: ignore[misc] # the core has none


FILL = """
		b->flags[i] = b->malformed[i] = 0;
		b->l3[i] = b->payload[i] = XP_ABSENT;
		b->payload_len[i] = 0;
		b->verdict[i] = b->verdict[i];
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("broken")
    source = place / "broken.c"
    text = ""
    empty = "".join(f"b->{text}[i].at = b->{text}[i].len = 0;" for text in TEXTS)
    for name, (body, _) in BROKEN.items():
        keep = name in ("leaves_a_column", "writes_a_row_too_many")
        fill = FILL + empty + ("" if keep else "b->ip_ttl[i] = 0;")
        text += SOURCE.format(name=name, body=fill + body)
    source.write_text(text + "volatile uint8_t sink;\nvoid *volatile kept;\n")
    return build(GCC, source, place=place)


@needs_gcc
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stage_is_found_by_what_it_does(
    broken: Path, seeds: list[Path], name: str
) -> None:
    empty_batches = name != "counts_otherwise"
    first = [] if empty_batches else [Headers()]
    done = run(program(broken, name, Target(lambda: [*first, Broken(name)])), seeds)
    assert done.returncode != 0
    assert BROKEN[name][1] in done.stderr


class Holder(NativeStage):
    """A stage whose state has pointers: to a tap, from there to numbers and to a function."""

    counters = ("one",)
    function = "xp_stage_nothing"

    def __init__(self, change: Callable[["Holder"], None] = lambda holder: None) -> None:
        self.numbers = np.arange(1, 11, dtype=np.uint32)
        self.tap = ffi.new("struct xp_tap *")
        self.tap.option_at = ffi.cast("uint32_t *", self.numbers.ctypes.data + 8)
        self.tap.snaplen = 77
        change(self)

    def make_state(self, counters: object) -> object:
        return ffi.new("struct xp_record_state *", {"counters": counters, "tap": self.tap})


def lines_of(stage: NativeStage) -> list[str]:
    return image("x", Target(lambda: [stage])).splitlines()


def test_an_image_has_what_a_state_points_to() -> None:
    lines = lines_of(Holder())
    state = 0
    sizes = [int(line.split()[1]) for line in lines if line.startswith("block ")]
    pointers = [tuple(map(int, line.split()[1:])) for line in lines if line.startswith("pointer ")]
    assert sizes[state] == ffi.sizeof("struct xp_record_state")
    tap, numbers = sizes.index(ffi.sizeof("struct xp_tap")), sizes.index(40)
    counts = sizes.index(8 * (OWN + 1))
    assert set(pointers) == {
        (state, ffi.typeof("struct xp_record_state").fields[0][1].offset, counts, 8 * OWN),
        (state, dict(ffi.typeof("struct xp_record_state").fields)["tap"].offset, tap, 0),
        (tap, dict(ffi.typeof("struct xp_tap").fields)["option_at"].offset, numbers, 8),
    }
    snaplen = dict(ffi.typeof("struct xp_tap").fields)["snaplen"].offset
    assert f"bytes {tap} {snaplen} 4d" in lines
    between = next(i for i, line in enumerate(lines) if line.startswith(f"bytes {tap} "))
    assert all(i > between for i, line in enumerate(lines) if line.startswith(f"pointer {tap} "))
    hexed = np.arange(1, 11, dtype="<u4").tobytes().rstrip(b"\0").hex()
    assert f"bytes {numbers} 0 {hexed}" in lines


def test_an_image_names_functions_of_the_core_and_of_libraries() -> None:
    libc = ctypes.CDLL("libc.so.6")
    elsewhere = ctypes.cast(libc.qsort_r, ctypes.c_void_p).value

    def change(holder: Holder) -> None:
        holder.tap.program = ffi.cast("void *", ffi.addressof(lib, "xp_stage_headers"))
        holder.tap.options = ffi.cast("uint8_t *", elsewhere)

    offsets = {name: field.offset for name, field in ffi.typeof("struct xp_tap").fields}
    symbols = [line.split()[2:] for line in lines_of(Holder(change)) if line.startswith("symbol")]
    assert [(int(at), name) for at, name, _ in symbols] == [
        (offsets["program"], "xp_stage_headers"),
        (offsets["options"], "qsort_r"),
    ]
    assert [file == "-" for _, _, file in symbols] == [True, False]
    assert "libc.so" in symbols[1][2]


def test_an_image_has_what_is_kept_with_a_state() -> None:
    class Keeper(Holder):
        def make_state(self, counters: object) -> object:
            tap = ffi.new("struct xp_tap *", {"snaplen": 99})
            struct = ffi.new("struct xp_record_state *", {"counters": counters, "tap": tap})
            return keep_with(struct, tap)

    assert any(line.endswith(" 63") for line in lines_of(Keeper()) if line.startswith("bytes "))


def test_an_image_is_the_same_each_time() -> None:
    class Secret(Holder):
        def make_state(self, counters: object) -> object:
            self.tap.snaplen = int.from_bytes(os.urandom(4), "little")
            return super().make_state(counters)

    contents = [[line for line in lines_of(Secret()) if line.startswith("bytes")] for _ in range(2)]
    assert contents[0] == contents[1]
    snaplen = dict(ffi.typeof("struct xp_tap").fields)["snaplen"].offset
    assert any(line.split()[2] == str(snaplen) for line in contents[0])


def test_memory_that_a_stage_does_not_hold_is_told() -> None:
    elsewhere = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)

    def change(holder: Holder) -> None:
        holder.tap.options = ffi.cast("uint8_t *", elsewhere.ctypes.data)

    with pytest.raises(ImageError, match="no memory that the stage holds"):
        lines_of(Holder(change))


def test_a_number_is_not_taken_for_the_address_of_something_else() -> None:
    """Debian's Python has its own memory, such as that of `int`, at addresses of 32 bits."""
    number = id(int) + 8 if id(int) < 1 << 32 else 0x87654321

    def change(holder: Holder) -> None:
        holder.tap.options = ffi.cast("uint8_t *", number)

    hexed = number.to_bytes(8, "little").rstrip(b"\0").hex()
    assert any(hexed in line for line in lines_of(Holder(change)) if line.startswith("bytes "))


def test_states_that_are_too_large_for_each_run_are_refused() -> None:
    def change(holder: Holder) -> None:
        holder.numbers = np.ones(2 << 20, np.uint32)
        holder.tap.option_at = ffi.cast("uint32_t *", holder.numbers.ctypes.data)

    with pytest.raises(ImageError, match="make smaller tables"):
        lines_of(Holder(change))
