"""A loaded steering program, and what became of a packet in it."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from xdpipe.bpf_program import XDP_PASS, XDP_REDIRECT
from xdpipe.steering import Guard, SshPeer, SteerCounters, SteerProgram

AF_XDP, SOL_XDP = 44, 283  # linux/socket.h; Python's socket has no names for them
XDP_RX_RING = 2  # linux/if_xdp.h

PEER4, PEER6 = "198.51.100.7", "2001:db8::7"
SSH_PORT = 2222
GUARD = Guard((SshPeer(ip_address(PEER4), SSH_PORT), SshPeer(ip_address(PEER6), SSH_PORT)))


def unbound_xsk() -> socket.socket:
    """Return an AF_XDP socket that is bound to nothing; an XSKMAP takes it for its rx ring."""
    xsk = socket.socket(AF_XDP, socket.SOCK_RAW)
    xsk.setsockopt(SOL_XDP, XDP_RX_RING, 64)
    return xsk


@dataclass
class Steered:
    """A loaded program whose queue 0 has a socket, unless a test releases it."""

    program: SteerProgram

    def way_out(self, packet: bytes) -> str:
        """Run the program on a packet and return the name of the one counter it ended in."""
        before = self.program.counters()
        action = self.program.run(packet)
        after = self.program.counters()
        assert after.seen == before.seen + 1
        ways = _ways(before)
        [(name, n)] = [
            (name, n - ways[name]) for name, n in _ways(after).items() if n != ways[name]
        ]
        assert n == 1
        assert action == (XDP_REDIRECT if name == "redirected" else XDP_PASS)
        return name


def _ways(counters: SteerCounters) -> dict[str, int]:
    return {**counters.to_kernel, "redirected": counters.redirected}
