"""Dns against tshark: header, counts, first question, EDNS of every message in the captures.

A message is looked at in its own frame where Headers finds it there. Where it lies behind what
Headers does not read (other link types, tunnels), the UDP payload that tshark found is put into a
packet. What both call malformed stays malformed. DIFFERENCES has what is allowed to differ, and
why; an entry that no message needs is an error.
"""

import mmap
from collections import Counter
from pathlib import Path
from random import Random

from dns_messages import Row, check_cuts, message, packet, question, random_name, rows
from guard_page import PAGE
from tshark import Frame, all_frames, dissect
from xdpipe.batch import Batch
from xdpipe.capture import CaptureWriter
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.errors import XdpipeError
from xdpipe.stages import Dns, Headers, TcpStreams
from xdpipe.stages.dns import MALFORMED, wire_name

REASONS = {0: ""} | {value: name for name, value in MALFORMED.items()}
PORTS = {"dns": 53, "mdns": 5353, "llmnr": 5355}
UPDATE = 5

DIFFERENCES: dict[str, str] = {
    "several questions": "RFC 9619 has such a query be malformed; tshark lists the questions",
    "a name that cannot be": "tshark writes <what is wrong> in its place and goes on behind it, "
    "where type and class then are somewhere; to xdpipe the message ends there",
    "a name of one byte": "tshark counts no label in it",
    "data of records": "tshark looks into it; xdpipe does so only for OPT",
}


def printed(text: str) -> str:
    r"""Return a name as tshark writes it: control characters as in C, octal; no other escapes."""
    if text in ("", "."):
        return {"": "", ".": "<root>"}[text]
    wire, labels = wire_name(text), []
    while wire[0]:
        labels.append(wire[1 : wire[0] + 1])
        wire = wire[wire[0] + 1 :]
    in_c = dict(zip("\a\b\t\n\v\f\r", "abtnvfr", strict=True))
    return "".join(
        f"\\{in_c[c]}" if c in in_c else f"\\{ord(c):03o}" if c < " " or c == "\x7f" else c
        for c in b".".join(labels).decode(errors="replace")
    )


def lower(text: str) -> str:
    """Put ASCII into lower case, as DNS compares (RFC 4343), and nothing else."""
    return "".join(c.lower() if c.isascii() else c for c in text)


def compare(row: Row, frame: Frame) -> set[str]:
    """Compare; return which differences it took."""
    excuses: set[str] = set()
    reason = REASONS[row["dns_malformed"]]  # type: ignore[index]
    found: set[str] = row["dns_found"]  # type: ignore[assignment]
    update = row["dns_opcode"] == UPDATE
    wanted: dict[str, object] = {}
    if "MESSAGE" in found:
        names = (
            ("zones", "prerequisites", "updates") if update else ("queries", "answers", "auth_rr")
        )
        wanted |= {
            "dns.id": row["dns_id"], "dns.flags": row["dns_flags"],
            f"dns.count.{names[0]}": row["dns_n_questions"],
            f"dns.count.{names[1]}": row["dns_n_answers"],
            f"dns.count.{names[2]}": row["dns_n_authority"],
            "dns.count.add_rr": row["dns_n_additional"],
        }  # fmt: skip
    if any(name.startswith("<") and name != "<Root>" for name in frame["dns.qry.name"]):
        excuses.add("a name that cannot be")
        assert reason in ("POINTER_LOOP", "POINTER_AHEAD", "LABEL_TYPE"), row
    elif "QUESTION" in found or frame["dns.qry.name"]:
        assert lower(frame["dns.qry.name"][0]) == printed(str(row["dns_name"]))
        wanted |= {"dns.qry.type": row["dns_type"], "dns.qry.class": row["dns_class"]}
        if len(str(row["dns_name"])) == 1:
            excuses.add("a name of one byte")
        else:
            wanted["dns.count.labels"] = row["dns_n_labels"]
    if "EDNS" in found or frame["dns.rr.udp_payload_size"]:
        wanted |= {
            "dns.rr.udp_payload_size": row["dns_udp_size"],
            "dns.resp.edns0_version": row["dns_edns_version"],
            "dns.resp.z": row["dns_edns_flags"],
            "dns.resp.ext_rcode": int(str(row["dns_rcode"])) >> 4,
        }
    for field, value in wanted.items():
        assert frame.first(field) == value, (field, row, frame)
    bad = bool(frame["_ws.malformed"])
    if bad and not reason and "PARTIAL" not in found:
        excuses.add("data of records")
    elif reason == "MANY_QUESTIONS":
        excuses.add("several questions")
    elif "a name that cannot be" not in excuses:
        assert bool(reason) <= bad, (row, frame)
        assert ("TRAILING" in found) == bool(frame["dns.extraneous.length"]), (row, frame)
    return excuses


def is_dns(frame: Frame) -> tuple[str, str] | None:
    """Return what a DNS message came over, and as which of PORTS, if the frame has one at its end.

    Behind DNS over TCP stands what is in its records, where tshark looks into it (TKEY).
    """
    layers = frame["frame.protocols"][0].split(":") if frame["frame.protocols"] else []
    if layers[-2:-1] == ["udp"] and layers[-1] in PORTS:
        return "udp", layers[-1]
    return ("tcp", "dns") if "tcp:dns" in ":".join(layers) else None


def run(capture: Path) -> list[Row] | None:
    """Run Headers, TcpStreams, Dns over a capture; None: it is not Ethernet."""
    try:
        batches = CaptureBatches(capture, 64)
    except XdpipeError:
        return None
    stages = [Headers(), TcpStreams(n_connections=4096), Dns(tuple(PORTS.values()))]
    chain = Chain(stages, batches.batch)
    found: list[Row] = []
    for batch in batches:
        chain.run()
        found += rows(batch)
    batches.close()
    return found


def look(packets: list[bytes]) -> list[Row]:
    """Run Headers and Dns over packets made here."""
    batch = Batch(mmap.mmap(-1, 8 << 20), 64)
    headers, dns = Headers(), Dns(tuple(PORTS.values()))
    found: list[Row] = []
    for first in range(0, len(packets), 64):
        batch.load(packets[first : first + 64])
        headers.process(batch)
        dns.process(batch)
        found += rows(batch)
    return found


def wrapped(frame: Frame, protocol: str) -> bytes:
    """Return a packet of the UDP payload that tshark found; a first fragment, if it is cut."""
    data = bytes.fromhex(frame["udp.payload"][-1]) if frame["udp.payload"] else b""
    less = int(frame["udp.length"][-1]) - 8 - len(data)
    return packet(data + bytes(less), PORTS[protocol], PORTS[protocol], less)


def test_it_agrees_with_tshark_on_every_message(captures: Path) -> None:
    compared: Counter[str] = Counter()
    excuses: Counter[str] = Counter()
    for path, frames in all_frames(captures).items():
        seen = run(path) or [{"dns_n_messages": 0}] * len(frames)
        for number, (row, frame) in enumerate(zip(seen, frames, strict=True), 1):
            over, protocol = is_dns(frame) or ("", "")
            if row["dns_n_messages"]:
                assert protocol, (path, number, row)
                assert row["dns_n_messages"] == len(frame["dns.id"]) or row["dns_malformed"]
                compared[over] += 1
            elif over == "udp":
                [row] = look([wrapped(frame, protocol)])
                compared["its payload"] += 1
            else:
                compared["unread"] += over == "tcp"
                continue
            try:
                excuses.update(compare(row, frame))
            except AssertionError as error:
                raise AssertionError(f"{path} frame {number}: {error}") from error
            compared["malformed"] += row["dns_malformed"] != 0
            compared["EDNS"] += "EDNS" in row["dns_found"]  # type: ignore[operator]
    assert set(excuses) == set(DIFFERENCES)
    assert compared["udp"] > 200, compared
    assert compared["tcp"] > 10, compared
    assert compared["its payload"] > 30, compared
    assert compared["unread"] == 2, compared  # of FDDI
    assert compared["malformed"] > 10, compared
    assert compared["EDNS"] > 100, compared


def test_names_are_those_that_tshark_prints(tmp_path: Path) -> None:
    """Each byte alone, and made up names, whose bytes from 0x80 on tshark takes for UTF-8."""
    rng = Random(3)
    names = [bytes([1, c, 0]) for c in range(256)] + [b"\4\xc3\x84bc\0", b"\0"]
    names += [
        bytes(c & 0x7F if place else c for place, c in enumerate(random_name(rng, 0.1)))
        for _ in range(300)
    ]
    capture = tmp_path / "names.pcap"
    with CaptureWriter(capture) as writer:
        for name in names:
            writer.write(0, packet(message([question(name)])))
    fields = ("dns.qry.name", "dns.count.labels", "dns.qry.type")
    n_compared = 0
    packets = [packet(message([question(name)])) for name in names]
    for name, row, frame in zip(names, look(packets), dissect(capture, fields=fields), strict=True):
        n_compared += 1
        assert lower(frame["dns.qry.name"][0]) == printed(str(row["dns_name"])), name
        assert frame.first("dns.qry.type") == row["dns_type"] == 1
        if len(name) > 3 and r"\046" not in str(row["dns_name"]):  # tshark counts dots
            assert frame.first("dns.count.labels") == row["dns_n_labels"], name
    assert n_compared == 558


def test_every_message_of_the_captures_cut_anywhere(captures: Path) -> None:
    """At a guard page: the same verdict, or that it ends; see check_cuts."""
    messages = {
        frame["udp.payload"][-1]
        for frames in all_frames(captures).values() for frame in frames
        if frame["udp.payload"] and is_dns(frame)
    }  # fmt: skip
    n_cut = 0
    for data in map(bytes.fromhex, sorted(messages)):
        if len(packet(data)) <= PAGE:
            check_cuts(data)
            n_cut += 1
    assert n_cut > 200
