"""What a user's file declares: ports, steering, stages, default verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.batch import COLUMNS
from xdpipe.chain import checked_budget, describe
from xdpipe.core._core import lib
from xdpipe.errors import CodeError, XdpipeError
from xdpipe.own_columns import scopes
from xdpipe.stage import BUDGET_US
from xdpipe.steering import Steering
from xdpipe.user_file import import_file, reason, where
from xdpipe.verdict import DROP, FORWARD, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.sets import KeySet
    from xdpipe.stage import Stage
    from xdpipe.stage_info import StageInfo


@dataclass(frozen=True)
class Pipeline:
    """Which packets are taken, which stages they go through, and what the undecided become.

    Args:
        steering: which packets are taken; a tcpdump filter as text will do. With several ports
            either the same for all, or a dict that has one for each.
        stages: in order. One set of instances serves one queue: a worker imports the file anew.
        default: the verdict of packets that no stage decided: DROP, TX, PASS or, with two ports,
            FORWARD, out of the other one.
        ports: names for interfaces, where there are several: one worker serves the same queue of
            all, and packets can go from each to each. Which interface each is, is said when the
            pipeline is run. Without, there is one, which needs no name.
        budget_us: how long a stage may take for a batch, by the clock, so that it includes what its
            core did for others meanwhile; microseconds. Batches that took longer are counted, and
            the stage is named. A stage's own `budget_us` goes before; math.inf: none.

    Raises:
        ChainError: the stages do not fit together.
        CodeError: a stage does not compile.
        XdpipeError: something else is not what it should be.

    Attributes:
        steerings: the steering of each port, in the order of the ports.
    """

    steering: Steering | str | Mapping[str, Steering | str]
    stages: Sequence[Stage] = field(default_factory=tuple)
    default: Verdict = DROP
    ports: Sequence[str] = ("",)
    budget_us: float = BUDGET_US
    infos: tuple[StageInfo, ...] = field(init=False, repr=False)
    steerings: tuple[Steering, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ports = _checked_ports(self.ports)
        object.__setattr__(self, "ports", ports)
        object.__setattr__(self, "steerings", _checked_steerings(self.steering, ports))
        if not isinstance(self.stages, list | tuple):
            raise XdpipeError(f"stages={self.stages!r}: write a list of stages: [Headers(), …]")
        if not isinstance(self.default, Verdict) or not self.default:
            raise XdpipeError(
                f"default={self.default!r}: the default verdict is DROP, TX, PASS or FORWARD"
            )
        if self.default == FORWARD and len(self.ports) != 2:
            raise XdpipeError(
                "default=FORWARD: that is out of the other port, of two: write "
                "ports=('inside', 'outside')"
            )
        checked_budget("pipeline", self.budget_us)
        object.__setattr__(self, "infos", describe(self.stages, self.budget_us))
        for stage, scope in zip(self.stages, scopes(self.stages, ports), strict=True):
            stage.prepare(scope)

    @property
    def sets(self) -> dict[str, KeySet]:
        """The sets of all steerings by name; sets of one name are one set."""
        return {name: each for steering in self.steerings for name, each in steering.sets.items()}

    @property
    def wants_hints(self) -> bool:
        """Whether a stage requires what only the NIC knows, see xdpipe.batch.COLUMNS."""
        names = {name for stage in self.stages for name in stage.requires}
        return any(name in COLUMNS and COLUMNS[name].provider == "NIC" for name in names)


def _checked_ports(ports: object) -> tuple[str, ...]:
    given = tuple(ports) if isinstance(ports, list | tuple) else ()
    most = int(lib.XP_PORTS_MAX)
    if given == ("",):
        return given
    if not given or not all(isinstance(name, str) and name.isidentifier() for name in given):
        raise XdpipeError(f"ports={ports!r}: write a tuple of names: ports=('inside', 'outside')")
    if len(set(given)) < len(given) or len(given) > most:
        raise XdpipeError(f"ports={ports!r}: up to {most} different names")
    return given


def _checked_steerings(given: object, ports: tuple[str, ...]) -> tuple[Steering, ...]:
    if not isinstance(given, Mapping):
        return (_checked_steering(given),) * len(ports)
    if set(given) != set(ports):
        raise XdpipeError(
            f"steering={given!r}: a dict has one for each port: {', '.join(filter(None, ports))}"
        )
    steerings = tuple(_checked_steering(given[port]) for port in ports)
    sets: dict[str, KeySet] = {}
    for steering in steerings:
        for name, declared in steering.sets.items():
            if sets.setdefault(name, declared) != declared:
                raise XdpipeError(
                    f"set {name}: one set, declared in two ways: {sets[name]} and {declared}"
                )
    return steerings


def _checked_steering(given: object) -> Steering:
    if isinstance(given, str):
        return Steering(given)
    if not isinstance(given, Steering):
        raise XdpipeError(f"steering={given!r}: write Steering('filter'), or the filter as text")
    return given


def load_pipeline(file: str | Path, budget_us: float | None = None) -> Pipeline:
    """Import a user's file and return its `pipeline`.

    Args:
        file: its path.
        budget_us: in place of the one that the pipeline states; None: that one.

    Raises:
        XdpipeError: the file is missing, does not import, or declares no pipeline; the message
            names file and line.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise XdpipeError(f"{file}: no such file; name a Python file that declares `pipeline`")
    try:
        module = import_file(path, f"_pipeline_{path.stem}")
    except CodeError:
        raise  # it says where
    except SystemExit as error:
        raise XdpipeError(f"{where(error, path)}: the file exits when imported") from error
    except BaseException as error:  # whatever a user's file raises
        raise XdpipeError(f"{where(error, path)}: {reason(error)}") from error
    pipeline = getattr(module, "pipeline", None)
    if not isinstance(pipeline, Pipeline):
        raise XdpipeError(f"{file}: declares no pipeline; write: pipeline = Pipeline(…)")
    return pipeline if budget_us is None else replace(pipeline, budget_us=budget_us)
