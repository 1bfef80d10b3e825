"""A link that loses what has a number of the form 10 k + 3 in its stamp."""

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers


class Lose(Stage):
    requires = ("payload", "payload_len")
    counters = ("lost",)

    def process(self, batch: Batch) -> None:
        number = batch.u32(batch.payload + batch.payload_len - 12)
        self.count("lost", batch.drop(number % 10 == 3))


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("udp dst port 9", guard=False),
    stages=[Headers(), Lose()],
    default=FORWARD,
)
