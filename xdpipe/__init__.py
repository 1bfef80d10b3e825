"""xdpipe: AF_XDP packet processing for Python, a queue, a core and a chain of stages at a time."""

from xdpipe.batch import ABSENT, Batch
from xdpipe.errors import XdpipeError
from xdpipe.pipeline import Pipeline
from xdpipe.stage import NativeStage, Stage
from xdpipe.steering import Steering
from xdpipe.verdict import DROP, TX, Verdict

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "DROP",
    "TX",
    "Batch",
    "NativeStage",
    "Pipeline",
    "Stage",
    "Steering",
    "Verdict",
    "XdpipeError",
]
