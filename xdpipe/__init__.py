"""xdpipe: AF_XDP packet processing for Python, a queue, a core and a chain of stages at a time."""

from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError
from xdpipe.later import imported_later
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

if not TYPE_CHECKING:  # which would take any name then
    # With them comes numpy, which the supervisor has no use for.
    __getattr__ = imported_later(
        __name__,
        {
            "ABSENT": "xdpipe.batch",
            "Batch": "xdpipe.batch",
            "CStage": "xdpipe.c_stage",
            "Packet": "xdpipe.packet_stage",
            "PacketStage": "xdpipe.packet_stage",
            "Pipeline": "xdpipe.pipeline",
        },
    )
