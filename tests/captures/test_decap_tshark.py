"""Decap against tshark, over all captures and over the crafted tunnels: what lies innermost.

tshark gives all occurrences of a field, outermost first. Its list of layers is walked along as
Decap goes, so that the n-th IP header here is the n-th there.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_headers_tshark import mapped, numbers, packets

from tshark import Frame, dissect
from tunnels import TUNNELS, whole
from xdpipe.batch import FLAGS, Batch
from xdpipe.capture import CaptureWriter
from xdpipe.stages import Decap, Headers
from xdpipe.stages.decap import TUNNELS as KINDS

DIFFERENCES: dict[str, str] = {
    "fragment": "tshark looks into the first fragment of a tunnel; the packet within is not whole "
    "there, and xdpipe does not enter it",
    "between Ethernet and IP": "FabricPath and VN-Tag are not known to xdpipe",
    "inside an option": "tshark gives up a packet of which an option contradicts itself",
    "length": "tshark goes on in a packet whose length is more than arrived; xdpipe calls it "
    "malformed, and enters nothing in it",
    "version": "tshark names no layer where IPv6 in IPv6 has another version; xdpipe has entered "
    "the tunnel and calls the packet within malformed",
}

CRAFTED_DIFFERENCES: dict[str, str] = {
    "erspan III ipv4": "the frame type says IP (draft-foschiano-erspan-03); tshark takes all "
    "for Ethernet",
    "erspan III ipv6": "likewise",
}

NAMES = {value: name for name, value in KINDS.items()}
LINK = ("ethertype", "vlan", "mpls", "pppoes", "ppp", "llc")
IDS = {"VXLAN": "vxlan.vni", "GENEVE": "geneve.vni", "GTPU": "gtp.teid"}
OVER_UDP = {"vxlan": "VXLAN", "geneve": "GENEVE", "gtp": "GTPU"}
IN_IP = {("ip", "ip"): "IPIP", ("ip", "ipv6"): "6IN4", ("ipv6", "ip"): "4IN6",
         ("ipv6", "ipv6"): "6IN6"}  # fmt: skip


class Walk:
    """Along tshark's layers, from one packet to the one within."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.layers = frame["frame.protocols"][0].split(":")
        self.at = 0
        self.seen: Counter[str] = Counter()  # how many of each layer were passed
        self.tunnels: list[str] = []
        self.ids: list[int | None] = []
        self.fragment = False
        self.excuse: str | None = None

    def next_is(self, *layers: str) -> bool:
        return self.layers[self.at : self.at + 1] != [] and self.layers[self.at] in layers

    def take(self) -> str:
        layer = self.layers[self.at]
        self.at += 1
        self.seen[layer] += 1
        return layer

    def value(self, field: str) -> str:
        """Return a field of the layer that was passed last."""
        return self.frame[field][self.seen[field.partition(".")[0]] - 1]

    def number(self, field: str) -> int:
        return int(self.value(field), 0)

    def link(self) -> None:
        """Pass what lies before IP."""
        n_tags = 0
        if self.next_is("eth", "fddi"):
            self.take()
        while self.next_is(*LINK) and n_tags <= 2:
            n_tags += self.take() == "vlan"
        if self.next_is("cfp", "vntag"):
            self.excuse = "between Ethernet and IP"

    def packet(self) -> dict[str, object]:
        """Pass a packet down to its transport header; return what Headers would say of it."""
        self.link()
        says: dict[str, object] = {"ip_version": 0, "l4_sport": 0, "l4_dport": 0, "icmp_type": 0}
        if self.next_is("arp"):
            self.take()
            return says | {"arp_op": self.number("arp.opcode")}
        if not self.next_is("ip", "ipv6"):
            return says
        family = self.take()
        if not self.frame[f"{family}.src"][self.seen[family] - 1 :]:
            self.excuse = "between Ethernet and IP"
            return says
        says["ip_version"] = 4 if family == "ip" else 6
        says["src"] = mapped(self.value(f"{family}.src"))
        says["dst"] = mapped(self.value(f"{family}.dst"))
        if family == "ip":
            says |= {"ip_ttl": self.number("ip.ttl"), "ip_tos": self.number("ip.dsfield")}
            offset, more = self.number("ip.frag_offset"), self.number("ip.flags.mf")
        else:
            says |= {"ip_ttl": self.number("ipv6.hlim"), "ip_tos": self.number("ipv6.tclass")}
            offset = more = 0
            while self.at < len(self.layers) and self.layers[self.at].startswith(("ipv6.", "ah")):
                if self.take() == "ipv6.fraghdr":
                    offset = numbers(self.frame, "ipv6.fraghdr.offset")[0]
                    more = numbers(self.frame, "ipv6.fraghdr.more")[0]
        self.fragment = bool(offset or more)
        if offset:
            return says
        return says | self.transport()

    def transport(self) -> dict[str, object]:
        if self.next_is("tcp", "udp"):
            layer = self.take()
            return {"l4_sport": self.number(f"{layer}.srcport"),
                    "l4_dport": self.number(f"{layer}.dstport")}  # fmt: skip
        if self.next_is("icmp", "icmpv6"):
            layer = self.take()
            return {"icmp_type": self.number(f"{layer}.type")}
        if self.next_is("igmp"):
            self.take()
            return {"igmp_type": self.number("igmp.type")}
        return {}

    def enter(self, says: dict[str, object]) -> bool:
        """Pass the header of a tunnel, if there is one that Decap knows."""
        before = self.layers[self.at - 1]
        kind, tunnel_id = None, None
        if before == "udp" and self.next_is(*OVER_UDP):
            kind = OVER_UDP[self.layers[self.at]]
            behind = self.layers[self.at + 1 : self.at + 2]
            if behind in (["eth"], ["ip"], ["ipv6"], ["arp"]):
                self.take()
                tunnel_id = self.number(IDS[kind])
            else:
                kind = None
        elif before in ("ip", "ipv6") or before.startswith("ipv6."):
            outer = "ip" if says["ip_version"] == 4 else "ipv6"
            if self.next_is("ip", "ipv6"):
                kind = IN_IP[outer, self.layers[self.at]]
            elif self.layers[self.at : self.at + 2] == ["gre", "erspan"]:
                kind = "ERSPAN"
                self.take()
                self.take()
            elif self.next_is("gre") and self.layers[self.at + 1 : self.at + 2] in (
                ["eth"], ["ip"], ["ipv6"], ["mpls"],
            ):  # fmt: skip
                kind = "GRE"
                self.take()
        if kind is None:
            return False
        if self.fragment:
            self.excuse = "fragment"
            return False
        self.tunnels.append(kind)
        self.ids.append(tunnel_id)
        return True


def from_tshark(frame: Frame) -> tuple[Walk, dict[str, object], dict[str, object]]:
    """Return the walk that was taken, what the outermost packet says, and the innermost."""
    walk = Walk(frame)
    outermost = says = walk.packet()
    while walk.excuse is None and len(walk.tunnels) < 4 and walk.enter(says):
        says = walk.packet()
    return walk, outermost, says


def run(group: list[bytes]) -> list[dict[str, Any]]:
    batch = Batch(bytearray(8 << 20), len(group))
    batch.load(group)
    Headers().process(batch)
    Decap().process(batch)
    names = (*Headers.provides, *Decap.provides)
    columns = {name: getattr(batch, name).tolist() for name in names}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(group))]


def differences(frame: Frame, row: dict[str, Any]) -> tuple[str | None, list[Any]]:
    """Return the difference that is allowed here, if one is needed, and those that are not."""
    walk, outermost, innermost = from_tshark(frame)
    tunnels = [NAMES[kind] for kind in row["tunnels"][: row["n_tunnels"]]]
    if row["malformed"] and tunnels == walk.tunnels[: len(tunnels)] != walk.tunnels:
        return "length", []
    if walk.excuse:
        return walk.excuse, [] if tunnels == walk.tunnels else [("tunnels", walk.tunnels, tunnels)]
    if "[Malformed Packet: IPv6 Destination]" in frame["_ws.malformed"]:
        return "inside an option", []
    if tunnels == ["6IN6"] and walk.layers[-2:] == ["ipv6", "data"] and row["malformed"]:
        return "version", []
    wrong: list[Any] = []
    if tunnels != walk.tunnels:
        wrong.append(("tunnels", walk.tunnels, tunnels))
    ids = row["tunnel_id"][: row["n_tunnels"]]
    for kind, tunnel_id, told in zip(tunnels, ids, walk.ids, strict=False):
        if told is not None and told != tunnel_id:
            wrong.append((kind, told, tunnel_id))
    keys = [n for kind, n in zip(tunnels, ids, strict=True) if kind == "GRE" and n]
    if keys != [n for n in numbers(frame, "gre.key") if n][: len(keys)]:
        wrong.append(("gre.key", frame["gre.key"], keys))
    sessions = [n for kind, n in zip(tunnels, ids, strict=True) if kind == "ERSPAN"]
    if sessions != (numbers(frame, "erspan.spanid") or [0])[: len(sessions)]:
        wrong.append(("erspan.spanid", frame["erspan.spanid"], sessions))
    if tunnels:
        outer = {"outer_src": outermost["src"], "outer_dst": outermost["dst"]}
        wrong += [(name, n, row[name]) for name, n in outer.items() if row[name] != n]
    if not row["malformed"]:
        wrong += [(name, n, row[name]) for name, n in innermost.items() if row[name] != n]
    return None, wrong


def test_decap_agrees_with_tshark_on_every_packet(captures: Path) -> None:
    used: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    compared = inner_malformed = 0
    wrong = []
    everything = packets(captures)
    for first in range(0, len(everything), 64):
        group = everything[first : first + 64]
        rows = run([packet for _, packet, _ in group])
        for (file, _, frame), row in zip(group, rows, strict=True):
            if row["malformed"] and not row["n_tunnels"]:
                continue  # nothing is entered where the outer packet is malformed
            difference, found = differences(frame, row)
            used.update([difference] if difference else [])
            wrong += [(file, frame["frame.protocols"], item) for item in found]
            compared += row["n_tunnels"] > 0 and not difference
            inner_malformed += row["n_tunnels"] > 0 and row["malformed"] != 0
            kinds.update(NAMES[kind] for kind in row["tunnels"] if kind)
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
    assert set(used) == set(DIFFERENCES), used
    assert set(kinds) == set(KINDS), kinds
    assert compared > 1_000
    assert inner_malformed >= 5


def test_what_tshark_finds_malformed_within_a_tunnel_is_malformed(captures: Path) -> None:
    """An inner Ethernet header that is cut, an inner IPv6 of another version."""
    both = Counter[str]()
    for file, packet, frame in packets(captures):
        layers = frame["frame.protocols"][0].split(":")
        if not frame["_ws.malformed"] or not {"geneve", "mpls"} & set(layers):
            continue
        [row] = run([packet])
        assert row["malformed"], (file, layers)
        both[file] += row["flags"] & FLAGS["TUNNEL"] != 0
    assert both == {"geneve-truncated.pcapng": 1, "mpls-6in6-6in6-invalid-version-6.pcap": 1}


@pytest.mark.parametrize("name", TUNNELS)
def test_crafted_tunnels_are_to_tshark_what_they_are_to_decap(name: str, tmp_path: Path) -> None:
    """The forms that no capture has: keys, sequence numbers, sessions, extension headers."""
    packet = whole(name)
    with CaptureWriter(tmp_path / "crafted.pcap") as writer:
        writer.write(0, packet)
    [frame] = dissect(tmp_path / "crafted.pcap")
    [row] = run([packet])
    assert (row["n_tunnels"], row["malformed"], row["decap_malformed"]) == (1, 0, 0)
    _, wrong = differences(frame, row)
    assert bool(wrong) == (name in CRAFTED_DIFFERENCES), wrong
