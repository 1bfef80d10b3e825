"""A link that holds every fourth packet for 20 ms, and all others that come with it."""

import time

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers


class Hold(Stage):
    requires = ("payload", "payload_len")

    def process(self, batch: Batch) -> None:
        if (batch.u32(batch.payload + batch.payload_len - 12) % 4 == 1).any():
            time.sleep(0.02)  # noqa: XP102 - what is measured


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("udp dst port 9", guard=False),
    stages=[Headers(), Hold()],
    default=FORWARD,
)
