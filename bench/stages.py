"""What the stages cost, a packet: native ones, the kinds that users write, and what others take.

A row's name says what was measured: `_hot`, one batch of 256 packets that stays in the caches;
`_cold`, packets in 32 MiB of frames, more than L2 has. Times of native stages are what the core
counts around each of them, so without Python; those of other libraries are CPU time of the process.
Before anything is measured, all contestants read the same packets and must give the same fields.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import allocations
import harness
import meters
import monlist as kinds
import readers
import tins
from laid import BATCH, COLD_FRAMES, FRAME, Laid
from packets import Traffic, again

from xdpipe.batch import Batch
from xdpipe.chain import Chain
from xdpipe.stage import NativeStage, Stage
from xdpipe.stages import (
    Count,
    Decap,
    DecrementTtl,
    Dns,
    Flow,
    FlowMeter,
    Headers,
    Histogram,
    Http1,
    Http2,
    RateLimit,
    Sample,
    SetAddresses,
    SetVlan,
    SwapAddresses,
    TcpStreams,
    Tls,
    Top,
    Where,
)
from xdpipe.verdict import Verdict


@dataclass(frozen=True)
class Native:
    """A native stage.

    Attributes:
        make: makes a chain whose last stage it is.
        traffic: kind of the packets (packets.KINDS).
        aim: of ns per packet, hot.
        afresh: it keeps state by which packets that come again are not what they were at first.
            It is measured cold alone, with new state for each pass.
    """

    make: Callable[[], Sequence[Stage]]
    traffic: str = "all"
    aim: str = ""
    afresh: bool = False


def streams(*behind: NativeStage) -> list[NativeStage]:
    return [Headers(), TcpStreams(), *behind]


NATIVE = {
    "headers": Native(lambda: [Headers()], aim="≤ 15"),
    "tcp_streams": Native(streams, "tcp", afresh=True),
    "tls": Native(lambda: streams(Tls()), "tls", "≤ 60", afresh=True),
    "tls_hello": Native(lambda: streams(Tls()), "hello", afresh=True),
    "http1": Native(lambda: streams(Http1()), "http", afresh=True),
    "http2": Native(lambda: streams(Http2()), "http2", afresh=True),
    "dns": Native(lambda: [Headers(), Dns()], "dns", "≤ 60"),
    "flow_meter": Native(lambda: [Headers(), FlowMeter()], "plain"),
    "decap": Native(lambda: [Headers(), Decap()]),
    "swap_addresses": Native(lambda: [Headers(), SwapAddresses()], "plain"),
    "set_addresses": Native(lambda: [Headers(), SetAddresses(src="192.0.2.1", sport=7)], "plain"),
    "decrement_ttl": Native(lambda: [Headers(), DecrementTtl(expired=None)], "plain"),
    "push_vlan": Native(lambda: [Headers(), SetVlan(7, push=True)], "plain"),
    "count": Native(lambda: [Headers(), Count("ip_proto", "l4_dport")], "plain"),
    "histogram": Native(lambda: [Headers(), Histogram("payload_len")], "plain"),
    "rate_limit": Native(lambda: [Headers(), RateLimit(Flow(), rate=1e6, burst=99)], "plain"),
    "sample": Native(lambda: [Headers(), Sample(10, mark=1)], "plain"),
    "top": Native(lambda: [Headers(), Top("src")], "plain"),
    "where": Native(lambda: [Headers(), Where("udp port 53", mark=1)], "plain"),
}


@dataclass(frozen=True)
class Protocol:
    """A protocol that others read, too.

    Attributes:
        traffic: kind of packets.
        fields: what they are.
        stage: of NATIVE, what reads it here; None: none yet.
        columns: what its columns say; packets are those of the whole batch.
        payload: the readers are given payloads.
    """

    traffic: str
    fields: type
    stage: str | None = None
    columns: Callable[[Batch], list[readers.Fields]] | None = None
    payload: bool = True


PROTOCOLS = {
    "headers": Protocol("plain", readers.Headers, "headers", readers.xdpipe_headers, payload=False),
    "dns": Protocol("dns", readers.Question, "dns", readers.xdpipe_question),
    "hello": Protocol("hello", readers.Hello, "tls_hello", readers.xdpipe_hello),
}


def peer_lacks(name: str) -> str | None:
    """Return why a library cannot take part."""
    if importlib.util.find_spec(name) is None:
        return f"{name} is not installed here"
    return None


def payloads(packets: list[bytes]) -> list[bytes]:
    batch = Batch(bytearray(FRAME * len(packets)), len(packets))
    batch.load(packets)
    Headers().process(batch)
    ends = zip(batch.payload.tolist(), batch.payload_len.tolist(), strict=True)
    return [packet[at : at + n] for packet, (at, n) in zip(packets, ends, strict=True)]


def read_or_none(read: Callable[[bytes], readers.Fields], data: bytes) -> readers.Fields | None:
    try:
        return read(data)
    except Exception:  # each library has its own, and some have none
        return None


class Contest:
    """A protocol, the packets that all contestants read, and the contestants.

    Attributes:
        packets: whole ones.
        data: what the readers get of them.
        left_out: how many there are besides, which some contestant refuses.
    """

    def __init__(self, name: str, traffic: Traffic) -> None:
        self.protocol = PROTOCOLS[name]
        self.readers = {
            peer: make() for peer, make in readers.READERS[name].items() if peer_lacks(peer) is None
        }
        # each of hosts of its own: none comes again in a connection of another
        packets = [again(packet, k) for k, packet in enumerate(traffic.of(self.protocol.traffic))]
        data = payloads(packets) if self.protocol.payload else packets
        self.packets, self.data = [], []
        for packet, one in zip(packets, data, strict=True):
            if all(read_or_none(read, one) is not None for read in self.readers.values()):
                self.packets.append(packet)
                self.data.append(one)
        self.left_out = len(packets) - len(self.packets)
        self.tins = tins.Tins(name, self.data) if name in tins.PROTOCOLS else None
        self._agree(name)

    def _agree(self, name: str) -> None:
        """End unless all give the same fields of all packets."""
        digests = {
            peer: readers.digest(map(read, self.data)) for peer, read in self.readers.items()
        }
        if self.tins is not None:
            digests["libtins"] = self.tins.digest(self.protocol.fields._fields)
        if self.protocol.columns is not None and self.protocol.stage is not None:
            batch = Batch(bytearray(FRAME * len(self.packets)), len(self.packets))
            batch.load(self.packets)
            Chain(NATIVE[self.protocol.stage].make(), batch).run()
            digests["xdpipe"] = readers.digest(self.protocol.columns(batch))
        first, *others = digests
        for other in others:
            if digests[other] != digests[first]:
                harness.fail(f"{name}: {first} and {other} read different fields:\n"
                             f"{digests[first]}\n{digests[other]}")  # fmt: skip
        if not self.packets:
            harness.fail(f"{name}: no packets that all contestants read")


def measure_laid(
    laid: Laid, make: Callable[[], Sequence[Stage]], afresh: bool, seconds: float
) -> dict[str, float]:
    return {"ns": laid.run(make, seconds, afresh=afresh)}


def kinds_agree(laid: Laid) -> None:
    """End unless the stage drops the same packets in all of its kinds."""
    verdicts = {}
    for kind, make in kinds.KINDS.items():
        chain = Chain([Headers(), make()], laid.batch)
        for _ in laid.batches():
            chain.run()
        verdicts[kind] = laid.batch.verdict.tolist()
    if len({tuple(verdict) for verdict in verdicts.values()}) > 1:
        harness.fail(f"monlist: {', '.join(verdicts)} do not drop the same packets")
    if set(verdicts["array"]) != {Verdict.UNDECIDED, Verdict.DROP}:
        harness.fail("monlist: not some packets are dropped")


def native_contestants(traffic: Traffic, seconds: float) -> dict[str, harness.Measure]:
    contestants: dict[str, harness.Measure] = {}
    for name, native in NATIVE.items():
        packets = traffic.of(native.traffic)
        for variant, n_frames in (("hot", BATCH), ("cold", COLD_FRAMES)):
            if variant == "cold" or not native.afresh:
                laid = Laid(packets, n_frames)
                contestants[f"{name}_{variant}"] = partial(
                    measure_laid, laid, native.make, native.afresh, seconds
                )
    return contestants


def peer_contestants(contests: dict[str, Contest], seconds: float) -> dict[str, harness.Measure]:
    contestants: dict[str, harness.Measure] = {}
    for name, contest in contests.items():
        protocol = contest.protocol
        if protocol.stage is not None:
            native = NATIVE[protocol.stage]
            laid = Laid(contest.packets, COLD_FRAMES if native.afresh else BATCH)
            contestants[f"{name}: xdpipe"] = partial(
                measure_laid, laid, native.make, native.afresh, seconds
            )
        for peer, read in contest.readers.items():
            contestants[f"{name}: {peer}"] = lambda read=read, data=contest.data: {
                "ns": readers.cpu_ns(read, data, seconds)
            }
        if contest.tins is not None:
            contestants[f"{name}: libtins"] = lambda tins=contest.tins: {"ns": tins.cpu_ns(seconds)}
    return contestants


def main() -> None:
    given = harness.options(__doc__.splitlines()[0])
    console = harness.Console(stderr=True)
    missing = [why for peer in ("dpkt", "pypacker", "nfstream") if (why := peer_lacks(peer))]
    for why in missing:
        console.print(f"left out: {why}")
    tins.build()
    traffic = Traffic()
    contests = {name: Contest(name, traffic) for name in PROTOCOLS}
    monlist = Laid(kinds.traffic(traffic.of("udp")), BATCH)
    kinds_agree(monlist)
    has_nfstream = peer_lacks("nfstream") is None
    n_metered = meters.write_capture(traffic.of("plain"))

    contestants = native_contestants(traffic, given.seconds)
    contestants |= peer_contestants(contests, given.seconds)
    for kind, make in kinds.KINDS.items():
        contestants[f"monlist_{kind}"] = partial(
            measure_laid, monlist, lambda make=make: [Headers(), make()], False, given.seconds
        )
    if has_nfstream:
        contestants["nfstream"] = meters.nfstream
    contestants["flow_meter"] = meters.flow_meter
    results = harness.alternate(contestants, given.rounds, console)
    ns = {name: harness.series(result, "ns") for name, result in results.items()}
    facts = {
        "packets": traffic.source,
        "compared": "; ".join(
            f"{name} {len(contest.packets)} packets, {contest.left_out} left out that not all read"
            for name, contest in contests.items()
        ),
        "missing": ", ".join(missing) or "nobody",
        "disturbance": harness.disturbance(results),
    }
    rows = [*native_rows(ns), *peer_rows(contests, ns), *kind_rows(ns)]
    rows += [*meter_rows(results, n_metered), *allocation_rows()]
    harness.report("stages", rows, facts, given)


Series = dict[str, list[float]]
NS = "ns/pkt"


def native_rows(ns: Series) -> list[harness.Row]:
    rows = []
    for name, native in NATIVE.items():
        for variant in ("hot", "cold"):
            if f"{name}_{variant}" in ns:
                aim = native.aim if variant == "hot" or native.afresh else ""
                row = f"{name}_{variant}"
                rows.append(harness.alone(row, NS, ns[row], aim))
    return rows


def peer_rows(contests: dict[str, Contest], ns: Series) -> list[harness.Row]:
    """Compare with what is here; where nothing is yet, say what the others take."""
    rows = []
    for name, contest in contests.items():
        ours = ns.get(f"{name}: xdpipe")
        for peer in (*contest.readers, *(("libtins",) if contest.tins is not None else ())):
            theirs = ns[f"{name}: {peer}"]
            row = f"{name}_{peer}"
            if ours is None:
                rows.append(harness.alone(row, NS, theirs))
            else:
                rows.append(harness.compare(row, NS, ours, peer, theirs, ""))
    return rows


def kind_rows(ns: Series) -> list[harness.Row]:
    rows = []
    in_c = ns.get("monlist_c")
    for kind in kinds.KINDS:
        ours, aim = ns[f"monlist_{kind}"], kinds.AIMS.get(kind, "")
        if in_c is None or kind == "c":
            rows.append(harness.alone(f"monlist_{kind}", NS, ours))
        else:
            rows.append(harness.compare(f"monlist_{kind}", NS, ours, "c", in_c, aim))
    return rows


def meter_rows(results: dict[str, list[dict[str, float]]], n_packets: int) -> list[harness.Row]:
    """Compare FlowMeter with nfstream, if it is there; both must count the same."""
    ours, theirs = results["flow_meter"], results.get("nfstream")
    for name, runs in (("FlowMeter", ours), ("nfstream", theirs or [])):
        for run in runs:
            told = [run[what] for what in ("flows", "packets", "bytes")]
            if told != [ours[0]["flows"], n_packets, ours[0]["bytes"]]:
                harness.fail(
                    f"{name}: {told} flows, packets, bytes; {n_packets} packets, {ours[0]}"
                )
    row, ns = "flow_meter_file", harness.series(ours, "ns")
    if theirs is None:
        return [harness.alone(row, NS, ns)]
    return [harness.compare(row, NS, ns, "nfstream", harness.series(theirs, "ns"), "≤ 0.1")]


def allocation_rows() -> list[harness.Row]:
    counted = allocations.counted(list(NATIVE))
    return [
        harness.alone(f"{name}_allocations", "/M pkt", [calls / n * 1e6], "≤ 0")
        for name, (n, calls) in counted.items()
    ]


if __name__ == "__main__":
    main()
