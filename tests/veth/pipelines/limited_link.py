"""A link that carries 4000 packets a second, and 200 more at once."""

from xdpipe import FORWARD, Pipeline, Steering
from xdpipe.stages import Headers, RateLimit

pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("udp dst port 9", guard=False),
    stages=[Headers(), RateLimit(rate=4000, burst=200)],
    default=FORWARD,
)
