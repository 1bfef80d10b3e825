"""Follow HTTP/2, drop clients that reset streams too fast, give everything else to the kernel."""

from xdpipe import DROP, PASS, Pipeline, Steering
from xdpipe.stages import Headers, Http2, TcpStreams

pipeline = Pipeline(
    steering=Steering("tcp"),
    stages=[
        Headers(),
        TcpStreams(n_connections=1024),
        Http2(max_resets_per_s=0.01, reset_burst=20, n_decoders=64, verdict=DROP),
    ],
    default=PASS,
)
