"""Headers against tshark, field by field, over all captures; and on who calls what malformed.

llc.pcap is of FDDI, the only one with LLC and SNAP: its frames go in as those of 802.3.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tshark import Frame, all_frames
from xdpipe.batch import FLAGS, MALFORMED, Batch
from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers

DIFFERENCES: dict[str, str] = {
    "third tag": "tshark goes on through any number of VLAN tags; xdpipe reads two and tells the "
    "third by its EtherType",
    "mobility header": "RFC 6275 makes it an extension header, which xdpipe steps over; tshark "
    "takes it for the upper layer",
    "between Ethernet and IP": "FabricPath and VN-Tag; xdpipe tells them by their EtherType",
    "first fragment": "tshark tells no length of TCP there and with UDP that of the whole "
    "datagram; the payload of xdpipe is what is there",
}
"""Fields that may differ, and why; an entry that no packet needs is an error."""

OURS_ALONE: dict[str, str] = {
    "length 0": "tshark takes an IPv4 length of 0, or below the header's, for a packet that "
    "segmentation offload left without one; nothing says where such a packet ends",
    "first fragment of TCP": "a first fragment without all of the TCP header is an attack (RFC "
    "1858); tshark waits for the rest",
}
"""Whole packets that xdpipe alone calls malformed."""

THEIRS_ALONE: dict[str, str] = {
    "between Ethernet and IP": DIFFERENCES["between Ethernet and IP"],
    "inside ICMPv6": "tshark dissects the whole message, xdpipe its first 8 bytes",
    "inside an option": "tshark looks into the options of extension headers",
}
"""Packets that tshark alone calls malformed, in a header that xdpipe reads as well."""

LINK = ("ethertype", "vlan", "llc", "mpls", "pppoes", "ppp")
L4 = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "igmp": 2}
REASONS = {value: name for name, value in MALFORMED.items()}


def numbers(frame: Frame, field: str) -> list[int]:
    return [int(value, 0) for value in frame[field]]


def in_802_3(frame: bytes) -> bytes:
    """Put what an FDDI frame (frame control 1, addresses 12) carries into one of 802.3."""
    return frame[1:13] + len(frame[13:]).to_bytes(2, "big") + frame[13:]


@cache
def packets(captures: Path) -> list[tuple[str, bytes, Frame]]:
    """Return each Ethernet packet with its file and what tshark says of it."""
    found = []
    for path, frames in all_frames(captures).items():
        try:
            with CaptureReader(path) as reader:
                fddi = reader.link_type == "FDDI"
                if not fddi:
                    reader.require_ethernet()
                read = [in_802_3(packet.data) if fddi else packet.data for packet in reader]
        except XdpipeError:
            continue  # another link type
        assert len(read) == len(frames), path
        found += [(path.name, *pair) for pair in zip(read, frames, strict=True)]
    assert len(found) > 14_000
    return found


def parsed(captures: Path) -> Iterator[tuple[str, bytes, Frame, dict[str, Any]]]:
    """Run Headers; yield each packet with its columns."""
    batch = Batch(bytearray(8 << 20), 64)
    stage = Headers()
    everything = packets(captures)
    for first in range(0, len(everything), 64):
        group = everything[first : first + 64]
        batch.load([packet for _, packet, _ in group])
        stage.process(batch)
        columns = {name: getattr(batch, name).tolist() for name in Headers.provides}
        for i, (name, packet, frame) in enumerate(group):
            yield name, packet, frame, {column: columns[column][i] for column in columns}


def mapped(address: str) -> list[int]:
    packed = ip_address(address).packed
    return list(packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed)


def from_tshark(frame: Frame) -> tuple[dict[str, object], set[str]]:
    """Return what tshark says, in the terms of the columns, and which differences apply."""
    excuses: set[str] = set()
    layers = frame["frame.protocols"][0].split(":")
    link = []
    for layer in layers[1:]:
        if layer not in LINK:
            break
        link.append(layer)
    rest = layers[1 + len(link) :]
    types = numbers(frame, "eth.type")[:1] + numbers(frame, "vlan.etype")[: link.count("vlan")]
    tags = [
        priority << 13 | dei << 12 | vlan
        for priority, dei, vlan in zip(
            numbers(frame, "vlan.priority"), numbers(frame, "vlan.dei"),
            numbers(frame, "vlan.id"), strict=True,
        )
    ][: link.count("vlan")]  # fmt: skip
    labels = numbers(frame, "mpls.label")[: link.count("mpls") and None]
    says: dict[str, object] = {
        "n_vlans": len(tags[:2]), "vlan_tci": [*tags, 0, 0][:2], "ip_version": 0,
        "n_mpls": len(labels), "mpls_label": [*labels, 0][0],
        "pppoe_session": frame.first("pppoe.session_id") or 0 if "pppoes" in link else 0,
        "PPPOE": "pppoes" in link or rest[:1] == ["pppoed"], "LLC": "llc" in link,
        "SNAP": "llc" in link, "ARP": rest[:1] == ["arp"],
        "arp_op": frame.first("arp.opcode") or 0 if rest[:1] == ["arp"] else 0,
    }  # fmt: skip
    if types or "llc" in link:
        says["eth_type"] = frame.first("llc.type") if "llc" in link else types[:3][-1]
    if len(tags) > 2:
        excuses.add("third tag")
        return says | {"n_mpls": 0, "mpls_label": 0}, excuses
    if rest and rest[0] in ("cfp", "vntag"):
        excuses.add("between Ethernet and IP")
        return {"ip_version": 0}, excuses
    if rest[:1] == ["ip"] and frame["ip.src"]:
        says |= from_ip(frame, rest, excuses)
    elif rest[:1] == ["ipv6"] and frame["ipv6.src"]:
        says |= from_ipv6(frame, rest, excuses)
    return says, excuses


def from_ip(frame: Frame, rest: list[str], excuses: set[str]) -> dict[str, object]:
    offset, more = numbers(frame, "ip.frag_offset")[0], numbers(frame, "ip.flags.mf")[0]
    says: dict[str, object] = {
        "ip_version": 4, "src": mapped(frame["ip.src"][0]), "dst": mapped(frame["ip.dst"][0]),
        "ip_ttl": frame.first("ip.ttl"), "ip_tos": frame.first("ip.dsfield"),
        "ip_proto": frame.first("ip.proto"), "FRAGMENT": bool(offset or more),
        "LATER_FRAGMENT": bool(offset), "IP_OPTIONS": frame.first("ip.hdr_len") != 20,
    }  # fmt: skip
    if offset:
        size = numbers(frame, "ip.len")[0] - numbers(frame, "ip.hdr_len")[0]
        return says | {"payload_len": size, "l4_sport": 0, "l4_dport": 0, "tcp_flags": 0}
    return says | from_l4(frame, rest[1:2], bool(more), excuses)


def from_ipv6(frame: Frame, rest: list[str], excuses: set[str]) -> dict[str, object]:
    extensions = []
    for layer in rest[1:]:
        if not layer.startswith("ipv6.") and layer != "ah":
            break
        extensions.append(layer)
    own = "ipv6.fraghdr" in extensions
    offset = numbers(frame, "ipv6.fraghdr.offset")[0] if own else 0
    more = numbers(frame, "ipv6.fraghdr.more")[0] if own else 0
    says: dict[str, object] = {
        "ip_version": 6, "src": mapped(frame["ipv6.src"][0]), "dst": mapped(frame["ipv6.dst"][0]),
        "ip_ttl": frame.first("ipv6.hlim"), "ip_tos": frame.first("ipv6.tclass"),
        "FRAGMENT": bool(offset or more), "LATER_FRAGMENT": bool(offset),
        "IP_OPTIONS": bool(extensions),
    }  # fmt: skip
    behind = rest[1 + len(extensions) :][:1]
    if behind == ["mipv6"]:
        excuses.add("mobility header")
        del says["IP_OPTIONS"]
        return says
    if not extensions:
        says["ip_proto"] = frame.first("ipv6.nxt")
    elif behind and behind[0] in L4:
        says["ip_proto"] = L4[behind[0]]
    if offset:
        return says | {"l4_sport": 0, "l4_dport": 0, "tcp_flags": 0}
    return says | from_l4(frame, behind, bool(more), excuses)


def from_l4(
    frame: Frame, layer: list[str], first_fragment: bool, excuses: set[str]
) -> dict[str, object]:
    match layer:
        case ["tcp"]:
            says = {"l4_sport": frame.first("tcp.srcport"), "l4_dport": frame.first("tcp.dstport"),
                    "tcp_flags": numbers(frame, "tcp.flags")[0] & 0xFF,
                    "l4_size": frame.first("tcp.hdr_len"),
                    "payload_len": frame.first("tcp.len")}  # fmt: skip
        case ["udp"]:
            says = {"l4_sport": frame.first("udp.srcport"), "l4_dport": frame.first("udp.dstport"),
                    "tcp_flags": 0, "l4_size": 8,
                    "payload_len": numbers(frame, "udp.length")[0] - 8}  # fmt: skip
        case ["icmp"]:
            return {"icmp_type": frame.first("icmp.type"), "icmp_code": frame.first("icmp.code"),
                    "l4_size": 8, "l4_sport": 0, "igmp_type": 0}  # fmt: skip
        case ["icmpv6"]:
            return {"icmp_type": frame.first("icmpv6.type"), "l4_size": 8, "l4_sport": 0,
                    "icmp_code": frame.first("icmpv6.code"), "igmp_type": 0}  # fmt: skip
        case ["igmp"]:
            return {"igmp_type": frame.first("igmp.type"), "l4_sport": 0, "icmp_type": 0}
        case _:
            return {}
    if first_fragment:
        excuses.add("first fragment")
        del says["payload_len"]
    return says


def test_headers_agree_with_tshark_on_every_packet(captures: Path) -> None:
    used: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    wrong = []
    for file, _, frame, row in parsed(captures):
        if row["malformed"]:
            continue
        says, excuses = from_tshark(frame)
        used.update(excuses)
        for name, bit in FLAGS.items():
            row[name] = bool(row["flags"] & bit)
        row["l4_size"] = row["payload"] - row["l4"]
        for name, value in says.items():
            compared[name] += bool(value)
            if row[name] != value:
                wrong.append((file, name, value, row[name], frame["frame.protocols"]))
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
    assert set(used) == set(DIFFERENCES), used
    least = {"src": 13_000, "payload_len": 4_500, "tcp_flags": 7_000, "l4_sport": 9_000,
             "n_vlans": 2_500, "eth_type": 14_000, "LLC": 1_300, "SNAP": 1_300,
             "icmp_type": 150, "pppoe_session": 100, "arp_op": 30, "mpls_label": 10,
             "igmp_type": 3, "FRAGMENT": 300, "LATER_FRAGMENT": 200, "IP_OPTIONS": 100}  # fmt: skip
    assert {name: n for name, n in least.items() if compared[name] < n} == {}, compared


def why_not(reason: str, packet: bytes, frame: Frame, row: dict[str, Any]) -> str | None:
    """Return which difference lets xdpipe alone call a packet malformed."""
    l3 = row["l3"]
    if reason == "IP4_LEN" and int.from_bytes(packet[l3 + 2 : l3 + 4], "big") < 20:
        return "length 0"
    if reason == "TCP_OFFSET" and row["flags"] & FLAGS["FRAGMENT"]:
        return "first fragment of TCP"
    return None


# What tshark's expert messages say of a length or a version that cannot be.
COMPLAINTS = ("exceeds", "Bogus IP", "Bad length value", "Possible bad payload length",
              "Length is zero")  # fmt: skip


def test_who_calls_a_whole_packet_malformed_is_not_alone(captures: Path) -> None:
    """Of packets that were not cut as they were captured."""
    used: Counter[str] = Counter()
    both = 0
    alone = []
    for file, packet, frame, row in parsed(captures):
        if frame["frame.cap_len"] != frame["frame.len"]:
            continue
        reason = REASONS.get(row["malformed"])
        messages = " ".join(frame["_ws.expert.message"])
        complains = any(complaint in messages for complaint in COMPLAINTS)
        if reason and (frame["_ws.malformed"] or complains):
            both += 1
        elif reason:
            difference = why_not(reason, packet, frame, row)
            used.update([difference] if difference else [])
            if not difference:
                alone.append((file, reason, messages))
    assert not alone, alone
    assert both >= 20
    assert set(used) == set(OURS_ALONE), used


HEADER_LAYERS = (
    "Ethernet", "802.1Q", "IPv4", "IPv6", "TCP", "UDP", "ICMP", "ICMPv6", "ARP", "IGMP", "MPLS",
    "PPPoES", "LLC", "IPv6 Destination", "IPv6 Hop-by-Hop",
)  # fmt: skip


def test_what_tshark_calls_malformed_in_a_header_is_malformed(captures: Path) -> None:
    used: Counter[str] = Counter()
    both = 0
    wrong = []
    for file, _, frame, row in parsed(captures):
        told = [f"[Malformed Packet: {layer}]" for layer in HEADER_LAYERS]
        layers = frame["frame.protocols"][0].split(":")
        if not set(told) & set(frame["_ws.malformed"]) or "geneve" in layers:  # see Decap's
            continue
        if row["malformed"]:
            both += 1
        elif "cfp" in layers:
            used["between Ethernet and IP"] += 1
        elif "[Malformed Packet: ICMPv6]" in frame["_ws.malformed"]:
            used["inside ICMPv6"] += 1
        elif "[Malformed Packet: IPv6 Destination]" in frame["_ws.malformed"]:
            used["inside an option"] += 1
        else:
            wrong.append((file, frame["_ws.malformed"], frame["frame.protocols"]))
    assert not wrong, wrong
    assert both >= 2
    assert set(used) == set(THEIRS_ALONE), used
