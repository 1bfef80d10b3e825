"""Headers alone, with every packet given back to the kernel."""

from xdpipe import PASS, Pipeline, Steering
from xdpipe.stages import Headers

pipeline = Pipeline(steering=Steering(""), stages=[Headers()], default=PASS)
