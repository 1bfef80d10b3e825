"""Stand between two networks like a cable, and let through in either direction only what is wanted.

    xdpipe run inline_filter.py --dev inside=eth1 --dev outside=eth2

From outside come only answers: TCP that is no attempt to connect, UDP from ports that people ask,
ICMP errors and echo replies, and what the networks live by (ARP, neighbour discovery). What is
malformed goes through neither way. Each packet lies in its frame from one interface to the other;
nothing is copied in between.

The guard is off, since what it would keep is to go across; the SSH session that this was started
from stays with the kernel all the same.
"""

import numpy as np

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers

SERVICES = np.zeros(65536, np.bool_)
SERVICES[[53, 123, 443]] = True
"""UDP ports whose answers may come in: DNS, NTP, QUIC."""

SYN, ACK = 0x02, 0x10
ECHO_REQUEST, ECHO_REQUEST6 = 8, 128


class FromOutside(Stage):
    """Drop what asks something of the inside."""

    requires = ("flags", "malformed", "tcp_flags", "l4_sport", "icmp_type")
    counters = ("malformed", "tcp_connect", "udp_unasked", "echo_request", "fragment")

    def process(self, batch: Batch) -> None:
        self.count("malformed", batch.drop(batch.malformed != 0))
        if batch.port != "outside":
            return
        connect = batch.has("TCP") & (batch.tcp_flags & (SYN | ACK) == SYN)
        self.count("tcp_connect", batch.drop(connect))
        unasked = batch.has("UDP") & ~SERVICES[batch.l4_sport]
        self.count("udp_unasked", batch.drop(unasked))
        echo = batch.has("ICMP") & (batch.icmp_type == ECHO_REQUEST)
        echo |= batch.has("ICMP6") & (batch.icmp_type == ECHO_REQUEST6)
        self.count("echo_request", batch.drop(echo))
        # what belongs to a packet whose ports cannot be seen
        self.count("fragment", batch.drop(batch.has("LATER_FRAGMENT")))


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("", guard=False),
    stages=[Headers(), FromOutside()],
    default=FORWARD,
)
