"""Check that each flow's packets come in order; see tests/veth/traffic.py for what they carry."""

import numpy as np

from xdpipe import DROP, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers

FLOWS = 1 << 16


class InOrder(Stage):
    requires = ("payload",)
    counters = ("in_order", "out_of_order", "flows")

    def __init__(self) -> None:
        self.last = np.full(FLOWS, -1, np.int64)

    def process(self, batch: Batch) -> None:
        flow = batch.u32(batch.payload).astype(np.int64)
        number = batch.u32(batch.payload + 4).astype(np.int64)
        # within the batch: stable by flow, so that neighbours of a flow can be compared
        order = np.argsort(flow, kind="stable")
        flow, number = flow[order], number[order]
        first = np.concatenate([[True], flow[1:] != flow[:-1]])
        before = np.where(first, self.last[flow], np.concatenate([[0], number[:-1]]))
        right = int((number > before).sum())
        self.count("flows", int((self.last[flow[first]] < 0).sum()))
        self.count("in_order", right)
        self.count("out_of_order", len(batch) - right)
        last = np.concatenate([flow[1:] != flow[:-1], [True]])
        self.last[flow[last]] = number[last]


pipeline = Pipeline(
    steering=Steering("udp dst port 9"), stages=[Headers(), InOrder()], default=DROP
)
