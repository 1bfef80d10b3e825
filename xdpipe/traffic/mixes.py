"""Ready-made mixes of packets: `xdpipe craft --mix NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError
from xdpipe.traffic.recipe import Ingredient
from xdpipe.traffic.sizes import Sizes
from xdpipe.traffic.variation import Variation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True)
class Mix:
    """A mix by name.

    Attributes:
        name: of it.
        doc: what it is, in a line.
        make: returns its kinds of packets.
        vary: what differs from flow to flow, unless told otherwise.
        size: of the packets; None: as they are.
        together: its packets belong together in their order, and have the same values, as
            fragments do.
    """

    name: str
    doc: str
    make: Callable[[], Iterable[Ingredient]]
    vary: tuple[str, ...] = ()
    size: str | None = None
    together: bool = False

    def varied(self, own: Sequence[str]) -> tuple[str, ...]:
        """Return what is varied where a user says `own`: that goes before the mix's."""
        named = {(v.layer, v.nth, v.field) for v in map(Variation.parse, own)}
        parsed = [Variation.parse(text) for text in self.vary]
        kept = [v.text for v in parsed if (v.layer, v.nth, v.field) not in named]
        return (*kept, *own)

    @property
    def sizes(self) -> Sizes | None:
        """Its sizes, if it has some of its own."""
        return None if self.size is None else Sizes.parse(self.size)


def _ingredients(*rows: tuple[str, int, str]) -> Callable[[], Iterable[Ingredient]]:
    return lambda: [Ingredient(name, template, weight) for name, weight, template in rows]


def _malformed() -> Iterable[Ingredient]:
    from xdpipe.traffic.malformed import bent

    return bent()


_WORDS = (
    "example.com", "www.example.com", "mail.example.com", "api.example.com", "cdn.example.net",
    "ns1.example.net", "static.images.example.org", "login.example.org", "a.example",
    "_sip._udp.b.example",
    "very-long-host-name-of-a-machine.department.example.com", "xn--bcher-kva.example",
    "nowhere.invalid", "localhost.test", "1.2.0.192.in-addr.arpa", "time.example.net",
)  # fmt: skip
_SYN_OPTIONS = (
    '[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]'
)
_EXTENSIONS = {
    "hop-by-hop": "IPv6ExtHdrHopByHop(options=[RouterAlert()])",
    "destination": "IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])",
    "long destination": "IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(200))])",
    "routing": 'IPv6ExtHdrRouting(type=2, segleft=0, addresses=["2001:db8:2::1"])',
    "routing on its way": 'IPv6ExtHdrRouting(type=2, segleft=1, addresses=["2001:db8:2::1"])',
    "atomic fragment": "IPv6ExtHdrFragment(id=7)",
    "all in order": (
        "IPv6ExtHdrHopByHop(options=[RouterAlert()])/IPv6ExtHdrDestOpt()"
        '/IPv6ExtHdrRouting(type=2, segleft=0, addresses=["2001:db8:2::1"])'
        "/IPv6ExtHdrFragment(id=7)/IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])"
    ),
    "eight of them": "/".join(["IPv6ExtHdrDestOpt()"] * 8),
}

MIXES = {
    mix.name: mix
    for mix in (
        Mix(
            "imix", "UDP in frames of 64, 594 and 1518 bytes, 7:4:1",
            _ingredients(("udp", 1, 'IP()/UDP(dport=9)')),
            ("IP.src=10.0.0.0/16", "UDP.sport=1024-65535"), "imix",
        ),
        Mix(
            "dns", "queries for A, AAAA and HTTPS, 6:3:1, for a few names",
            _ingredients(
                *(
                    (kind, weight, f'IP()/UDP()/DNS(qd=DNSQR(qname="example.com", qtype={number}))')
                    for kind, weight, number in (("A", 6, 1), ("AAAA", 3, 28), ("HTTPS", 1, 65))
                )
            ),
            (f"DNSQR.qname={','.join(_WORDS)}", "IP.src=10.0.0.0/16",
             "UDP.sport=random:1024-65535", "DNS.id=random"),
        ),
        Mix(
            "syn-flood", "TCP SYN with usual options, from sources at random in 10.0.0.0/8",
            _ingredients(
                ("syn", 1, f'IP(flags="DF")/TCP(dport=80, flags="S", options={_SYN_OPTIONS})')
            ),
            ("IP.src=random:10.0.0.0/8", "TCP.sport=random:1024-65535", "TCP.seq=random"),
        ),
        Mix(
            "fragments", "UDP datagrams in three fragments each, over IPv4 and over IPv6",
            _ingredients(
                ("ipv4", 1, "fragment(IP()/UDP(sport=1024, dport=9)/bytes(3000), 1200)"),
                ("ipv6", 1, "fragment6(IPv6()/IPv6ExtHdrFragment()/UDP(sport=1024, dport=9)"
                 "/bytes(3000), 1280)"),
            ),
            ("IP.id=0-65535", "IPv6ExtHdrFragment.id=0-4294967295"), together=True,
        ),
        Mix(
            "vlan", "UDP without a tag, with one (802.1Q), with two (802.1ad), with three",
            _ingredients(
                ("untagged", 1, "IP()/UDP(dport=9)/bytes(18)"),
                ("802.1Q", 4, "Dot1Q(vlan=1)/IP()/UDP(dport=9)/bytes(18)"),
                ("802.1ad", 2, "Dot1AD(vlan=100)/Dot1Q(vlan=1)/IP()/UDP(dport=9)/bytes(18)"),
                ("three tags", 1,
                 "Dot1AD(vlan=100)/Dot1Q(vlan=1)/Dot1Q(vlan=2)/IP()/UDP(dport=9)/bytes(18)"),
            ),
            ("Dot1Q.vlan=1-4094", "Dot1Q.prio=0-7", "IP.src=10.0.0.0/16"),
        ),
        Mix(
            "ipv6-extensions", "IPv6 extension headers, one and several, before UDP, TCP, ICMPv6",
            _ingredients(
                *(
                    (f"{name}, {layer}", 1, f"IPv6()/{headers}/{template}")
                    for name, headers in _EXTENSIONS.items()
                    for layer, template in (
                        ("udp", "UDP(sport=1024, dport=9)/bytes(20)"),
                        ("tcp", 'TCP(sport=1024, dport=80, flags="S")'),
                        ("icmp6", "ICMPv6EchoRequest()/bytes(20)"),
                    )
                )
            ),
            ("IPv6.src=2001:db8::/64",),
        ),
        Mix(
            "malformed", "each field of each layer bent in turn, packets cut short", _malformed
        ),
    )
}  # fmt: skip


def find_mix(name: str) -> Mix:
    """Return a mix by its name.

    Raises:
        XdpipeError: there is none of that name.
    """
    if name not in MIXES:
        raise XdpipeError(f"--mix {name}: there are {', '.join(MIXES)}")
    return MIXES[name]
