"""Give ICMP back to the kernel, and every UDP datagram to port 7 back to who sent it."""

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses


class GiveBackIcmp(Stage):
    requires = ("ip_proto",)

    def process(self, batch: Batch) -> None:
        batch.pass_(batch.ip_proto == 1)


pipeline = Pipeline(
    steering=Steering("icmp or udp dst port 7"),
    stages=[Headers(), GiveBackIcmp(), SwapAddresses()],
    default=TX,
)
