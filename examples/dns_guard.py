"""Guard a name server against abuse over UDP; honest clients are sent on to TCP.

Dropped are ANY queries (RFC 8482), responses that nobody asked for (reflection), and clients over
a rate. Every other query is answered with itself and the TC bit: a resolver then asks again over
TCP (RFC 7766), which goes to the server as ever, and a spoofed source never does.

    sudo xdpipe run examples/dns_guard.py --dev eth0
"""

import os
from collections import Counter
from ipaddress import ip_address

import numpy as np

from xdpipe import TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers, SwapAddresses

QUERIES_PER_S = 20  # of one client
SLOTS = 1 << 16  # clients told apart: memory is fixed, whatever an attacker makes up
KEPT, TALLIED = 1000, 100  # remembered for the report, and of each 4096 queries the most frequent
TYPES = {1: "A", 2: "NS", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 255: "ANY"}


class DnsGuard(Stage):
    """Count names, types and clients of DNS queries; drop abuse; mark the rest truncated."""

    requires = ("flags", "payload", "payload_len", "src", "l4_dport")
    counters = ("queries", "not_a_query", "unasked_response", "any_query", "over_rate")

    def __init__(self) -> None:
        self.asked = {"names": Counter(), "types": Counter(), "clients": Counter()}
        self.noted, self.n_noted = np.zeros((4096, 16 + 2 + 64), np.uint8), 0
        self.rate = np.zeros(SLOTS, np.int64)
        # odd, and nobody's to guess: else an attacker could make up who shares a client's slot
        self.secret = np.frombuffer(os.urandom(16), np.uint64) | np.uint64(1)
        self.second = 0

    def process(self, batch: Batch) -> None:
        dns = batch.payload  # id 2, flags 2, counts 8, then the question (RFC 1035, 4.1)
        bits = batch.u16(dns + 2)
        whole = batch.has("UDP") & ~batch.has("FRAGMENT") & (batch.payload_len >= 17)
        self.count("not_a_query", batch.drop(~whole | (batch.u16(dns + 4) != 1)))
        self.count("unasked_response", batch.drop((bits & 0x8000) != 0))
        names = batch.bytes_at(dns + 12, 64)
        end = dns + 13 + np.argmax(names == 0, axis=1).astype(np.int32)
        self.note(np.hstack([batch.src, batch.bytes_at(end, 2), names])[batch.undecided])
        types = batch.u16(end)
        self.count("any_query", batch.drop(types == 255))
        self.count("over_rate", batch.drop(self.over_rate(batch)))
        self.count("queries", int(batch.undecided.sum()))
        batch.put_u16(dns + 2, (bits & 0x7910) | 0x8200, batch.undecided, fix_checksum=True)

    def over_rate(self, batch: Batch) -> np.ndarray:
        now = int(batch.time_ns[-1]) // 1_000_000_000
        if now != self.second:
            self.second, self.rate[:] = now, 0
        halves = batch.src.view(np.uint64) * self.secret
        slot = ((halves[:, 0] + halves[:, 1]) >> 48).astype(int)
        np.add.at(self.rate, slot[batch.undecided], 1)
        return self.rate[slot] > QUERIES_PER_S

    def note(self, rows: np.ndarray) -> None:
        if self.n_noted + len(rows) > len(self.noted):
            self.tally()
        self.noted[self.n_noted : self.n_noted + len(rows)] = rows
        self.n_noted += len(rows)

    def tally(self) -> None:
        rows = self.noted[: self.n_noted].view("V82").ravel().tolist()
        self.n_noted = 0
        for raw, n in Counter(rows).most_common(TALLIED):  # once per question, not per packet
            client, kind = ip_address(raw[:16]), int.from_bytes(raw[16:18], "big")
            self.add("clients", str(client.ipv4_mapped or client), n)
            self.add("types", TYPES.get(kind, f"TYPE{kind}"), n)
            self.add("names", text(raw[18:]), n)

    def add(self, what: str, key: str, n: int) -> None:
        if key in self.asked[what] or len(self.asked[what]) < KEPT:
            self.asked[what][key] += n

    def report(self) -> dict[str, dict[str, int]]:
        self.tally()
        return {what: dict(counter.most_common(5)) for what, counter in self.asked.items()}


def text(name: bytes) -> str:
    """Write a name's labels with dots (RFC 1035, 3.1), odd bytes escaped."""
    labels = []
    while name and 0 < name[0] < 64:
        labels.append(name[1 : name[0] + 1].lower().decode("ascii", "backslashreplace"))
        name = name[name[0] + 1 :]
    return ".".join(labels) or "."


pipeline = Pipeline(
    steering=Steering("udp port 53"), stages=[Headers(), DnsGuard(), SwapAddresses()], default=TX
)
