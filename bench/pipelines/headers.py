"""The native stage Headers."""

from xdpipe import DROP, Pipeline, Steering
from xdpipe.stages import Headers

pipeline = Pipeline(steering=Steering("udp"), stages=[Headers()], default=DROP)
