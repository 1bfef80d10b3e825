"""Every packet goes back as it came."""

from xdpipe import TX, Pipeline, Steering

pipeline = Pipeline(steering=Steering("udp"), stages=[], default=TX)
