"""What a user's file declares: steering, stages, default verdict."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.batch import COLUMNS
from xdpipe.chain import describe
from xdpipe.errors import XdpipeError
from xdpipe.steering import Steering
from xdpipe.verdict import DROP, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.stage import Stage
    from xdpipe.stage_info import StageInfo


@dataclass(frozen=True)
class Pipeline:
    """Which packets are taken, which stages they go through, and what the undecided become.

    Args:
        steering: which packets are taken; a tcpdump filter as text will do.
        stages: in order. One set of instances serves one queue: a worker imports the file anew.
        default: the verdict of packets that no stage decided: DROP, TX or PASS.

    Raises:
        ChainError: the stages do not fit together.
    """

    steering: Steering | str
    stages: Sequence[Stage] = field(default_factory=tuple)
    default: Verdict = DROP
    infos: tuple[StageInfo, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.steering, str):
            object.__setattr__(self, "steering", Steering(self.steering))
        if not isinstance(self.steering, Steering):
            raise XdpipeError(
                f"steering={self.steering!r}: write Steering('filter'), or the filter as text"
            )
        if not isinstance(self.stages, list | tuple):
            raise XdpipeError(f"stages={self.stages!r}: write a list of stages: [Headers(), …]")
        if not isinstance(self.default, Verdict) or not self.default:
            raise XdpipeError(f"default={self.default!r}: the default verdict is DROP, TX or PASS")
        object.__setattr__(self, "infos", describe(self.stages))

    @property
    def wants_hints(self) -> bool:
        """Whether a stage requires what only the NIC knows, see xdpipe.batch.COLUMNS."""
        names = {name for stage in self.stages for name in stage.requires}
        return any(COLUMNS[name].provider == "NIC" for name in names)


def _where(error: BaseException, path: Path) -> str:
    """Return file:line of the place in the user's file that an exception came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def load_pipeline(file: str | Path) -> Pipeline:
    """Import a user's file and return its `pipeline`.

    Raises:
        XdpipeError: the file is missing, does not import, or declares no pipeline; the message
            names file and line.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise XdpipeError(f"{file}: no such file; name a Python file that declares `pipeline`")
    spec = importlib.util.spec_from_file_location(f"_pipeline_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise XdpipeError(f"{file}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # as python FILE does: modules beside it import
    try:
        spec.loader.exec_module(module)
    except XdpipeError as error:
        raise XdpipeError(f"{_where(error, path)}: {error}") from error
    except SystemExit as error:
        raise XdpipeError(f"{_where(error, path)}: the file exits when imported") from error
    except BaseException as error:  # whatever a user's file raises
        text = str(error).splitlines()[0] if str(error) else ""
        raise XdpipeError(f"{_where(error, path)}: {type(error).__name__}: {text}") from error
    pipeline = getattr(module, "pipeline", None)
    if not isinstance(pipeline, Pipeline):
        raise XdpipeError(f"{file}: declares no pipeline; write: pipeline = Pipeline(…)")
    return pipeline
