"""Give back datagrams whose first byte is even, drop the others; what is no UDP is given back."""

from xdpipe import Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers


class DropOdd(Stage):
    requires = ("payload",)
    counters = ("odd",)

    def process(self, batch: Batch) -> None:
        self.count("odd", batch.drop(batch.has("UDP") & (batch.u8(batch.payload) % 2 == 1)))
        batch.pass_(batch.undecided)


pipeline = Pipeline(steering=Steering("ip or ip6"), stages=[Headers(), DropOdd()])
