"""One and the same stage written in each of the four kinds: ns per packet, for batches in memory.

Two stages: `monlist` looks at two bytes of a packet, as filters do; `repeats` goes over 16 bytes of
each and keeps a table, as what recognises does. The time is the one that xdpipe itself counts for a
stage, around its call, the median over batches; 256 packets of 90 to 530 bytes that stay in the
caches. That all kinds find the same is checked.
"""

import random
import statistics
import time
from typing import Any

import harness
import numpy as np
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpipe import Batch, CStage, Packet, PacketStage, Stage
from xdpipe.chain import Chain
from xdpipe.jit import jit_stage
from xdpipe.stages import Headers

BATCH = 256
SLOTS = 65536
MASK = 0xFFFFFFFF
MANY = 1000
SEEN = {"seen": "uint32"}


class MonlistArray(Stage):
    requires, counters = ("payload",), ("hits",)

    def process(self, batch: Batch) -> None:
        mode = batch.u8(batch.payload) & 7
        code = batch.u8(batch.payload + 3)
        self.count("hits", batch.drop((mode == 7) & (code == 42)))


@jit_stage(requires=("payload",), counters=("hits",))
def monlist_jit(batch, counters):  # type: ignore[no-untyped-def]
    for i in range(batch.n):
        if batch.u8(i, batch.payload[i]) & 7 == 7 and batch.u8(i, batch.payload[i] + 3) == 42:
            counters.hits += batch.drop(i)


class MonlistPacket(PacketStage):
    requires, counters = ("payload",), ("hits",)

    def packet(self, p: Packet) -> None:
        if p.u8(p.payload) & 7 == 7 and p.u8(p.payload + 3) == 42:
            self.count("hits", p.drop())


class RepeatsArray(Stage):
    requires, counters, columns = ("payload", "flow_hash"), ("hits",), SEEN

    def __init__(self) -> None:
        self.n = np.zeros(SLOTS, np.int64)

    def process(self, batch: Batch) -> None:
        hashes = batch.flow_hash.astype(np.int64)
        data = batch.bytes_at(batch.payload, 16)
        for k in range(16):
            hashes = (hashes * 31 + data[:, k]) & MASK
        slots = hashes & (SLOTS - 1)
        # of packets of one batch that share a slot, each sees those before it
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        runs = np.diff(np.r_[first, len(ordered)])
        nth = np.empty(len(slots), np.int64)
        nth[order] = np.arange(1, len(slots) + 1) - np.repeat(first, runs)
        seen = self.n[slots] + nth
        self.n[ordered[first]] += runs
        batch.seen[:] = seen
        self.count("hits", batch.drop(seen > MANY))


@jit_stage(
    requires=("payload", "flow_hash"), counters=("hits",), columns=SEEN,
    state={"n": np.zeros(SLOTS, np.int64)},
)  # fmt: skip
def repeats_jit(batch, counters, state):  # type: ignore[no-untyped-def]
    for i in range(batch.n):
        hashed = batch.flow_hash[i]
        for k in range(16):
            hashed = (hashed * 31 + batch.u8(i, batch.payload[i] + k)) & MASK
        slot = hashed & (SLOTS - 1)
        state.n[slot] += 1
        batch.seen[i] = state.n[slot]
        if state.n[slot] > MANY:
            counters.hits += batch.drop(i)


class RepeatsPacket(PacketStage):
    requires, counters, columns = ("payload", "flow_hash"), ("hits",), SEEN

    def __init__(self) -> None:
        self.n = np.zeros(SLOTS, np.int64)

    def packet(self, p: Packet) -> None:
        hashed, at, data = p.flow_hash, p.payload, p.data
        for k in range(16):
            hashed = (hashed * 31 + (data[at + k] if at + k < len(data) else 0)) & MASK
        slot = hashed & (SLOTS - 1)
        self.n[slot] += 1
        p.seen = self.n[slot]
        if self.n[slot] > MANY:
            self.count("hits", p.drop())


class ScapyPacket(PacketStage):
    """`monlist` by scapy."""

    requires, counters = (), ("hits",)

    def packet(self, p: Packet) -> None:
        data = bytes(p.scapy[UDP].payload) if UDP in p.scapy else b""
        if len(data) > 3 and data[0] & 7 == 7 and data[3] == 42:
            self.count("hits", p.drop())


def packets() -> list[bytes]:
    rng = random.Random(5)
    made = []
    for i in range(BATCH):
        ntp = b"\x17\x00\x03\x2a" if i % 20 == 0 else b"\x23\x02\x06\xec"
        made.append(
            bytes(
                Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
                / IP(src=f"10.0.{rng.randrange(256)}.{rng.randrange(256)}", dst="10.1.0.1")
                / UDP(sport=rng.randrange(1024, 65536), dport=123)
                / (ntp + rng.randbytes(44 + rng.randrange(440)))
            )
        )
    return made


class Contestant:
    """A stage in a chain behind Headers."""

    def __init__(self, stage: Stage, data: list[bytes]) -> None:
        self.batch = Batch(bytearray(1 << 20), BATCH)
        self.batch.load(data)
        self.chain = Chain([Headers(), stage], self.batch)

    def turn(self) -> int:
        """Run on one batch; return the ns that are counted for the stage."""
        self.batch.verdict[:] = 0
        self.chain.run()
        ns: int = self.chain.read_counts()[1]["ns"]
        return ns

    def hits(self, n: int) -> int:
        """Return what it has found in its first n batches."""
        for _ in range(n):
            self.turn()
        if self.chain.read_counts()[1]["errors"]:
            harness.fail(f"{self.chain.infos[1].name} failed")
        return self.chain.stages[1].counted("hits")

    def measure(self, seconds: float) -> dict[str, float]:
        """Return the median over batches, which tells little of who else was running."""
        end, total, each = time.monotonic() + seconds, self.turn(), []
        while not each or time.monotonic() < end:
            former, total = total, self.turn()
            each.append(total - former)
        return {"ns": statistics.median(each) / BATCH}


def c_stage(name: str, **options: Any) -> CStage:
    return CStage(f"{name}.c", counters=("hits",), **options)


def main() -> None:
    given = harness.options(__doc__)
    data = packets()
    stages = {
        "monlist c": lambda: c_stage("monlist", requires=("payload",)),
        "monlist jit": monlist_jit,
        "monlist array": MonlistArray,
        "monlist packet": MonlistPacket,
        "monlist scapy": ScapyPacket,
        "repeats c": lambda: c_stage(
            "repeats", requires=("payload", "flow_hash"), columns=SEEN, state="struct table"
        ),
        "repeats jit": repeats_jit,
        "repeats array": RepeatsArray,
        "repeats packet": RepeatsPacket,
    }
    found: dict[str, set[int]] = {}
    for name, make in stages.items():
        hits = Contestant(make(), data).hits(MANY + 5 if "repeats" in name else 5)
        found.setdefault(name.split()[0], set()).add(hits)
    if any(len(hits) > 1 or hits == {0} for hits in found.values()):
        harness.fail(f"the kinds do not agree: {found}")
    contestants = {name: Contestant(make(), data) for name, make in stages.items()}
    measures: dict[str, harness.Measure] = {
        name: lambda contestant=contestant: contestant.measure(given.seconds)
        for name, contestant in contestants.items()
    }
    results = harness.alternate(measures, given.rounds, harness.Console(stderr=True))
    rows = []
    for name, series in results.items():
        ns = harness.series(series, "ns")
        which, kind = name.split()
        c = harness.series(results[f"{which} c"], "ns")
        if kind == "c":
            rows.append(harness.alone(name, "ns/pkt", ns))
        else:
            rows.append(
                harness.compare(name, "ns/pkt", ns, "c", c, "≤ 1.5" if kind == "jit" else "")
            )
    harness.report("kinds", rows, {"batch": str(BATCH), "packet": "90 to 530 bytes"}, given)


if __name__ == "__main__":
    main()
