"""Count, limit and sample, all in C."""

from xdpipe import DROP, TX, Pipeline, Steering
from xdpipe.stages import Count, Headers, Histogram, RateLimit, Sample, Top, Where

ODD = 1

pipeline = Pipeline(
    steering=Steering("udp dst port 9"),
    stages=[
        Headers(),
        Where("udp src port 1024", mark=ODD),
        Count("l4_sport", shown=100),
        Count(only=ODD),
        Histogram("len"),
        Top("src", n=10, shown=10),
        RateLimit("src", rate=1, burst=10, verdict=TX),
        Sample(5, verdict=DROP),
    ],
    default=DROP,
)
