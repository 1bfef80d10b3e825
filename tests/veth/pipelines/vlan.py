"""VLAN 5 inside, no VLAN outside; the tag is pushed as another and then changed."""

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SetVlan

IN, OUT = 1, 2


class Mark(Stage):
    """Say of each packet which way it goes; what has no tag inside is dropped."""

    requires = ("n_vlans",)
    counters = ("untagged",)

    def process(self, batch: Batch) -> None:
        if batch.port == "inside":
            self.count("untagged", batch.drop(batch.n_vlans == 0))
        batch.mark[:] = OUT if batch.port == "inside" else IN


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("", guard=False),
    stages=[
        Headers(),
        Mark(),
        SetVlan(pop=True, only=OUT),
        SetVlan(9, pcp=7, dei=True, push=True, only=IN),
        SetVlan(5, pcp=0, dei=False, only=IN),
    ],
    default=FORWARD,
)
