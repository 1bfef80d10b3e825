"""No stage at all: what receiving costs."""

from xdpipe import DROP, Pipeline, Steering

pipeline = Pipeline(steering=Steering("udp"), stages=[], default=DROP)
