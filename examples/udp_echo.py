"""Answer every UDP datagram to port 7 with itself (RFC 862), with VLAN tags and without.

sudo xdpipe run examples/udp_echo.py --dev eth0
"""

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses


class OnlyEchoable(Stage):
    """Drop what must not be answered: no whole datagram, not to one host, or from an echo port."""

    requires = ("flags", "l4_sport", "l4_dport")
    counters = ("not_udp", "not_unicast", "loop")

    def process(self, batch: Batch) -> None:
        whole = batch.has("UDP") & ~batch.has("FRAGMENT")
        self.count("not_udp", batch.drop(~whole | (batch.l4_dport != 7)))
        self.count("not_unicast", batch.drop((batch.u8(0) & 1) == 1))
        # two echo services would play ping-pong for ever (CERT CA-1996-01)
        self.count("loop", batch.drop(batch.l4_sport == 7))


pipeline = Pipeline(
    steering=Steering("udp dst port 7 or (vlan and udp dst port 7)"),
    stages=[Headers(), OnlyEchoable(), SwapAddresses()],
    default=TX,
)
