"""Echo UDP port 7, with four bytes written over where those at 5000 are question marks."""

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses

AT, MARK = 5000, 0xC0FFEE11


class Mark(Stage):
    requires = ("payload", "payload_len")
    counters = ("marked", "in_several_frames")

    def process(self, batch: Batch) -> None:
        asked = batch.u32(batch.payload + AT) == 0x3F3F3F3F  # "????"
        self.count("marked", batch.put_u32(batch.payload + AT, MARK, asked, fix_checksum=True))
        self.count("in_several_frames", int((batch.n_frames > 1).sum()))


pipeline = Pipeline(
    steering=Steering("udp dst port 7 and greater 60"),
    stages=[Headers(), Mark(), SwapAddresses()],
    default=TX,
)
