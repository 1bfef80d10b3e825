"""What tshark says of the captures, field by field: the other opinion on every parser."""

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

FIELDS = (
    "_ws.expert.message",
    "_ws.malformed",
    "arp.opcode",
    "dns.count.add_rr",
    "dns.count.answers",
    "dns.count.auth_rr",
    "dns.count.labels",
    "dns.count.prerequisites",
    "dns.count.queries",
    "dns.count.updates",
    "dns.count.zones",
    "dns.extraneous.length",
    "dns.flags",
    "dns.id",
    "dns.qry.class",
    "dns.qry.name",
    "dns.qry.type",
    "dns.resp.edns0_version",
    "dns.resp.ext_rcode",
    "dns.resp.z",
    "dns.rr.udp_payload_size",
    "erspan.spanid",
    "eth.type",
    "frame.cap_len",
    "frame.len",
    "frame.protocols",
    "geneve.vni",
    "gre.key",
    "gtp.teid",
    "http.content_length_header",
    "http.host",
    "http.request.method",
    "http.request.uri",
    "http.response.code",
    "icmp.code",
    "icmp.type",
    "icmpv6.code",
    "icmpv6.type",
    "igmp.type",
    "ip.dsfield",
    "ip.dst",
    "ip.flags.mf",
    "ip.frag_offset",
    "ip.hdr_len",
    "ip.len",
    "ip.proto",
    "ip.src",
    "ip.ttl",
    "ipv6.dst",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.offset",
    "ipv6.hlim",
    "ipv6.nxt",
    "ipv6.src",
    "ipv6.tclass",
    "llc.type",
    "mpls.label",
    "pppoe.session_id",
    "tcp.dstport",
    "tcp.flags",
    "tcp.hdr_len",
    "tcp.len",
    "tcp.payload",
    "tcp.seq_raw",
    "tcp.srcport",
    "tcp.stream",
    "tls.alert_message.desc",
    "tls.alert_message.level",
    "tls.handshake.ciphersuite",
    "tls.handshake.extension.type",
    "tls.handshake.extensions.supported_version",
    "tls.handshake.extensions_alpn_str",
    "tls.handshake.extensions_server_name",
    "tls.handshake.sig_hash_alg",
    "tls.handshake.type",
    "tls.handshake.version",
    "tls.record.content_type",
    "udp.dstport",
    "udp.length",
    "udp.payload",
    "udp.srcport",
    "vlan.dei",
    "vlan.etype",
    "vlan.id",
    "vlan.priority",
    "vxlan.vni",
)
"""All fields that any test asks for: each capture is dissected once, for all of them."""

BETWEEN_FIELDS, BETWEEN_VALUES = "\x1f", "\x1e"
OPTIONS = (
    # each packet by itself: what xdpipe sees of a fragment is what came in it
    "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
    "-o", "tcp.reassemble_out_of_order:TRUE",
)  # fmt: skip


class Frame(dict[str, tuple[str, ...]]):
    """The fields of one frame: each value that occurs, outermost first; () where there is none."""

    def __missing__(self, field: str) -> tuple[str, ...]:
        return ()  # most frames have few of the fields

    def first(self, field: str, base: int = 0) -> int | None:
        """Return the first value as a number, if there is one."""
        return int(self[field][0], base) if self[field] else None


def dissect(path: Path, *options: str, fields: tuple[str, ...] = FIELDS) -> list[Frame]:
    """Return a capture's frames, in order, as tshark sees them."""
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    with tempfile.TemporaryDirectory() as home:  # no settings of whoever runs this
        done = subprocess.run(
            [
                tshark, "-n", "-r", str(path), *OPTIONS, *options, "-T", "fields",
                "-E", f"separator={BETWEEN_FIELDS}", "-E", f"aggregator={BETWEEN_VALUES}",
                *(word for field in fields for word in ("-e", field)),
            ],
            env={**os.environ, "HOME": home, "XDG_CONFIG_HOME": home},
            capture_output=True, text=True, errors="surrogateescape", check=False,
        )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr  # 2: the file is cut short
    frames = []
    for line in done.stdout.removesuffix("\n").split("\n") if done.stdout else ():
        columns = line.split(BETWEEN_FIELDS)
        assert len(columns) == len(fields), (path, line)
        frames.append(
            Frame(
                (field, tuple(column.split(BETWEEN_VALUES)))
                for field, column in zip(fields, columns, strict=True)
                if column
            )
        )
    return frames


@cache
def all_frames(captures: Path) -> dict[Path, list[Frame]]:
    """Return the frames of every capture there; those that tshark cannot read are left out."""
    paths = sorted(p for p in captures.rglob("*.pcap*") if p.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(dissect, paths), strict=True))
