"""Answer UDP port 7; who sends "bad" is dropped from then on, who is in `late` is taken anyway."""

from xdpipe import TX, Batch, DropSet, PassSet, Pipeline, Stage, Steering, TakeSet
from xdpipe.stages import Headers, SwapAddresses


class Watch(Stage):
    requires = ("payload", "src")
    counters = ("bad",)

    def process(self, batch: Batch) -> None:
        bad = batch.u32(batch.payload) >> 8 == 0x626164  # "bad"
        self.count("bad", batch.drop(bad))
        self.sets["offenders"].add(batch.src[bad])


pipeline = Pipeline(
    steering=Steering(
        "udp dst port 7",
        sets={
            "trusted": PassSet(prefixes=True),
            "offenders": DropSet(ttl_s=3),
            "blocked": DropSet(prefixes=True),
            "small": DropSet(capacity=4),
            "late": TakeSet(match="dst"),
        },
    ),
    stages=[Headers(), Watch(), SwapAddresses()],
    default=TX,
)
