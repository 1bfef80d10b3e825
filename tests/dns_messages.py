"""DNS messages made for tests, packets that carry them, and what a stage Dns said of a batch."""

import struct
from collections.abc import Sequence
from random import Random

from guard_page import GuardedBatch
from xdpipe.batch import ENUMS, Batch
from xdpipe.stages import Dns, Headers
from xdpipe.stages.dns import MALFORMED

A, AAAA, OPT, IN = 1, 28, 41, 1
UDP = 17
HEADER = 12
QUERY, RESPONSE = 0x0100, 0x8180
ROOT = b"\0"
POINTER = b"\xc0\x0c"  # to the first question's name
EXAMPLE = b"\7example\3com\0"
FIRST_FRAGMENT = 0x2000
ETH_IP = bytes.fromhex("020000000001 020000000002 0800 4500")
ADDRESSES = bytes([10, 0, 0, 1, 10, 0, 0, 2])

Row = dict[str, object]


def question(name: bytes = EXAMPLE, kind: int = A, klass: int = IN) -> bytes:
    return name + struct.pack(">2H", kind, klass)


def record(name: bytes = POINTER, kind: int = A, data: bytes = bytes(4), size: int = -1) -> bytes:
    length = len(data) if size < 0 else size
    return name + struct.pack(">2HIH", kind, IN, 60, length) + data


def opt(name: bytes = ROOT, size: int = 1232, ttl: int = 0, data: bytes = b"") -> bytes:
    return name + struct.pack(">2HIH", OPT, size, ttl, len(data)) + data


def message(
    *sections: Sequence[bytes], id: int = 0x1234, flags: int = QUERY,
    counts: Sequence[int] | None = None,
) -> bytes:  # fmt: skip
    """Return a message of questions, answers, authority, additional; counts as they are."""
    sections = (*sections, *[()] * (4 - len(sections)))
    counts = counts or [len(section) for section in sections]
    return struct.pack(">6H", id, flags, *counts) + b"".join(map(b"".join, sections))


def datagram(data: bytes, sport: int = 40000, dport: int = 53, less: int = 0) -> bytes:
    """Return UDP, of which `less` bytes at the end are left out though its length counts them."""
    head = struct.pack(">4H", sport, dport, 8 + len(data), 0)
    return head + data[: len(data) - less]


def packet(data: bytes, sport: int = 40000, dport: int = 53, less: int = 0) -> bytes:
    """Return the packet of a message over IPv4 and UDP; a first fragment, where there is less."""
    udp = datagram(data, sport, dport, less)
    fragment = FIRST_FRAGMENT if less else 0
    rest = struct.pack(">3HBBH", 20 + len(udp), 9, fragment, 64, UDP, 0)
    return ETH_IP + rest + ADDRESSES + udp


def bits(value: int, column: str) -> set[str]:
    return {name for name, (bit, _) in ENUMS[column].items() if value & bit}


def rows(batch: Batch) -> list[Row]:
    columns = {name: getattr(batch, name).tolist() for name in Dns.provides}
    columns["dns_name"] = batch.text("dns_name")
    columns["dns_found"] = [bits(value, "dns_found") for value in columns["dns_found"]]
    return [
        {name: column[i] for name, column in columns.items()} for i in range(len(batch))
    ]  # fmt: skip


def as_text(wire: bytes) -> str:
    """Return a name as text, byte by byte: another way than the stage's."""
    labels = []
    while wire[0]:
        label, wire = wire[1 : wire[0] + 1], wire[wire[0] + 1 :]
        labels.append("".join(
            chr(c) if 0x21 <= c <= 0x7E and c not in b".\\" else f"\\{c:03}" for c in label.lower()
        ))  # fmt: skip
    return ".".join(labels) or "."


def random_name(rng: Random, odd: float) -> bytes:
    """Return a name of any length, some of its bytes odd."""
    size = rng.choice([rng.randrange(1, 40), rng.randrange(1, 255)])
    longest = rng.choice([3, 20, 40, 63])
    wire = b""
    while size - len(wire) > 1:
        n = min(rng.randrange(1, longest + 1), size - len(wire) - 1, 63)
        label = bytes(
            rng.randrange(256) if rng.random() < odd else rng.choice(b"aZ09-_.") for _ in range(n)
        )
        wire += bytes([n]) + (label if rng.random() < odd else label.replace(b".", b"x"))
    return wire + ROOT


def wire_labels(wire: bytes) -> int:
    n = 0
    while wire[0]:
        wire, n = wire[wire[0] + 1 :], n + 1
    return n


def check_cuts(data: bytes) -> None:
    """Cut a message at every length, once for good and once as a first fragment is cut.

    Nothing beyond is read. Cut for good it is malformed where the whole one is, or because it ends;
    and as a first fragment it is PARTIAL where it ends. Columns say what they say of the whole
    message or nothing.
    """
    guarded = GuardedBatch(len(data) + 1)
    ends = {MALFORMED[f"{end}_SHORT"] for end in ("HEADER", "NAME", "QUESTION", "RECORD", "RDATA")}
    ends.add(MALFORMED["MISSING"])
    found = []
    for packets in (
        [packet(data[:n]) for n in range(len(data) + 1)],
        [packet(data, less=len(data) - n) for n in range(len(data) + 1)],
    ):
        batch = guarded.load(packets)
        Headers().process(batch)
        Dns().process(batch)
        found.append(rows(batch))
    whole = found[0][-1]
    for n, (row, part) in enumerate(zip(*found, strict=True)):
        reason = row["dns_malformed"]
        if n < len(data):
            assert "PARTIAL" in part["dns_found"]  # type: ignore[operator]
            # that there are several questions is in the header
            several = n >= HEADER and row["dns_n_questions"] > 1  # type: ignore[operator]
            missing = MALFORMED["MANY_QUESTIONS"] if several else 0
            assert part["dns_malformed"] == (missing if reason in ends else reason), n
        for column in ("dns_id", "dns_name", "dns_name_hash", "dns_type", "dns_udp_size"):
            assert row[column] == part[column], (n, column)
            assert row[column] in (whole[column], "" if column == "dns_name" else 0), (n, column)
