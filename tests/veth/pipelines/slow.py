"""Answer UDP to port 7, and take 20 ms for a batch that holds a datagram of 7 bytes."""

import math
import time

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses


class Slow(Stage):
    """Takes long when it is asked to."""

    requires = ("payload_len",)

    def process(self, batch: Batch) -> None:
        """Sleep."""
        if (batch.payload_len == 7).any():
            time.sleep(0.02)


class Quick(Slow):
    """May take any time."""

    budget_us = math.inf


headers, swap = Headers(), SwapAddresses()
headers.budget_us = swap.budget_us = 3.6e9
pipeline = Pipeline(
    steering=Steering("udp dst port 7"), stages=[headers, Slow(), Quick(), swap], default=TX
)
