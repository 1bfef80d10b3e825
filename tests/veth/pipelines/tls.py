"""Follow TLS, give everything to the kernel."""

from xdpipe import PASS, Pipeline, Steering
from xdpipe.stages import Headers, TcpStreams, Tls

pipeline = Pipeline(
    steering=Steering("tcp"),
    stages=[Headers(), TcpStreams(n_connections=1024), Tls()],
    default=PASS,
)
