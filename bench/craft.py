"""Crafting packets beside scapy building them one by one, from the same template and values.

xdpipe's time is all that `xdpipe craft -w` does but starting Python and importing scapy: templates
are made and tried, packets made, checksums and all, and written to a capture in memory. Scapy's is
that of building the packets' bytes alone, in two ways: as one writes it (a new packet each), and as
fast as it goes (one packet, its fields set, no look for several values in one). Both make the same
bytes, which is checked. What the core alone takes, in memory, has no peer.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
from rich.console import Console
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpipe.traffic import expression
from xdpipe.traffic.capture_writer import BatchWriter
from xdpipe.traffic.crafted import Crafted
from xdpipe.traffic.recipe import Ingredient, Recipe
from xdpipe.traffic.sizes import Sizes

TEMPLATE = 'IP(dst="10.0.0.2")/UDP(dport=53)/DNS(qd=DNSQR(qname="example.com"))'
PLAIN = 'IP(dst="10.0.0.2")/UDP(dport=9)'
VARY = ("IP.src=10.0.0.0/16", "UDP.sport=1024-65535")
FLOWS = 10_000
N, N_SCAPY = 1_000_000, 2_000
AIM = 50


def recipe(template: str = TEMPLATE, size: str | None = None, seed: int | None = None) -> Recipe:
    sizes = None if size is None else Sizes.parse(size)
    return Recipe((Ingredient("packet", template),), VARY, FLOWS, sizes, seed)


def to_file(path: Path) -> dict[str, float]:
    before = time.perf_counter()
    plan = recipe().plan()
    with BatchWriter(path) as writer:
        for batch in Crafted(plan, N, headers=False):
            writer.write(batch)
    return {"pps": N / (time.perf_counter() - before)}


def in_memory(make: Callable[[], Recipe]) -> dict[str, float]:
    plan = make().plan()
    source = Crafted(plan, N, headers=False)
    before = time.perf_counter()
    n = sum(len(batch) for batch in source)
    return {"pps": n / (time.perf_counter() - before)}


def values() -> list[tuple[str, int]]:
    """Return addresses and ports of the first packets, as VARY has them."""
    return [(f"10.0.{i >> 8}.{i & 255}", 1024 + i) for i in range(N_SCAPY)]


def build_anew() -> list[bytes]:
    return [
        bytes(
            Ether(src=expression.SRC_MAC, dst=expression.DST_MAC)
            / IP(src=src, dst="10.0.0.2")
            / UDP(sport=sport, dport=53)
            / DNS(qd=DNSQR(qname="example.com"))
        )
        for src, sport in values()
    ]


def build_again() -> list[bytes]:
    [packet] = expression.packets(TEMPLATE)
    for layer in packet.iterpayloads():
        layer.explicit = 1
    ip, udp = packet[IP].fields, packet[UDP].fields
    out = []
    for ip["src"], udp["sport"] in values():
        out.append(bytes(packet))
    return out


def by_scapy(build: Callable[[], list[bytes]]) -> dict[str, float]:
    before = time.perf_counter()
    n = len(build())
    return {"pps": n / (time.perf_counter() - before)}


def same() -> bool:
    """Tell whether all make the same packets."""
    source = Crafted(recipe().plan(), N_SCAPY, headers=False)
    ours = [bytes(batch.packet(i)) for batch in source for i in range(len(batch))]
    return ours == build_anew() == build_again()


def main() -> None:
    given = harness.options(__doc__)
    if not same():
        harness.fail("xdpipe and scapy make different packets")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as place:
        alone = {
            "a DNS query": recipe,
            "64 bytes": partial(recipe, PLAIN, "64"),
            "64 bytes, at random": partial(recipe, PLAIN, "64", 1),
            "IMIX": partial(recipe, PLAIN, "imix"),
        }
        contestants: dict[str, Callable[[], dict[str, float]]] = {
            "xdpipe": partial(to_file, Path(place) / "crafted.pcap"),
            "scapy": partial(by_scapy, build_anew),
            "scapy, one packet": partial(by_scapy, build_again),
        }
        contestants |= {name: partial(in_memory, make) for name, make in alone.items()}
        results = harness.alternate(contestants, given.rounds, Console(stderr=True))
    pps = {name: harness.series(each, "pps") for name, each in results.items()}
    rows = [
        harness.compare("to a file", "packets/s", pps["xdpipe"], peer, pps[peer], f"≥ {AIM}")
        for peer in ("scapy", "scapy, one packet")
    ]
    rows += [
        harness.alone(f"core alone: {name}", "packets/s", pps[name], "≥ 10M") for name in alone
    ]
    facts = {"packets": f"{N:,}", "flows": f"{FLOWS:,}", "scapy's": f"{N_SCAPY:,}"}
    harness.report("craft", rows, facts, given)


if __name__ == "__main__":
    main()
