"""Headers, and a stage in Python that loads from the payload, compares, decides and counts."""

from xdpipe import DROP, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers


class DropOdd(Stage):
    requires = ("l4_dport", "payload")
    counters = ("odd",)

    def process(self, batch: Batch) -> None:
        first = batch.u16(batch.payload)
        self.count("odd", batch.drop((batch.l4_dport == 9) & (first & 1 == 1)))


pipeline = Pipeline(steering=Steering("udp"), stages=[Headers(), DropOdd()], default=DROP)
