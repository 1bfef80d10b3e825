"""The table of what is fuzzed: a chain of stages for each target, one line to be added."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdpipe.stage import NativeStage, ServedQueue
from xdpipe.stages import (
    Count,
    Decap,
    DecrementTtl,
    Dns,
    FitMtu,
    FixChecksums,
    Flow,
    FlowMeter,
    Headers,
    Histogram,
    Http1,
    Http2,
    MapAddresses,
    Measure,
    Prefix,
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


@dataclass(frozen=True)
class Target:
    """A chain of native stages that inputs are run through.

    Attributes:
        stages: makes the chain, anew with each call. Give stages little memory: all of their
            state is put back before each run.
        port: the server's, in packets that the driver makes around payload (input.c).
        rewrites: the stages change packets. Else the driver demands that no byte changes.
        by_batch: what they say may depend on where batches end. Else the driver demands that it
            does not.
        many_faults: a stage may count several faults of a packet, the first of which stands in its
            column. Else the driver demands that it counts what stands there.
        headroom: bytes before a packet that the stages may use.
        tokens: what libFuzzer puts into inputs, beside what it finds itself.
    """

    stages: Callable[[], Sequence[NativeStage]]
    port: int = 80
    rewrites: bool = False
    by_batch: bool = False
    many_faults: bool = False
    headroom: int = 0
    tokens: tuple[bytes, ...] = ()


_MAC = "02:00:00:00:00:07"


def _streams(*behind: NativeStage) -> list[NativeStage]:
    return [Headers(), TcpStreams(n_connections=8, n_chunks=16), *behind]


def _meter() -> FlowMeter:
    meter = FlowMeter(n_flows=64, active_s=10, evict=True)
    meter.serve(None, [], ServedQueue([], 0, 1))  # nobody reads records
    return meter


_LITTLE = {"n_runs": 2, "n_streams": 3, "window": 64, "digits": 1, "n_slots": 8}
_DNS = (b"\xc0\x0c", b"\x03www\x07example\x03com\x00", b"\x00\x00\x29\x10\x00")
_TLS = (b"\x16\x03\x01", b"\x00\x2b", b"\x00\x10", b"\x00\x0d", b"\x02h2", b"\x0a\x0a")
_HTTP1 = (b"GET ", b"\r\n", b" HTTP/1.1", b"HTTP/1.1 200 ", b"Host: ", b"Content-Length: ",
          b"Transfer-Encoding: chunked")  # fmt: skip
_HTTP2 = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
          b"\x00\x00\x04\x03\x00\x00\x00\x00\x01", b"\x82\x86\x84")  # fmt: skip

# Chunks that TcpStreams hands on are free again with the next batch: one batch may lack some where
# several do not. FlowMeter looks for flows that are over once a batch.
TARGETS = {
    "headers": Target(lambda: [Headers()]),
    "decap": Target(lambda: [Headers(), Decap()], port=4789),
    "tcp_streams": Target(_streams, by_batch=True),
    "dns": Target(
        lambda: _streams(Dns(n_buffers=4)), port=53, by_batch=True, many_faults=True, tokens=_DNS
    ),
    "tls": Target(
        lambda: _streams(Tls(n_buffers=4)), port=443, by_batch=True, many_faults=True, tokens=_TLS
    ),
    "http1": Target(
        lambda: _streams(Http1(n_buffers=4, n_messages=16)), by_batch=True, many_faults=True,
        tokens=_HTTP1,
    ),
    "http2": Target(
        lambda: _streams(Http2(n_decoders=4, n_frames=32, n_messages=16)), by_batch=True,
        many_faults=True, tokens=_HTTP2,
    ),
    "flow_meter": Target(lambda: [Headers(), _meter()], by_batch=True),
    "swap_addresses": Target(lambda: [Headers(), SwapAddresses()], rewrites=True),
    "set_addresses": Target(
        lambda: [Headers(), SetAddresses(_MAC, _MAC, "192.0.2.0/24", ("192.0.2.1", "::1"), 7, 8)],
        rewrites=True,
    ),
    "map_addresses": Target(
        lambda: [
            Headers(),
            MapAddresses(
                ip=[("0.0.0.0/1", "10.0.0.0/8"), ("::/1", "fd00::/96")],
                mac=[("02:00:00:00:00:01", _MAC)], port=[(range(1024), range(5, 1029)), (5555, 0)],
            ),
        ],
        rewrites=True,
    ),
    "fit_mtu": Target(lambda: [Headers(), FitMtu(68, truncate=True)], rewrites=True),
    "fix_checksums": Target(lambda: [Headers(), FixChecksums()], rewrites=True),
    "decrement_ttl": Target(lambda: [Headers(), DecrementTtl()], rewrites=True),
    "set_vlan": Target(lambda: [Headers(), SetVlan(7, pcp=3)], rewrites=True),
    "push_vlan": Target(lambda: [Headers(), SetVlan(7, push=True)], rewrites=True, headroom=4),
    "put_vlan": Target(lambda: [Headers(), SetVlan(7, put=True)], rewrites=True, headroom=4),
    "pop_vlan": Target(lambda: [Headers(), SetVlan(pop=True)], rewrites=True),
    "count": Target(lambda: [Headers(), Count(Prefix("src", bits4=24), "l4_dport", n=8)]),
    "histogram": Target(lambda: [Headers(), Histogram("payload_len")]),
    "measure": Target(lambda: [Headers(), Measure(**_LITTLE)], tokens=(b"xP\x00\x01\x00",)),
    "rate_limit": Target(lambda: [Headers(), RateLimit(Flow(), rate=9, burst=9, n_keys=8)]),
    "sample": Target(lambda: [Headers(), Sample(3, "flow", mark=1, seed=1)]),
    "top": Target(lambda: [Headers(), Top("src", n=8, by="bytes")]),
    "where": Target(lambda: [Headers(), Where("tcp[13] & 2 != 0 or udp port 53", mark=1)]),
}  # fmt: skip

LEFT_OUT = {
    "Record": "what it copies to is shared with another process; it reads nothing of a packet",
}
"""Native stages that are not fuzzed, and why."""
