"""xdpipe: AF_XDP packet processing for Python, a queue, a core and a chain of stages at a time."""

import importlib
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError
from xdpipe.sets import DropSet, PassSet, TakeSet
from xdpipe.stage import NativeStage, Stage
from xdpipe.steering import Steering
from xdpipe.verdict import DROP, FORWARD, PASS, TX, Verdict

if TYPE_CHECKING:
    from xdpipe.batch import ABSENT, Batch
    from xdpipe.c_stage import CStage
    from xdpipe.packet_stage import Packet, PacketStage
    from xdpipe.pipeline import Pipeline

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "DROP",
    "FORWARD",
    "PASS",
    "TX",
    "Batch",
    "CStage",
    "DropSet",
    "NativeStage",
    "Packet",
    "PacketStage",
    "PassSet",
    "Pipeline",
    "Stage",
    "Steering",
    "TakeSet",
    "Verdict",
    "XdpipeError",
]

_LATER = {
    "ABSENT": "xdpipe.batch",
    "Batch": "xdpipe.batch",
    "CStage": "xdpipe.c_stage",
    "Packet": "xdpipe.packet_stage",
    "PacketStage": "xdpipe.packet_stage",
    "Pipeline": "xdpipe.pipeline",
}
"""Imported when asked for (PEP 562): with them comes numpy, which the supervisor has no use for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
