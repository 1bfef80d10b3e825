"""Http1 against tshark: the same messages, in the same order, in each direction of each stream.

tshark gives a message's fields with the frame in which its body ends, Http1 with the one in which
its header section does; so what is compared is the sequence. DIFFERENCES has what is allowed to
differ, and why; an entry that no stream needs is an error.
"""

from collections import Counter, defaultdict
from pathlib import Path

from tshark import Frame, all_frames
from xdpipe.batch import ENUMS
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.errors import XdpipeError
from xdpipe.stages import Decap, Headers, Http1, TcpStreams

REQUEST = ENUMS["http_kind"]["REQUEST"][0]
Sequence = list[tuple[object, ...]]

DIFFERENCES: dict[str, tuple[str, ...]] = {
    "tshark gives a message's fields when its body is whole, which it never is": (
        "content-range-gap-skip.pcap", "content-range-gap.pcap", "entity_gap.pcap",
        "entity_gap2.pcap", "gtp1_gn_normal_incl_fragmentation.pcap",
        "gtp2_different_udp_port.pcap",
    ),
    "tshark goes by ports, Http1 by what the stream begins with": (
        "get-to-ssh-server.pcap", "http-single-conn-22.pcap", "http-to-ssh.pcap",
        "putty-upload.pcap", "query-method-non-standard-port.pcap",
        "tcp-http-with-padding.pcap", "zeek-image-post-1080-8000-x.pcap",
    ),
    "a method that this tshark does not know": ("query-method.pcap",),
    "a start line that is none, or of HTTP/0.9 (RFC 9112, 3): tshark makes something of it": (
        "connect-with-smtp.pcap", "http-09-content-length-confusion.pcap", "methods.pcap",
        "mixed-vlan-mpls.pcap", "no-uri.pcap",
    ),
    "the packets are shorter than IP says: malformed to xdpipe": (
        "tcp.pcap",
    ),
    "a tunnel that Decap does not enter: AYIYA, 802.11 in GRE, GRE in UDP; a third VLAN tag": (
        "ayiya3.pcap", "gre-aruba.pcap", "gre-over-udp-4754.pcap", "vlan-qinqinq.pcap",
    ),
}  # fmt: skip
"""What is allowed to differ, and in which captures."""


def from_xdpipe(path: Path) -> tuple[dict[tuple[int, str], Sequence], set[int]]:
    """Return messages by (tcp_stream_id, kind), and which frames have which tcp_stream_id."""
    messages: dict[tuple[int, str], Sequence] = defaultdict(list)
    batches = CaptureBatches(path, 64)
    http = Http1()
    chain = Chain([Headers(), Decap(depth=4), TcpStreams(), http], batches.batch)
    streams: dict[int, int] = {}
    n_before = 0
    for batch in batches:
        chain.run()
        rows = http.messages
        texts = [batch.text(rows[name]) for name in ("method", "target", "host")]
        for row, method, target, host in zip(rows, *texts, strict=True):
            stream = int(batch.tcp_stream_id[row["packet"]])
            length = int(row["content_length"])
            if row["kind"] == REQUEST:
                messages[stream, "request"].append((method, target, host, length))
            else:
                messages[stream, "response"].append((int(row["status"]), length))
        for i in range(len(batch)):
            if batch.tcp_stream_id[i]:
                streams[n_before + i] = int(batch.tcp_stream_id[i])
        n_before += len(batch)
    batches.close()
    return messages, streams


def from_tshark(frames: list[Frame]) -> dict[tuple[int, str], Sequence]:
    messages: dict[tuple[int, str], Sequence] = defaultdict(list)
    for frame in frames:
        if not frame["tcp.stream"]:
            continue
        stream = int(frame["tcp.stream"][0])
        methods, targets = frame["http.request.method"], frame["http.request.uri"]
        for k, (method, target) in enumerate(zip(methods, targets, strict=False)):
            hosts, lengths = frame["http.host"], frame["http.content_length_header"]
            host = hosts[k].lower() if len(hosts) == len(methods) else "?"
            length = int(lengths[k]) if len(lengths) == len(methods) else "?"
            messages[stream, "request"].append((method, target, host, length))
        for k, code in enumerate(frame["http.response.code"]):
            lengths = frame["http.content_length_header"]
            length = int(lengths[k]) if len(lengths) == len(frame["http.response.code"]) else "?"
            messages[stream, "response"].append((int(code), length))
    return messages


def alike(ours: Sequence, theirs: Sequence) -> bool:
    return len(ours) == len(theirs) and all(
        b in (a, "?") for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_messages_are_those_of_tshark(captures: Path) -> None:
    needed: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    wrong = []
    for path, frames in all_frames(captures).items():
        try:
            ours, streams = from_xdpipe(path)
        except XdpipeError:
            continue  # another link type
        theirs = from_tshark(frames)
        number_of = {
            streams[k]: int(frame["tcp.stream"][0])
            for k, frame in enumerate(frames)
            if k in streams and frame["tcp.stream"]
        }
        mine = {
            (number_of[stream], kind): found
            for (stream, kind), found in ours.items()
            if stream in number_of
        }
        for stream, kind in sorted(mine.keys() | theirs.keys()):
            a, b = mine.get((stream, kind), []), theirs.get((stream, kind), [])
            if alike(a, b):
                compared[kind] += len(a)
                continue
            if any(path.name in names for names in DIFFERENCES.values()):
                needed[path.name] += 1
                continue
            wrong.append(
                f"{path.name} {stream} {kind}: {a[:4]} ({len(a)}), tshark {b[:4]} ({len(b)})"
            )
    assert not wrong, "\n".join(wrong)
    assert compared["request"] > 150
    assert compared["response"] > 150
    assert set(needed) == {name for names in DIFFERENCES.values() for name in names}
