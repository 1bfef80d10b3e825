"""Everything that comes by one port goes out of the other; DNS messages are noted."""

from collections import Counter

from xdpipe import FORWARD, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Dns, Headers, TcpStreams
from xdpipe.stages.dns import FOUND


class Note(Stage):
    """Note first messages: direction, transport, name, type, EDNS, RCODE."""

    requires = ("dns_found", "dns_name", "dns_type", "dns_udp_size", "dns_edns_flags", "dns_rcode")

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def process(self, batch: Batch) -> None:
        there = batch.dns_found != 0
        columns = (batch.dns_found, batch.dns_type, batch.dns_udp_size, batch.dns_edns_flags,
                   batch.dns_rcode)  # fmt: skip
        rows = zip(*(column[there].tolist() for column in columns), strict=True)
        for name, (found, kind, size, flags, rcode) in zip(
            batch.text("dns_name", there), rows, strict=True
        ):
            what = "response" if found & FOUND["RESPONSE"] else "query"
            over = "tcp" if found & FOUND["TCP"] else "udp"
            edns = f" edns {size} {flags:#x}" if found & FOUND["EDNS"] else ""
            code = f" rcode {rcode}" if found & FOUND["RESPONSE"] else ""
            self.seen[f"{what} {over} {name} {kind}{edns if what == 'query' else ''}{code}"] += 1

    def report(self) -> dict[str, dict[str, int]]:
        return {"seen": dict(self.seen)}


pipeline = Pipeline(
    ports=("inside", "outside"),
    steering=Steering("", guard=False),
    stages=[Headers(), TcpStreams(n_connections=256), Dns(), Note()],
    default=FORWARD,
)
