"""Show the flows that carry the most bytes; both directions of a flow count as one.

xdpipe check examples/top_talkers.py --pcap traffic.pcap
sudo xdpipe run examples/top_talkers.py --dev mirror0

Of any number of flows those with the most bytes are found, in memory for KEPT of them; `error` says
by how much a flow's count may be too high, since others were counted in its place before.
"""

from xdpipe import DROP, Pipeline, Steering
from xdpipe.stages import Flow, Headers, Top

SHOWN = 10
KEPT = 10_000

pipeline = Pipeline(
    steering=Steering(""),
    stages=[Headers(), Top(Flow(), by="bytes", n=KEPT, shown=SHOWN)],
    default=DROP,
)
