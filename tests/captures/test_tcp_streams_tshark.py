"""TcpStreams against tshark: the same connections, and the same bytes in each.

The bytes are put together from tshark's `tcp.payload` and `tcp.seq_raw` with hindsight: of each
position in a stream what came first. DIFFERENCES has what is allowed to differ, and why; an entry
that no stream needs is an error.
"""

from collections import defaultdict
from ipaddress import IPv6Address
from pathlib import Path

import numpy as np
import pytest

from tshark import Frame, all_frames
from xdpipe.batch import ENUMS
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, TcpStreams

TOLD = {name: bit for name, (bit, _) in ENUMS["tcp_stream_told"].items()}

DIFFERENCES: dict[str, str] = {
    "cut": "packets that are shorter than IP says (the capture kept their first bytes only) are "
    "malformed to xdpipe, and their bytes missing; tshark takes what there is",
    "untold": "tshark gives no bytes of a segment whose message is not whole at the capture's end",
    "tunnel": "segments of one connection come by themselves and in a tunnel, which takes Decap",
}


class Streams:
    """What xdpipe makes of a capture: each connection's bytes by end, and the frames it has."""

    def __init__(self, path: Path) -> None:
        self.bytes: dict[tuple[int, str], bytearray] = defaultdict(bytearray)
        self.lost: set[int] = set()
        self.malformed: set[int] = set()
        self.of_frame: dict[int, int] = {}
        batches = CaptureBatches(path, 64)
        chain = Chain([Headers(), TcpStreams()], batches.batch)
        n_before = 0
        for batch in batches:
            chain.run()
            self.malformed.update((n_before + np.flatnonzero(batch.malformed)).tolist())
            for i in range(len(batch)):
                connection = int(batch.tcp_stream_id[i])
                if connection == 0:
                    continue
                self.of_frame[n_before + i] = connection
                source = f"{batch.src[i].tobytes().hex()}:{batch.l4_sport[i]}"
                for lost, data in batch.stream(i):
                    if lost:
                        self.lost.add(connection)
                    self.bytes[connection, source] += data
            n_before += len(batch)
        batches.close()


def captures_with_tcp(captures: Path) -> list[Path]:
    chosen = []
    for path, frames in all_frames(captures).items():
        try:
            CaptureBatches(path, 1).close()
        except XdpipeError:
            continue  # another link type
        if any(frame["tcp.stream"] for frame in frames):
            chosen.append(path)
    return chosen


def put_together(frames: list[Frame]) -> dict[int, dict[str, bytes]]:
    """Return the bytes of each end of each stream, without those that never came."""
    parts: dict[tuple[int, str], dict[int, int]] = defaultdict(dict)
    for frame in frames:
        if not frame["tcp.payload"]:
            continue
        address = (frame["ip.src"] or frame["ipv6.src"])[-1]
        end = f"{IPv6Address(address) if ':' in address else address} {frame['tcp.srcport'][0]}"
        stream = int(frame["tcp.stream"][0])
        seq = int(frame["tcp.seq_raw"][0]) + (
            int(frame["tcp.flags"][0], 0) >> 1 & 1
        )  # a SYN is one
        got = parts[stream, end]
        if got:
            first = next(iter(got))
            seq += (first - seq + 2**31) // 2**32 * 2**32  # they wrap
        for at, byte in enumerate(bytes.fromhex(frame["tcp.payload"][0]), seq):
            got.setdefault(at, byte)
    result: dict[int, dict[str, bytes]] = defaultdict(dict)
    for (stream, end), got in parts.items():
        result[stream][end] = bytes(got[at] for at in sorted(got))
    return result


def end_named(source: str) -> str:
    address, _, port = source.partition(":")
    raw = bytes.fromhex(address)
    if raw.startswith(b"\0" * 10 + b"\xff\xff"):
        return ".".join(map(str, raw[12:])) + " " + port
    return f"{IPv6Address(raw)} {port}"


def excused(frames: list[Frame], ours: Streams, stream: int) -> str | None:
    """Return which of DIFFERENCES applies to a stream."""
    mine = [number for number, frame in enumerate(frames) if str(stream) in frame["tcp.stream"]]
    if ours.malformed.intersection(mine):
        return "cut"
    if any(int(frames[k]["tcp.len"][0]) and not frames[k]["tcp.payload"] for k in mine):
        return "untold"
    n_ip = {frames[number]["frame.protocols"][0].split(":").count("ip") for number in mine}
    return "tunnel" if len(n_ip) > 1 else None


def test_connections_and_their_bytes_are_those_of_tshark(captures: Path) -> None:
    needed: dict[str, int] = defaultdict(int)
    n_streams = n_bytes = 0
    wrong: list[str] = []
    frames_of = all_frames(captures)
    for path in captures_with_tcp(captures):
        frames = frames_of[path]
        ours = Streams(path)
        theirs: dict[int, set[int]] = defaultdict(set)
        for number, connection in ours.of_frame.items():
            if frames[number]["tcp.stream"]:
                theirs[int(frames[number]["tcp.stream"][0])].add(connection)
        by_tshark = put_together(frames)
        for stream in sorted(theirs):
            if len(theirs[stream]) != 1:
                wrong.append(f"{path.name} stream {stream}: {len(theirs[stream])} connections")
                continue
            (connection,) = theirs[stream]
            for end, data in by_tshark.get(stream, {}).items():
                mine = b"".join(
                    bytes(got) for (c, source), got in ours.bytes.items()
                    if c == connection and end_named(source) == end
                )  # fmt: skip
                n_streams += 1
                n_bytes += len(data)
                if mine != data:
                    excuse = excused(frames, ours, stream)
                    if excuse:
                        needed[excuse] += 1
                        continue
                    wrong.append(
                        f"{path.name} stream {stream} {end}: {len(mine)} bytes, tshark {len(data)}"
                        f"{' lost' if connection in ours.lost else ''}"
                    )
    assert not wrong, "\n".join(wrong)
    assert n_streams > 500
    assert n_bytes > 2_000_000
    assert set(needed) == set(DIFFERENCES)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_size_of_batches_changes_nothing(captures: Path, size: int) -> None:
    """What was kept is handed on in the batch where the gap is filled, whichever that is."""
    for path in captures_with_tcp(captures)[::5]:
        counts = []
        for capacity in (size, 512):
            batches = CaptureBatches(path, capacity)
            chain = Chain([Headers(), TcpStreams()], batches.batch)
            for _ in batches:
                chain.run()
            counts.append(chain.read_counts()[1]["counters"])
            batches.close()
        assert counts[0] == counts[1], path
