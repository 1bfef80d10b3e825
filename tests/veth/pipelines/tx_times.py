"""Echo UDP port 7, and tell how long packets took from arrival until they had left again."""

from typing import Any

import numpy as np

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses


class Stay(Stage):
    requires = ("payload",)
    counters = ("asked", "told", "untold")

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.stays_ns: list[int] = []

    def process(self, batch: Batch) -> None:
        self.count("asked", batch.want_tx_time(batch.undecided, batch.u32(batch.payload)))
        told = batch.sent_time_ns != 0
        self.count("told", int(told.sum()))
        self.count("untold", int((~told).sum()))
        self.tags += batch.sent_tag.tolist()  # noqa: XP302
        self.stays_ns += (batch.sent_time_ns.astype(np.int64)).tolist()  # noqa: XP302

    def report(self) -> dict[str, Any]:
        return {"tags": self.tags, "sent_ns": self.stays_ns}


pipeline = Pipeline(
    steering=Steering("udp dst port 7"), stages=[Headers(), Stay(), SwapAddresses()], default=TX
)
