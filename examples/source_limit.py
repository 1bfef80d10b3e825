"""Let no network send more than its share, and show who tried.

    sudo xdpipe run examples/source_limit.py --dev eth0

Each network of senders, a /24 or in IPv6 a /56, may send RATE packets a second, and DNS_RATE DNS
queries, which make others work more than most packets do. What exceeds that is dropped, all else
goes on to the kernel. `xdpipe status` shows the networks that were limited most, those that send
most, and how long packets are.
"""

from xdpipe import PASS, Pipeline, Steering
from xdpipe.stages import Headers, Histogram, Prefix, RateLimit, Top, Where

RATE, BURST = 5000, 10_000
DNS_RATE, DNS_BURST = 50, 200
NETWORK = Prefix("src", bits4=24, bits6=56)
DNS = 1  # the mark of queries

pipeline = Pipeline(
    steering=Steering("ip or ip6"),
    stages=[
        Headers(),
        Histogram("len"),
        Top(NETWORK, n=1000, shown=10),
        Where("dst port 53", mark=DNS),
        RateLimit(NETWORK, rate=DNS_RATE, burst=DNS_BURST, only=DNS, shown=10),
        RateLimit(NETWORK, rate=RATE, burst=BURST, shown=10),
    ],
    default=PASS,
)
