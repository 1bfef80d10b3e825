"""A chain: stages in order, checked when built, run batch by batch."""

from __future__ import annotations

import json
import math
import sys
import traceback
from numbers import Real
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.batch import COLUMNS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import ChainError
from xdpipe.own_columns import declared, scopes
from xdpipe.stage import BUDGET_US, ERRORS, MAX_NS, NS, OVER_BUDGET, PACKETS, NativeStage, Stage
from xdpipe.stage_info import StageInfo, read_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xdpipe.batch import Batch
    from xdpipe.stage_sets import StageSet


__all__ = ["Chain", "ChainError", "checked_budget", "describe", "tell_on_stderr"]


def checked_budget(who: str, budget_us: object) -> float:
    """Return a budget as a number.

    Raises:
        ChainError: it is none.
    """
    number = float(budget_us) if isinstance(budget_us, Real) else math.nan
    if not number >= 0 or budget_us is True or budget_us is False:
        raise ChainError(
            f"{who}: budget_us={budget_us!r}: microseconds for a batch, 0 or more; or math.inf"
        )
    return number


def describe(stages: Sequence[Any], budget_us: float = BUDGET_US) -> tuple[StageInfo, ...]:
    """Check a chain's stages and return what to call them.

    Args:
        stages: in order.
        budget_us: of the stages that have none of their own.

    Raises:
        ChainError: something is no stage; a stage declares a column that cannot be; or it requires
            one that nobody before it provides: the message names the stage to add.
    """
    infos: list[StageInfo] = []
    if len(stages) >= lib.XP_TAP_LEAVING:
        raise ChainError(f"{len(stages)} stages; {lib.XP_TAP_LEAVING - 1} are the most")
    there = {column.name for column in COLUMNS.values() if column.provider in ("receive", "NIC")}
    for number, stage in enumerate(stages, 1):
        if isinstance(stage, type):
            raise ChainError(
                f"stage {number}: {stage.__name__} is not a Stage but its class "
                "(add the parentheses)"
            )
        if not isinstance(stage, Stage):
            raise ChainError(f"stage {number}: {stage!r} is not a Stage")
        if any(stage is other for other in stages[: number - 1]):
            raise ChainError(
                f"stage {number}: the same {stage.name} as before; make each with a call of its own"
            )
        for name in ("requires", "provides", "counters"):
            value: Any = getattr(stage, name)
            if isinstance(value, str) or len(set(value)) < len(value):
                raise ChainError(
                    f"stage {stage.name}: {name}={value!r}: write a tuple of different names, "
                    "with a comma behind a single one"
                )
        there.update(column.name for column in declared(stage))
        for column in stage.requires:
            if column not in there:
                raise ChainError(_missing(stage, column, stages[number:]))
        there.update(stage.provides)
        twins = sum(info.name.partition("#")[0] == stage.name for info in infos)
        name = f"{stage.name}#{twins + 1}" if twins else stage.name
        recording = stage.recording if isinstance(stage, NativeStage) else None
        own = budget_us if stage.budget_us is None else stage.budget_us
        budget = checked_budget(f"stage {stage.name}", own)
        infos.append(StageInfo(name, stage._kind, tuple(stage.counters), recording, budget))
    scopes(stages, ())  # two that declare one name in different ways
    return tuple(infos)


def _missing(stage: Stage, column: str, later: Sequence[Any]) -> str:
    """Say what is wrong with requiring a column that no stage before provides."""
    wanted = f"stage {stage.name} requires the column {column!r}, which no stage before it provides"
    if column in COLUMNS:
        return f"{wanted}: add {COLUMNS[column].provider}() before {stage.name}"
    for other in later:
        if isinstance(other, Stage) and column in (c.name for c in declared(other)):
            return f"{wanted}: {other.name} does, put it before {stage.name}"
    return f"stage {stage.name}: there is no column {column!r}"


def _plain(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as JSON gives it back; numpy's numbers and arrays as Python's.

    Raises:
        TypeError, ValueError, RecursionError: JSON cannot hold it.
    """

    def known(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"a report holds what JSON can: {value!r} is {type(value).__name__}")

    plain: dict[str, Any] = json.loads(json.dumps(dict(report), default=known, allow_nan=False))
    return plain


def tell_on_stderr(stage: str, error: Exception) -> None:
    """Say once what a stage raised."""
    text = "".join(traceback.format_exception(error)).rstrip()
    print(f"stage {stage} raised; the batch goes on without it:\n{text}", file=sys.stderr)


class Chain:
    """Stages bound to one batch and to the place where their counts are kept.

    Args:
        stages: in order; checked by `describe`.
        batch: what they work on.
        counts: uint64 of all stages; None: memory of its own.
        on_error: told (stage name, exception) the first time that a stage raises.
        sets: what stages have as `sets`.
        budget_us: for a batch, of the stages that have none of their own.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        batch: Batch,
        counts: memoryview | None = None,
        on_error: Callable[[str, Exception], None] = tell_on_stderr,
        sets: Mapping[str, StageSet] | None = None,
        budget_us: float = BUDGET_US,
    ) -> None:
        self.infos = describe(stages, budget_us)
        self.stages = tuple(stages)
        self.batch = batch
        n_counts = sum(info.n_counts for info in self.infos)
        self.counts = counts or memoryview(bytearray(8 * max(n_counts, 1))).cast("Q")
        self._on_error = on_error
        self._told: set[str] = set()
        self.c_stages = ffi.new("struct xp_stage[]", max(len(self.stages), 1))
        self._steps: list[Callable[[], None]] = []
        self._tapped: dict[int, int] = {}  # array steps, and their stages' numbers
        self._held: list[Any] = []
        at, first = 0, 0
        columns: set[str] = set()
        for i, (stage, info, scope) in enumerate(
            zip(self.stages, self.infos, scopes(self.stages, batch.ports), strict=True)
        ):
            mine = self.counts[at : at + info.n_counts]
            at += info.n_counts
            zeroed = batch.add_columns([c for c in scope.columns if c.name not in columns])
            self._held.append(zeroed)
            columns.update(c.name for c in scope.columns)
            stage.join(self.stages[:i])
            stage.prepare(scope)
            stage.settle(batch)
            stage.bind(mine)
            stage.sets = sets or {}
            if isinstance(stage, NativeStage):
                stage.entry.budget_ns = info.budget_ns
                self.c_stages[i] = stage.entry[0]
                self.c_stages[i].number = i + 1
                self.c_stages[i].zeroed, self.c_stages[i].n_zeroed = zeroed, len(zeroed)
                self._held.append((stage.state, stage.memory))  # another chain may bind it anew
            else:
                self._add_native(first, i)
                first = i + 1
                self._steps.append(self._python_step(stage, info, mine, zeroed))
                self._tapped[len(self._steps) - 1] = i + 1
        self._add_native(first, len(self.stages))
        idle = [
            i for i, stage in enumerate(stages) if isinstance(stage, NativeStage) and stage.idles
        ]
        self.c_idle = ffi.new("struct xp_stage *[]", [self.c_stages + i for i in idle])
        self.n_lead = next(
            (i for i, info in enumerate(self.infos) if not info.native), len(self.infos)
        )
        self.tap(on=False)

    @property
    def native(self) -> bool:
        """Whether all stages are native, so that Python has nothing to do between batches."""
        return self.n_lead == len(self.stages)

    def _add_native(self, first: int, end: int) -> None:
        if first == end:
            return
        batch, stages, n = self.batch.c, self.c_stages + first, end - first
        run = lib.xp_run_stages
        self._steps.append(lambda: run(batch, stages, n))

    def tap(self, *, on: bool) -> None:
        """Have taps look behind each stage, or none: only then does the chain pay for it.

        Native stages ask the batch themselves.
        """
        steps = list(self._steps)
        if on:
            for place, number in self._tapped.items():
                steps[place] = self._tapped_step(steps[place], number)
        self._rest = steps[1:] if self.n_lead else steps

    def _tapped_step(self, step: Callable[[], None], number: int) -> Callable[[], None]:
        batch = self.batch.c

        def tapped() -> None:
            step()
            lib.xp_tap_stage(batch, number)

        return tapped

    def _python_step(
        self, stage: Stage, info: StageInfo, counts: memoryview, zeroed: Any
    ) -> Callable[[], None]:
        batch, process = self.batch, stage.process
        name, budget_ns = info.name, info.budget_ns
        n_zeroed, zero_rows = len(zeroed), lib.xp_zero_rows

        def note(error: Exception) -> None:
            counts[ERRORS] += 1
            if name not in self._told:
                self._told.add(name)
                self._on_error(name, error)

        def step() -> None:
            before = perf_counter_ns()
            if n_zeroed:
                zero_rows(batch.c, zeroed, n_zeroed)
            try:
                process(batch)
            except Exception as error:  # a stage's fault must not stop the queue
                note(error)
            ns = perf_counter_ns() - before
            counts[PACKETS] += len(batch)
            counts[NS] += ns
            counts[MAX_NS] = max(counts[MAX_NS], ns)
            if ns > budget_ns:
                counts[OVER_BUDGET] += 1

        stage.note_error = note
        return step

    def run(self) -> None:
        """Run all stages on the batch as it stands."""
        for step in self._steps:
            step()

    def run_rest(self) -> None:
        """Run the stages behind the leading native ones, which xp_cycle has run already."""
        for step in self._rest:
            step()

    def read_counts(self) -> list[dict[str, Any]]:
        """Return each stage's counts, as `--json` shows them."""
        return read_counts(self.infos, self.counts)

    def reports(self) -> dict[str, Any]:
        """Return what the stages report besides counters; a report that fails says so."""
        result: dict[str, Any] = {}
        for stage, info in zip(self.stages, self.infos, strict=True):
            try:
                report = _plain(stage.report())
            except Exception as error:  # a user's code, off the hot path
                report = {"error": f"{type(error).__name__}: {error}"}
            if report:
                result[info.name] = report
        return result
