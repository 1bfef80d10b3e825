"""What tshark says of crafted packets: every checksum right, every mix what it says it is."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tshark import Frame, dissect
from xdpipe.traffic.capture_writer import BatchWriter
from xdpipe.traffic.crafted import Crafted
from xdpipe.traffic.mixes import MIXES
from xdpipe.traffic.recipe import Ingredient, Recipe
from xdpipe.traffic.sizes import Sizes

STATUS = ("ip", "tcp", "udp", "icmp", "icmpv6")
FIELDS = (
    *(f"{proto}.checksum.status" for proto in STATUS), "_ws.malformed", "_ws.expert.message",
    "dns.qry.name", "dns.qry.type", "dns.flags.response", "eth.type", "frame.len",
    "frame.protocols", "ip.reassembled.length", "ipv6.reassembled.length", "tcp.flags.syn",
    "tcp.options.mss_val", "vlan.id", "ip.src",
)  # fmt: skip
CHECKS = (
    "-d", "udp.port==9,data",  # whatever the other port may mean to tshark
    *(word for proto in STATUS[:3] for word in ("-o", f"{proto}.check_checksum:TRUE")),
)  # fmt: skip
GOOD = "1"
APART = ("malformed", "fragments")
"""Mixes whose packets by themselves are not whole."""


def written(path: Path, recipe: Recipe, n: int) -> list[str]:
    """Write n packets; return the names of the kinds there are, in the order of their turns."""
    plan = recipe.plan()
    with BatchWriter(path) as writer:
        for batch in Crafted(plan, n, headers=False):
            writer.write(batch)
    return plan.names


def of_mix(path: Path, name: str, n: int) -> tuple[list[str], list[Frame]]:
    mix = MIXES[name]
    recipe = Recipe(tuple(mix.make()), mix.vary, sizes=mix.sizes, together=mix.together)
    names = written(path, recipe, n)
    return names, dissect(path, *CHECKS, fields=FIELDS)


def statuses(frames: list[Frame], but: tuple[str, ...] = ()) -> Counter[str]:
    """Count how checksums stand, of all protocols; `proto` + what tshark says of it."""
    return Counter(
        f"{proto} {status}"
        for frame in frames
        for proto in STATUS
        if proto not in but
        for status in frame[f"{proto}.checksum.status"]
    )


def test_a_million_packets_have_all_checksums_right(tmp_path: Path) -> None:
    template = (
        '[IP(dst="10.0.0.2")/UDP(dport=9), IPv6()/TCP(dport=9)/b"odd", IP()/TCP(dport=9),'
        "IPv6()/UDP(dport=9)/b'!']"
    )
    vary = (
        "IP.src=10.0.0.0/16", "IPv6.src=2001:db8::/64", "UDP.sport=1024-65535", "TCP.seq=random",
        "TCP.sport=random:1024-65535", "IP.id=random",
    )  # fmt: skip
    path = tmp_path / "million.pcap"
    sizes = Sizes.parse("64-256")
    written(path, Recipe((Ingredient("p", template),), vary, 10_000, sizes), 10**6)
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    done = subprocess.run(  # dissect() would make a million dicts
        [
            tshark, "-n", "-r", str(path), *CHECKS, "-o", "tcp.analyze_sequence_numbers:FALSE",
            "-d", "tcp.port==9,data", "-T", "fields",
            *(word for proto in STATUS[:3] for word in ("-e", f"{proto}.checksum.status")),
        ],
        capture_output=True, check=True,
    )  # fmt: skip
    quarter = 250_000
    assert Counter(done.stdout.decode().splitlines()) == {
        "1\t\t1": quarter, "\t1\t": quarter, "1\t1\t": quarter, "\t\t1": quarter,
    }  # fmt: skip


def test_checksums_within_tunnels_are_right(tmp_path: Path) -> None:
    template = (
        "[IP()/UDP(dport=4789)/VXLAN(vni=7)/Ether()/IP()/UDP(dport=9)/b'abc',"
        "IPv6()/UDP(dport=4789)/VXLAN(vni=7)/Ether()/IPv6()/TCP(dport=9)/b'abc',"
        "IP()/GRE()/IP()/TCP()/b'a', IP()/IP()/ICMP()/b'abc', IPv6()/ICMPv6EchoRequest(data=b'a'),"
        "IP()/ICMP()/b'b']"
    )
    vary = (
        "IP.src=10.0.0.0/16", "IP:2.src=random", "UDP:2.sport=random", "TCP.seq=random",
        "IPv6.dst=random", "ICMP.seq=0-65535", "ICMPv6EchoRequest.seq=random", "VXLAN.vni=random",
    )  # fmt: skip
    path = tmp_path / "tunnels.pcap"
    written(path, Recipe((Ingredient("p", template),), vary, sizes=Sizes.parse("200-300")), 3000)
    counted = statuses(dissect(path, *CHECKS, fields=FIELDS))
    assert counted == {
        "ip 1": 500 * (2 + 2 + 2 + 1), "tcp 1": 1000, "udp 1": 500 * (2 + 1), "icmp 1": 1000,
        "icmpv6 1": 500,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in MIXES if name not in APART])
def test_a_mix_has_right_checksums_and_nothing_malformed(name: str, tmp_path: Path) -> None:
    _, frames = of_mix(tmp_path / "mix.pcap", name, 1200)
    assert len(frames) == 1200
    counted = statuses(frames)
    assert counted
    assert {each.split()[1] for each in counted} <= {GOOD}, counted
    assert not any(frame["_ws.malformed"] for frame in frames)


def test_imix_has_its_sizes(tmp_path: Path) -> None:
    _, frames = of_mix(tmp_path / "mix.pcap", "imix", 1200)
    sizes = Counter(frame["frame.len"][0] for frame in frames)
    assert sizes == {"60": 700, "590": 400, "1514": 100}


def test_dns_asks_for_each_of_its_names(tmp_path: Path) -> None:
    names, frames = of_mix(tmp_path / "mix.pcap", "dns", 1600)
    assert names == ["A", "AAAA", "HTTPS"]
    kinds = Counter(frame["dns.qry.type"][0] for frame in frames)
    assert kinds == {"1": 960, "28": 480, "65": 160}
    asked = Counter(frame["dns.qry.name"][0] for frame in frames)
    assert len(asked) == 16
    assert set(asked.values()) == {100}
    assert {frame["dns.flags.response"][0] for frame in frames} <= {"0", "False"}


def test_a_syn_flood_is_syns_from_everywhere(tmp_path: Path) -> None:
    _, frames = of_mix(tmp_path / "mix.pcap", "syn-flood", 2000)
    assert {frame["tcp.flags.syn"][0] for frame in frames} <= {"1", "True"}
    assert {frame["tcp.options.mss_val"] for frame in frames} == {("1460",)}
    assert len({frame["ip.src"] for frame in frames}) > 1990


def test_fragments_make_whole_datagrams_with_right_checksums(tmp_path: Path) -> None:
    path = tmp_path / "mix.pcap"
    of_mix(path, "fragments", 600)
    frames = dissect(
        path, *CHECKS, "-o", "ip.defragment:TRUE", "-o", "ipv6.defragment:TRUE", fields=FIELDS
    )
    whole = Counter(
        (kind, frame[f"{kind}.reassembled.length"][0], frame["udp.checksum.status"])
        for frame in frames
        for kind in ("ip", "ipv6")
        if frame[f"{kind}.reassembled.length"]
    )
    assert whole == {("ip", "3008", (GOOD,)): 100, ("ipv6", "3008", (GOOD,)): 100}


def test_vlan_has_as_many_tags_as_it_says(tmp_path: Path) -> None:
    _, frames = of_mix(tmp_path / "mix.pcap", "vlan", 800)
    tags = Counter(
        sum(word in ("vlan", "ieee8021ad") for word in frame["frame.protocols"][0].split(":"))
        for frame in frames
    )
    assert tags == {0: 100, 1: 400, 2: 200, 3: 100}


def test_extension_headers_are_all_there(tmp_path: Path) -> None:
    names, frames = of_mix(tmp_path / "mix.pcap", "ipv6-extensions", 24)
    for name, frame in zip(names, frames, strict=True):
        protocols = frame["frame.protocols"][0]
        wanted = {
            "hop-by-hop": "ipv6.hopopts", "destination": "ipv6.dstopts", "routing": "ipv6.routing",
            "atomic fragment": "ipv6.fraghdr", "all in order": "ipv6.routing",
            "eight of them": ":".join(["ipv6.dstopts"] * 8), "long destination": "ipv6.dstopts",
            "routing on its way": "ipv6.routing",
        }[name.partition(",")[0]]  # fmt: skip
        assert wanted in protocols, name
        assert protocols.split(":")[-1] in (name.rpartition(" ")[2], "data", "icmpv6"), name


def test_what_is_bent_is_seen_and_nothing_else_is(tmp_path: Path) -> None:
    names, frames = of_mix(tmp_path / "mix.pcap", "malformed", 280)
    by_name = dict(zip(names, frames, strict=True))
    assert len(by_name) == 280
    for name, frame in by_name.items():
        for proto, kind in (("ip", "IP"), ("tcp", "TCP"), ("udp", "UDP"), ("icmp", "ICMP")):
            if f" {kind}.chksum" in name and not (proto == "udp" and name.endswith("=0")):
                assert "0" in frame[f"{proto}.checksum.status"], name
    fine = [name for name, frame in by_name.items() if not frame["_ws.expert.message"]]
    assert 50 < len(fine) < 200
    bad = (
        "dns IP.len=max",
        "dns IP.ihl=0",
        "dns UDP.len=0",
        "tcp TCP.dataofs=0",
        "udp6 IPv6.plen=max",
    )
    for name in bad:
        assert by_name[name]["_ws.expert.message"] or by_name[name]["_ws.malformed"], name
