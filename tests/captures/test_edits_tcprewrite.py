"""`xdpipe replay -w` and tcprewrite, over the captures: what both can do comes out the same."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_headers_scapy import ethernet_packets

from rewritten import parsed
from xdpipe.capture import CaptureReader, CaptureWriter
from xdpipe.cli import main
from xdpipe.stages import FixChecksums

TCPREWRITE = shutil.which("tcprewrite")
pytestmark = pytest.mark.skipif(TCPREWRITE is None, reason="no tcprewrite: apt install tcpreplay")
LEAST = 4000

EDITS = {
    "addresses": (["--map-ip", "0.0.0.0/1=10.0.0.0/8", "--map-ip", "128.0.0.0/1=11.0.0.0/8"],
                  ["--pnat=0.0.0.0/1:10.0.0.0/8,128.0.0.0/1:11.0.0.0/8"]),
    "ports": (["--map-port", "80=8080", "--map-port", "53=5353", "--map-port", "1024-5000=7"],
              ["--portmap=80:8080,53:5353,1024-5000:7"]),
    "VLAN": (["--vlan", "5:3"],
             ["--enet-vlan=add", "--enet-vlan-tag=5", "--enet-vlan-pri=3", "--enet-vlan-cfi=0"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a capture of the packets of all captures of which both make the same.

    tcprewrite computes checksums anew, and so they must be right; a UDP checksum of 0 is none of
    its cases, nor are tags, fragments and options; and it makes a frame's padding part of
    IP, and the MAC addresses of multicast ones.
    """
    path = tmp_path_factory.mktemp("plain") / "plain.pcap"
    packets = ethernet_packets(captures)
    with CaptureWriter(path) as writer:
        for first in range(0, len(packets), 128):
            batch = parsed(packets[first : first + 128])
            fix = FixChecksums()
            before = [bytes(batch.packet(i)) for i in range(len(batch))]
            fix.process(batch)
            wanted = (batch.malformed == 0) & batch.has("IPV4") & ~batch.has("FRAGMENT")
            wanted &= ~batch.has("IP_OPTIONS") & ~batch.has("VLAN") & ~batch.has("MPLS")
            wanted &= (batch.l3 == 14) & (batch.has("TCP") | batch.has("UDP"))
            wanted &= batch.payload + batch.payload_len == batch.len
            wanted &= (batch.src[:, 12] >> 4 != 14) & (batch.dst[:, 12] >> 4 != 14)
            wanted &= ~(batch.has("UDP") & (batch.u16(batch.l4 + 6) == 0))
            for i in np.flatnonzero(wanted).tolist():
                if bytes(batch.packet(i)) == before[i]:
                    writer.write(writer.n_packets * 1000, before[i])
    assert writer.n_packets > LEAST
    return path


def packets_of(path: Path) -> list[bytes]:
    with CaptureReader(path) as reader:
        return [packet.data for packet in reader]


@pytest.mark.parametrize("name", EDITS)
def test_the_same_comes_of_both(plain: Path, tmp_path: Path, name: str) -> None:
    ours, theirs = tmp_path / "ours.pcap", tmp_path / "theirs.pcap"
    arguments, peers = EDITS[name]
    done = CliRunner().invoke(main, ["replay", str(plain), "-w", str(ours), *arguments, "--json"])
    assert done.exit_code == 0, done.output
    before = packets_of(plain)
    assert json.loads(done.stdout)["written"] == len(before)
    assert TCPREWRITE is not None
    subprocess.run(
        [TCPREWRITE, f"--infile={plain}", f"--outfile={theirs}", *peers], check=True,
        capture_output=True,
    )  # fmt: skip
    n_changed = 0
    for was, our, their in zip(before, packets_of(ours), packets_of(theirs), strict=True):
        assert our == their, was.hex()
        n_changed += our != was
    assert n_changed > LEAST // 2
