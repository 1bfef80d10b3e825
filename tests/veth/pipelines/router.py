"""Route between two networks, with other addresses outside, and a port that is another there."""

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import DecrementTtl, Headers, SetAddresses

CLIENT_MAC, FAR_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
INNER_MAC, OUTER_MAC = "02:00:00:00:01:01", "02:00:00:00:01:02"
CLIENT = ("10.1.0.2", "fd01::2")
OUTSIDE = ("192.0.2.254", "fd02::ffff")
"""What the client is known as."""
PORT, REAL_PORT = 8000, 9000

OUT, OUT_TO_PORT, IN, IN_FROM_PORT = 1, 2, 3, 4


class Mark(Stage):
    """Say of each packet which way it goes; what is for nobody is dropped."""

    requires = ("flags", "l4_sport", "l4_dport", "ip_version", "src", "dst")
    counters = ("no_ip",)

    def process(self, batch: Batch) -> None:
        self.count("no_ip", batch.drop((batch.ip_version == 0) | (batch.u8(0) & 1 == 1)))
        if batch.port == "inside":
            batch.mark[:] = OUT
            batch.mark[batch.has("TCP") & (batch.l4_dport == PORT)] = OUT_TO_PORT
        else:
            batch.mark[:] = IN
            batch.mark[batch.has("TCP") & (batch.l4_sport == REAL_PORT)] = IN_FROM_PORT


class See(Stage):
    """Count packets whose columns say what the stages before were to write."""

    requires = ("src", "l4_dport", "ip_ttl")
    counters = ("rewritten", "not")

    def process(self, batch: Batch) -> None:
        ipv4, ipv6 = batch.ip_version == 4, batch.ip_version == 6
        outwards = batch.port == "inside"
        column = batch.src if outwards else batch.dst
        last = (254, 255) if outwards else (2, 2)
        fine = (ipv4 & (column[:, 15] == last[0])) | (ipv6 & (column[:, 15] == last[1]))
        fine &= batch.ip_ttl == batch.u8(batch.l3 + 8 - (batch.ip_version == 6))
        if outwards:
            fine &= ~batch.has("TCP") | (batch.l4_dport != PORT)
        self.count("rewritten", int((fine & batch.undecided).sum()))
        self.count("not", int((~fine & batch.undecided).sum()))


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("", guard=False),
    stages=[
        Headers(),
        Mark(),
        SetAddresses(OUTER_MAC, FAR_MAC, src=OUTSIDE, only=OUT),
        SetAddresses(OUTER_MAC, FAR_MAC, src=OUTSIDE, dport=REAL_PORT, only=OUT_TO_PORT),
        SetAddresses(INNER_MAC, CLIENT_MAC, dst=CLIENT, only=IN),
        SetAddresses(INNER_MAC, CLIENT_MAC, dst=CLIENT, sport=PORT, only=IN_FROM_PORT),
        DecrementTtl(),
        See(),
    ],
    default=FORWARD,
)
