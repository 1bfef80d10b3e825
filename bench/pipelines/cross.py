"""FORWARD as it came, as testpmd's io mode does between two ports."""

from xdpipe import FORWARD, Pipeline, Steering

pipeline = Pipeline(ports=("near", "far"), steering=Steering("udp"), stages=[], default=FORWARD)
