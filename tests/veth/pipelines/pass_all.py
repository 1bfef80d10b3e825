"""Take every IP packet and give it back to the kernel."""

from xdpipe import PASS, Pipeline, Steering
from xdpipe.stages import Headers

pipeline = Pipeline(steering=Steering("ip or ip6"), stages=[Headers()], default=PASS)
