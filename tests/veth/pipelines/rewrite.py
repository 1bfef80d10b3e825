"""Answer what comes to port 7 with 8 bytes written over; the checksum is computed as it leaves."""

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses


class Rewrite(Stage):
    requires = ("payload", "payload_len")
    counters = ("due",)

    def process(self, batch: Batch) -> None:
        batch.put_u32(batch.payload, 0xC0FFEE11)
        batch.put_u32(batch.payload + 4, 0x12345678)
        self.count("due", batch.fill_checksum(batch.payload_len >= 8))


pipeline = Pipeline(
    steering=Steering("dst port 7"), stages=[Headers(), Rewrite(), SwapAddresses()], default=TX
)
