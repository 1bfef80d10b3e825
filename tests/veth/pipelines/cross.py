"""Everything that comes by one port goes out of the other."""

from xdpipe import FORWARD, Pipeline, Steering

pipeline = Pipeline(
    ports=("inside", "outside"), steering=Steering("", guard=False), stages=[], default=FORWARD
)
