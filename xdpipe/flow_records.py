"""Records of flows: as the core writes them, and as files have them.

Fields are named as IANA registers IPFIX information elements (RFC 7012); those of the reverse
direction as RFC 5103, 6.1 says. Texts represent values as RFC 7373 does: times in UTC, addresses as
usual.
"""

from __future__ import annotations

import csv
import io
import json
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xdpipe.core._core import ffi
from xdpipe.flow_table import record_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from xdpipe.recording import FlowOptions

Records = NDArray[np.void]

TCP, ICMP, ICMP6 = 6, 1, 58
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmp6", 132: "sctp"}
END_REASONS = {1: "idle", 2: "active", 3: "ended", 4: "forced", 5: "resources"}
"""flowEndReason (IANA 136) by the names of FlowMeter's counters."""
REVERSE_PEN = 29305
"""The private enterprise number of reverse information elements (RFC 5103, 6.1)."""


class Field(NamedTuple):
    """A field of a record, as files have it.

    Attributes:
        name: as IANA registers it.
        number: that it has there.
        reverse: the same of the way from responder to initiator: enterprise 29305.
        doc: what it says.
        type: in Parquet; `time` is a timestamp of ns.
    """

    name: str
    number: int
    reverse: bool
    doc: str
    type: str


FIELDS = (
    Field("flowStartNanoseconds", 156, False, "first packet from the initiator", "time"),
    Field("flowEndNanoseconds", 157, False, "last packet from the initiator", "time"),
    Field("reverseFlowStartNanoseconds", 156, True, "first packet from the responder", "time"),
    Field("reverseFlowEndNanoseconds", 157, True, "last packet from the responder", "time"),
    Field("sourceIPv4Address", 8, False, "the initiator's, of IPv4", "text"),
    Field("destinationIPv4Address", 12, False, "the responder's, of IPv4", "text"),
    Field("sourceIPv6Address", 27, False, "the initiator's, of IPv6", "text"),
    Field("destinationIPv6Address", 28, False, "the responder's, of IPv6", "text"),
    Field("sourceTransportPort", 7, False, "the initiator's; 0 where there are none", "uint16"),
    Field("destinationTransportPort", 11, False, "the responder's; of ICMP and ICMPv6, as in "
          "NetFlow v9, 256 * type + code of what the initiator sent", "uint16"),
    Field("protocolIdentifier", 4, False, "protocol behind IP", "uint8"),
    Field("icmpTypeCodeIPv4", 32, False, "256 * type + code, of ICMP", "uint16"),
    Field("icmpTypeCodeIPv6", 139, False, "256 * type + code, of ICMPv6", "uint16"),
    Field("dot1qVlanId", 243, False, "of the outer VLAN tag, unless it is 0", "uint16"),
    Field("packetDeltaCount", 2, False, "packets from the initiator", "uint64"),
    Field("octetDeltaCount", 1, False, "their bytes of IP, headers included", "uint64"),
    Field("tcpControlBits", 6, False, "all TCP flags that the initiator sent", "uint16"),
    Field("reversePacketDeltaCount", 2, True, "packets from the responder", "uint64"),
    Field("reverseOctetDeltaCount", 1, True, "their bytes of IP, headers included", "uint64"),
    Field("reverseTcpControlBits", 6, True, "all TCP flags that the responder sent", "uint16"),
    Field("flowEndReason", 136, False, "1 idle, 2 active for long (the flow goes on), 3 ended by "
          "TCP, 4 forced: nobody looked any more, 5 lack of room", "uint8"),
)  # fmt: skip
"""What files have of a flow; behind them the labels, under the names of their columns."""

NAMES = tuple(field.name for field in FIELDS)


def record_dtype(options: FlowOptions) -> np.dtype[np.void]:
    """Return how numpy sees a record of the core; of label 0 text0 and len0, and so on."""
    fields: dict[str, tuple[Any, int]] = {
        "packets": (("u8", 2), 0), "bytes": (("u8", 2), 16), "first_ns": (("u8", 2), 32),
        "last_ns": (("u8", 2), 48), "src": (("u1", 16), 64), "dst": (("u1", 16), 80),
        "sport": ("u2", 96), "dport": ("u2", 98), "vlan": ("u2", 100), "ip_version": ("u1", 102),
        "proto": ("u1", 103), "tcp_flags": (("u1", 2), 104), "end_reason": ("u1", 106),
    }  # fmt: skip
    for name, (_, offset) in fields.items():
        assert ffi.offsetof("struct xp_flow_record", name) == offset, name
    at = int(ffi.sizeof("struct xp_flow_record"))
    for label in range(len(options.labels)):
        fields[f"len{label}"] = ("u1", at)
        fields[f"text{label}"] = (("u1", options.label_bytes), at + 1)
        at += 1 + options.label_bytes
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": record_bytes(options),
        }
    )


@lru_cache(1 << 16)
def _address(data: bytes, version: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, data[12:])
    return socket.inet_ntop(socket.AF_INET6, data)


def _addresses(records: Records, end: str) -> list[str]:
    raw = np.ascontiguousarray(records[end]).tobytes()
    cuts = (raw[at : at + 16] for at in range(0, len(raw), 16))
    return list(map(_address, cuts, records["ip_version"].tolist()))


def _where(mask: NDArray[np.bool_], values: list[Any]) -> list[Any]:
    return [value if there else None for there, value in zip(mask.tolist(), values, strict=True)]


def label_texts(records: Records, label: int) -> list[str | None]:
    r"""Return a label of each record; None where it has none. What is not ASCII stands as \xNN."""
    texts: list[str | None] = [None] * len(records)
    lens = records[f"len{label}"]
    for i in np.flatnonzero(lens).tolist():
        text = records[f"text{label}"][i].tobytes()
        texts[i] = text[: int(lens[i])].decode("ascii", "backslashreplace")
    return texts


def _columns(records: Records, options: FlowOptions) -> Iterator[tuple[str, Any]]:
    """Yield name and values of each field: an array, or a list with None where there is none.

    Times are datetime64, or a list of int64 and None.
    """
    back = records["packets"][:, 1] > 0
    v4, tcp = records["ip_version"] == 4, records["proto"] == TCP
    icmp = np.isin(records["proto"], (ICMP, ICMP6))
    first, last = records["first_ns"].astype(np.int64), records["last_ns"].astype(np.int64)
    src, dst = _addresses(records, "src"), _addresses(records, "dst")
    kind = records["sport"].tolist()
    flags = records["tcp_flags"]
    yield from zip(
        NAMES,
        (
            first[:, 0].tolist(), last[:, 0].tolist(),
            _where(back, first[:, 1].tolist()), _where(back, last[:, 1].tolist()),
            _where(v4, src), _where(v4, dst), _where(~v4, src), _where(~v4, dst),
            np.where(icmp, 0, records["sport"]).tolist(),
            np.where(icmp, records["sport"], records["dport"]).tolist(),
            records["proto"].tolist(),
            _where(icmp & v4, kind), _where(icmp & ~v4, kind),
            _where(records["vlan"] > 0, records["vlan"].tolist()),
            records["packets"][:, 0].tolist(), records["bytes"][:, 0].tolist(),
            _where(tcp, flags[:, 0].tolist()),
            records["packets"][:, 1].tolist(), records["bytes"][:, 1].tolist(),
            _where(tcp, flags[:, 1].tolist()), records["end_reason"].tolist(),
        ),
        strict=True,
    )  # fmt: skip
    for number, label in enumerate(options.labels):
        yield label, label_texts(records, number)


def _time_texts(values: list[int | None]) -> list[str | None]:
    there = np.array([0 if value is None else value for value in values], np.int64)
    texts = np.datetime_as_string(there.astype("datetime64[ns]"), unit="ns").tolist()
    return [
        None if value is None else f"{text}Z" for value, text in zip(values, texts, strict=True)
    ]


_TIMES = frozenset(field.name for field in FIELDS if field.type == "time")


def rows(records: Records, options: FlowOptions) -> list[dict[str, Any]]:
    """Return records as files have them: a dict each, without what does not apply."""
    names, columns = [], []
    for name, values in _columns(records, options):
        names.append(name)
        columns.append(_time_texts(values) if name in _TIMES else values)
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


_PLAIN = frozenset(field.name for field in FIELDS if field.type == "text")
"""Fields of texts that JSON need not quote otherwise than by quotation marks."""


def _members(name: str, values: list[Any]) -> list[str]:
    """Return a field as members of JSON objects, each with a comma; empty where there is none."""
    if name in _TIMES:
        values = _time_texts(values)
    if name in _TIMES or name in _PLAIN:
        return ["" if value is None else f'"{name}":"{value}",' for value in values]
    if name in NAMES:
        return ["" if value is None else f'"{name}":{value},' for value in values]
    encode = json.JSONEncoder().encode  # a label, which may be anything
    return ["" if value is None else f'"{name}":{encode(value)},' for value in values]


def to_ndjson(records: Records, options: FlowOptions) -> bytes:
    """Return records as lines of JSON: what does not apply is left out."""
    members = [_members(name, values) for name, values in _columns(records, options)]
    lines = map("".join, zip(*members, strict=True))
    return "".join([f"{{{line[:-1]}}}\n" for line in lines]).encode()


def csv_head(options: FlowOptions) -> bytes:
    """Return the first line of a CSV file."""
    return (",".join((*NAMES, *options.labels)) + "\n").encode()


def to_csv(records: Records, options: FlowOptions) -> bytes:
    """Return records as lines of CSV (RFC 4180 but for line ends); empty: does not apply."""
    columns = [
        _time_texts(values) if name in _TIMES else values
        for name, values in _columns(records, options)
    ]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(zip(*columns, strict=True))
    return out.getvalue().encode()


def arrow_schema(options: FlowOptions) -> pa.Schema:
    """Return the columns of a Parquet file; takes the package pyarrow."""
    import pyarrow as pa

    types = {
        "time": pa.timestamp("ns", "UTC"), "text": pa.string(), "uint8": pa.uint8(),
        "uint16": pa.uint16(), "uint64": pa.uint64(),
    }  # fmt: skip
    fields = [(field.name, types[field.type]) for field in FIELDS]
    return pa.schema([*fields, *((label, pa.string()) for label in options.labels)])


def to_arrow(records: Records, options: FlowOptions) -> pa.RecordBatch:
    """Return records as Parquet has them: null is what does not apply."""
    import pyarrow as pa

    schema = arrow_schema(options)
    arrays = [
        pa.array(values, schema.field(name).type) for name, values in _columns(records, options)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


TEXT_FORMATS: dict[str, Callable[[Records, FlowOptions], bytes]] = {
    "ndjson": to_ndjson,
    "csv": to_csv,
}
FORMATS = (*TEXT_FORMATS, "parquet")


def longest_text(options: FlowOptions) -> int:
    """Return how many bytes a record has as a line of text at the most."""
    fixed = sum(len(name) for name in NAMES) + len(NAMES) * 32 + 8
    return fixed + sum(len(label) + 8 + 5 * options.label_bytes for label in options.labels)


def describe(data: bytes, options: FlowOptions) -> dict[str, int]:
    """Return what a report has of flows, given as records one behind the other: their bytes."""
    records = np.frombuffer(data, record_dtype(options))
    src, dst = _addresses(records, "src"), _addresses(records, "dst")
    told = {}
    for i, record in enumerate(records):
        ends = (src[i], int(record["sport"])), (dst[i], int(record["dport"]))
        a, b = (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in ends)
        vlan = f" vlan {record['vlan']}" if record["vlan"] else ""
        proto = _PROTOCOLS.get(int(record["proto"]), f"protocol {record['proto']}")
        told[f"{a} > {b} {proto}{vlan}"] = int(record["bytes"].sum())
    return told
