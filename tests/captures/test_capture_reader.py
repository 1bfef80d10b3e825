"""The reader agrees with scapy's own over every shared capture: bytes, lengths and times."""

import os
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from xdpipe.capture import CaptureReader, Packet
from xdpipe.errors import XdpipeError

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures"
FILES = sorted(
    path
    for path in CAPTURES.rglob("*")
    if path.is_file() and not path.name.upper().startswith(("LICENSE", "README"))
)


def by_scapy(path: Path) -> list[Packet]:
    packets = []
    with RawPcapReader(str(path)) as reader:
        for data, meta in reader:
            if isinstance(reader, RawPcapNgReader):
                if meta.tshigh is None:  # a simple packet block has no time
                    time_ns = 0
                else:
                    time_ns = ((meta.tshigh << 32) + meta.tslow) * 10**9 // meta.tsresol
            else:
                time_ns = meta.sec * 10**9 + meta.usec * (1 if reader.nano else 1000)
            packets.append(Packet(time_ns, meta.wirelen, data))
    return packets


@pytest.mark.parametrize("path", FILES, ids=lambda path: os.path.relpath(path, CAPTURES))
def test_scapy_reads_the_same_packets(path: Path) -> None:
    with CaptureReader(path) as capture:
        ours = list(capture)
        assert capture.n_packets == len(ours)
        assert capture.truncated is None
        snaplen = capture.snaplen
    # One file has a packet that is longer than the file says that any is; libpcap cuts it to that.
    assert ours == [p._replace(data=p.data[:snaplen]) for p in by_scapy(path)]


def test_a_file_that_is_no_capture_is_refused(captures: Path) -> None:
    [text] = [path for path in captures.iterdir() if path.name.startswith("LICENSE")]
    with pytest.raises(XdpipeError, match="not a capture file"):
        CaptureReader(text)
