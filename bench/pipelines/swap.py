"""Every packet goes back, with its MAC and IP addresses and ports swapped."""

from xdpipe import TX, Pipeline, Steering
from xdpipe.stages import Headers, SwapAddresses

pipeline = Pipeline(steering=Steering("udp"), stages=[Headers(), SwapAddresses()], default=TX)
