"""Send each datagram to port 7 back; a stage of each kind has its part in it."""

import sys

from xdpipe import TX, Batch, CStage, Packet, PacketStage, Pipeline, Stage, Steering
from xdpipe.jit import jit_stage
from xdpipe.stages import Headers, SwapAddresses


@jit_stage(
    requires=("payload_len",), counters=("bytes",), columns={"size": "int32"}, state={"n": 0},
    report=lambda state: {"seen": state.n, "numba": "numba" in sys.modules},
)  # fmt: skip
def measure(batch, counters, state):
    """Note each datagram's size."""
    for i in range(batch.n):
        batch.size[i] = batch.payload_len[i]
        counters.bytes += batch.payload_len[i]
        state.n += 1


class Add(Stage):
    """Add one to each size."""

    requires = ("size",)

    def process(self, batch: Batch) -> None:
        batch.size[:] += 1


class Answer(PacketStage):
    """Send each back."""

    requires = ("size",)
    counters = ("bytes_and_one",)

    def packet(self, p: Packet) -> None:
        self.count("bytes_and_one", p.size)
        p.tx()


pipeline = Pipeline(
    steering=Steering("udp dst port 7"),
    stages=[
        Headers(),
        measure(),
        CStage("sum_sizes.c", requires=("size",), counters=("bytes",), state="struct sums"),
        SwapAddresses(),
        Add(),
        Answer(),
    ],
    default=TX,
)
