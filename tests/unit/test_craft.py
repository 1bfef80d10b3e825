"""Crafted packets are those that scapy builds, in the order and number that were asked for."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from xdpipe.errors import XdpipeError
from xdpipe.traffic.anatomy import Anatomy, layers
from xdpipe.traffic.crafted import Crafted
from xdpipe.traffic.expression import packets
from xdpipe.traffic.plan import Plan
from xdpipe.traffic.recipe import Ingredient, Recipe
from xdpipe.traffic.sizes import Sizes


def plan_of(template: str, *vary: str, size: str | None = None, **more: object) -> Plan:
    sizes = None if size is None else Sizes.parse(size)
    return Recipe((Ingredient("packet", template),), vary, sizes=sizes, **more).plan()


def made(plan: Plan, n: int, first: int = 0) -> list[bytes]:
    source = Crafted(plan, n, first=first, headers=False)
    return [bytes(batch.packet(i)) for batch in source for i in range(len(batch))]


def columns(plan: Plan, n: int, *names: str) -> list[np.ndarray]:
    """Return columns of n packets, as Headers sees them."""
    parts = [[getattr(batch, name).copy() for name in names] for batch in Crafted(plan, n)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


FIELDS = {
    "Ether.src": ("02:00:00:00:00:00-02:00:00:01:00:00", "random"),
    "Dot1Q.vlan": ("1-4094", "7,9,4095", "random"),
    "Dot1Q.prio": ("0-7", "random"),
    "IP.src": ("10.0.0.0/16", "10.1.2.3-10.1.3.9+7", "192.0.2.1,198.51.100.77", "random"),
    "IP.dst": ("10.0.0.0/30", "255.255.255.255,0.0.0.0", "random"),
    "IP.ttl": ("1-255", "random"),
    "IP.id": ("0-65535", "random:1-3"),
    "IP.frag": ("0",),
    "IP:2.src": ("172.16.0.0/12", "random"),
    "IP:2.tos": ("random",),
    "IPv6.src": ("2001:db8::/64", "2001:db8::/32", "fe80::1-fe80::ff", "::1,2001:db8::7", "random"),
    "IPv6.dst": ("2001:db8:7::/120", "random"),
    "IPv6.fl": ("random", "0-1048575+77"),
    "IPv6.hlim": ("64,128",),
    "TCP.sport": ("1024-65535", "random"),
    "TCP.flags": ("S,SA,R,FPU", "random"),
    "TCP.seq": ("random", "0-4294967295+1000003"),
    "TCP.chksum": ("0x1234,7",),
    "UDP.sport": ("1024-65535", "random", "0xfff0-0xffff"),
    "UDP.dport": ("53,123", "0-65535"),
    "UDP:2.dport": ("random",),
    "ICMP.id": ("0-65535",),
    "ICMP.seq": ("random",),
    "ICMPv6EchoRequest.id": ("random",),
    "VXLAN.vni": ("0-16777215", "random"),
    "DNS.id": ("random",),
    "DNSQR.qname": ("a.example,bb.example,ccc.example", "x.example,y.example", "example.org"),
    "DNSQR.qtype": ("A,AAAA,65",),
    "Raw.load": ("abcdef,ghijkl", "ab,cde,f", "random"),
    "GRE.proto": ("0x800",),
    "MPLS.label": ("16-1048575", "random"),
    "ARP.psrc": ("10.0.0.0/8", "random"),
}  # fmt: skip
STACKS = (
    "IP()/UDP(dport=53)",
    'IP(options=[IPOption_RR(routers=["192.0.2.9"])])/UDP()/b"odd"',
    'IP()/UDP()/DNS(qd=DNSQR(qname="example.com"))',
    'Dot1Q()/IP()/TCP(options=[("MSS", 1460), ("NOP", None)])/b"12345"',
    'Dot1AD(vlan=5)/Dot1Q()/IPv6()/TCP(flags="S")',
    "IP()/ICMP()",
    "IP()/ICMP(type=0)/bytes(8)",
    'IPv6()/ICMPv6EchoRequest(data="abc")',
    "IPv6()/IPv6ExtHdrHopByHop(options=[RouterAlert()])/IPv6ExtHdrDestOpt()/UDP()/bytes(3)",
    'IPv6()/IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::9"])/UDP()/bytes(3)',
    "IP()/UDP(dport=4789)/VXLAN(vni=7)/Ether()/IP()/UDP()/b'inner'",
    "IP()/GRE()/IP()/TCP()/b'x'",
    "IP()/IP()/ICMP()/b'xyz'",
    "IPv6()/IP()/UDP()",
    "MPLS(label=16)/IP()/UDP()",
    "IP(chksum=1)/UDP(chksum=0)/bytes(9)",
    "IP(len=60)/UDP(len=9)/bytes(9)",
    'Dot3()/LLC()/SNAP()/IP()/UDP()/b"at an odd place"',
    "ARP()",
)


def has(stack: str, field: str) -> bool:
    name, _, nth = field.partition(".")[0].partition(":")
    if field == "UDP.dport" and ("VXLAN" in stack or "DNS" in stack):
        return False  # by which scapy knows what is within, when it reads what was made
    [packet] = packets(stack)
    return [type(layer).__name__ for layer in layers(packet)].count(name) >= int(nth or 1)


FITTING = {stack: [field for field in FIELDS if has(stack, field)] for stack in STACKS}


@st.composite
def specs(draw: st.DrawFn) -> tuple[str, list[str], str | None, int | None]:
    stack = draw(st.sampled_from(STACKS))
    fields = draw(st.lists(st.sampled_from(FITTING[stack]), unique=True, max_size=4))
    vary = [f"{field}={draw(st.sampled_from(FIELDS[field]))}" for field in fields]
    size = draw(st.sampled_from((None, None, "imix", "200-300", "1518")))
    return stack, vary, size, draw(st.sampled_from((None, 1, 2**64 - 1)))


def scapys(stack: str, vary: Sequence[str], packet: bytes) -> bytes:
    """Return what scapy builds, with the values of the varied fields that a packet has."""
    [template] = packets(stack)
    anatomy = Anatomy(template)
    seen = list(layers(Ether(packet)))
    setting = {}
    for text in vary:
        field = text.partition("=")[0]
        name, _, nth = field.partition(".")[0].partition(":")
        number = [k for k, x in enumerate(anatomy.layers) if type(x).__name__ == name]
        at = number[int(nth or 1) - 1]
        attribute = field.partition(".")[2]
        value = [x for x in seen if type(x).__name__ == name][int(nth or 1) - 1].getfieldval(
            attribute
        )
        if name == "Raw":
            continue
        setting[at, attribute] = value
    return anatomy.built(setting, max(len(packet) - len(anatomy.built(setting)), 0))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs())
def test_a_packet_is_what_scapy_builds_with_the_same_values(
    spec: tuple[str, list[str], str | None, int | None],
) -> None:
    stack, vary, size, seed = spec
    if any(text.startswith("Raw.load") for text in vary):
        vary = [text for text in vary if not text.startswith("Raw.load")]
    plan = plan_of(stack, *vary, size=size, seed=seed)
    n = min(plan.n_flows, 40)
    for packet in made(plan, n):
        assert packet == scapys(stack, vary, packet), (spec, packet.hex())


@pytest.mark.parametrize("values", ["abcdef,ghijkl", "ab,cde,f"])
def test_texts_of_one_length_and_of_several_are_put_in(values: str) -> None:
    template = "IP()/UDP()/Raw(load=b'abcdef')"
    for packet, text in zip(made(plan_of(template, f"Raw.load={values}"), 6), values.split(",") * 3,
                            strict=False):  # fmt: skip
        [wanted] = packets(f"IP()/UDP()/Raw(load={text.encode()!r})")
        assert packet == bytes(wanted)


def test_a_payload_at_random_differs_from_flow_to_flow_with_its_checksum_right() -> None:
    plan = plan_of("IP()/UDP()/Raw(load=bytes(99))", "Raw.load=random", flows=50)
    made_ = made(plan, 100)
    assert made_[:50] == made_[50:]
    assert len(set(made_)) == 50
    for packet in made_[:50]:
        [wanted] = packets(f"IP()/UDP()/Raw(load={packet[42:]!r})")
        assert packet == bytes(wanted)
    ones = np.unpackbits(np.frombuffer(b"".join(p[42:] for p in made_[:50]), np.uint8)).mean()
    assert 0.48 < ones < 0.52


def test_each_field_goes_round_its_values_and_all_combinations_come_once() -> None:
    plan = plan_of("IP()/UDP()", "IP.src=10.0.0.0/28", "UDP.sport=1-12", "UDP.dport=5,6,7,8")
    assert plan.n_flows == plan.n_once == 16 * 12 * 4
    src, sport, dport = columns(plan, plan.n_once, "src", "l4_sport", "l4_dport")
    seen = Counter(zip(src[:, 15].tolist(), sport.tolist(), dport.tolist(), strict=True))
    assert set(seen.values()) == {1}
    assert len(seen) == 16 * 12 * 4
    for n in (12, 48, 96):  # and meanwhile each is spread evenly
        assert set(Counter(sport[:n].tolist()).values()) == {n // 12}
    assert src[:20, 15].tolist() == [*range(16), *range(4)]
    assert sport[:14].tolist() == [*range(1, 13), 1, 2]


def test_packets_are_spread_evenly_over_as_many_flows_as_asked_for() -> None:
    plan = plan_of("IP()/UDP()", "IP.src=10.0.0.0/16", "UDP.sport=1024-65535", flows=10_000)
    src, sport = columns(plan, 100_000, "src", "l4_sport")
    numbers = src[:, 14].astype(int) << 24 | src[:, 15].astype(int) << 16 | sport
    _, counts = np.unique(numbers, return_counts=True)
    assert len(counts) == 10_000
    assert set(counts) == {10}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_at_random_are_spread_as_chance_would(seed: int) -> None:
    plan = plan_of("IP()/UDP()", "IP.src=10.0.0.0/16", "UDP.sport=1024-65535", seed=seed)
    n, bins = 200_000, 256
    src, sport = columns(plan, n, "src", "l4_sport")
    last, second, port = src[:, 15].astype(int), src[:, 14].astype(int), (sport - 1024) // 252
    for column in (last, second, port, last ^ second, (last + port) % bins):
        counts = np.bincount(column, minlength=bins)[:bins]
        chi_square = ((counts - n / bins) ** 2 / (n / bins)).sum()
        # 255 degrees of freedom: mean 255, deviation 22.6; five of them either way
        assert 255 - 113 < chi_square < 255 + 113
    assert np.corrcoef(last[:-1], last[1:])[0, 1] < 0.02


def test_random_combinations_come_once_each_before_any_comes_again() -> None:
    plan = plan_of("IP()/UDP()", "IP.src=10.0.0.0/25", "UDP.sport=1-77", seed=5)
    src, sport = columns(plan, plan.n_once, "src", "l4_sport")
    numbers = src[:, 15].astype(int) * 1000 + sport
    assert len(np.unique(numbers)) == plan.n_once == 128 * 77
    assert (np.diff(numbers) != 1001).mean() > 0.99


def test_a_seed_makes_the_same_packets_again_and_another_one_others() -> None:
    vary = ("IP.src=10.0.0.0/16", "UDP.sport=random", "IP.id=random")
    first = made(plan_of("IP()/UDP()", *vary, seed=7), 1000)
    assert made(plan_of("IP()/UDP()", *vary, seed=7), 1000) == first
    assert made(plan_of("IP()/UDP()", *vary, seed=8), 1000) != first
    assert len(set(first)) == 1000


@pytest.mark.parametrize("seed", [None, 3])
def test_one_may_begin_at_any_packet(seed: int | None) -> None:
    plan = plan_of(
        "IP()/UDP()", "IP.src=10.0.0.0/29", "UDP.sport=1-6", "UDP.dport=1-4", "IP.id=random",
        size="64-70", seed=seed, flows=150,
    )  # fmt: skip
    whole = made(plan, 1000)
    assert [len(p) for p in whole] == [len(p) for p in made(plan, 1000)]
    for first in (1, 47, 48, 149, 150, 500, 999):
        assert made(plan, 1000 - first, first) == whole[first:]


def test_sizes_come_as_often_as_their_weights_say() -> None:
    plan = plan_of("IP()/UDP()", "IP.src=10.0.0.0/24", size="imix")
    lens = [len(p) for p in made(plan, 1200)]
    assert Counter(lens) == {60: 700, 590: 400, 1514: 100}
    assert Counter(lens[:12]) == {60: 7, 590: 4, 1514: 1}
    assert plan.n_longer == 0


def test_flows_and_sizes_are_not_tied_to_each_other() -> None:
    plan = plan_of("IP()/UDP()", "IP.src=10.0.0.0/30", size="64:2,594:1,1518:1")
    src, lens = columns(plan, 16, "src", "len")
    pairs = Counter(zip(src[:, 15].tolist(), lens.tolist(), strict=True))
    assert pairs == {(s, n): 2 if n == 60 else 1 for s in range(4) for n in (60, 590, 1514)}


def test_a_packet_is_never_shorter_than_its_template_and_that_is_counted() -> None:
    plan = plan_of("IP()/UDP()/bytes(100)", size="64,594")
    assert Counter(len(p) for p in made(plan, 10)) == {142: 5, 590: 5}
    assert plan.n_longer == 5


def test_many_words_are_built_of_the_first_one_and_are_right(tmp_path: Path) -> None:
    words = [f"{'x' * (k % 17)}w{k}.example" for k in range(200)]
    (tmp_path / "words").write_text("# some\n" + "\n".join(words))
    template = 'IP()/UDP()/DNS(qd=DNSQR(qname="example.com"))'
    vary = (f"DNSQR.qname=@{tmp_path}/words", "DNSQR.qtype=1,28", "IP.src=10.0.0.0/16")
    plan = plan_of(template, *vary, size="64-300")
    assert plan.n_templates == 200
    made_ = made(plan, 600)
    for packet in made_:
        assert packet == scapys(template, vary, packet)
    names = [Ether(p)["DNSQR"].qname.decode().removesuffix(".") for p in made_]
    assert names == words * 3


def test_weights_say_how_often_each_kind_comes() -> None:
    kinds = (Ingredient("tcp", "IP()/TCP()", 3), Ingredient("udp", "IP()/UDP()", 1))
    plan = Recipe(kinds, ("IP.src=10.0.0.0/24", "TCP.sport=1-9")).plan()
    made_ = made(plan, 400)
    assert plan.n_made() == {"tcp": 300, "udp": 100}
    assert Counter(p[23] for p in made_[:4]) == {6: 3, 17: 1}


def test_what_xdpipe_does_not_know_how_to_change_is_built_by_scapy_for_each_value() -> None:
    """SCTP has a CRC over all of it."""
    plan = plan_of("IP()/SCTP(dport=9)", "SCTP.sport=1-5", "IP.src=10.0.0.0/24")
    assert plan.n_templates == 5
    for k, packet in enumerate(made(plan, 10)):
        [wanted] = packets(f'IP(src="10.0.0.{k}")/SCTP(dport=9, sport={k % 5 + 1})')
        assert packet == bytes(wanted)
    with pytest.raises(XdpipeError, match="can have 65,536 values at the most"):
        plan_of("IP()/SCTP()", "SCTP.tag=random")
    with pytest.raises(XdpipeError, match="leave out --size"):
        plan_of("IP()/SCTP()", size="100")


def test_what_scapy_fills_in_at_random_is_the_same_each_time() -> None:
    template = "IPv6()/UDP()/DHCP6_Solicit()"
    assert made(plan_of(template), 1) == made(plan_of(template), 1)


def test_a_batch_has_the_columns_of_headers_and_is_dated() -> None:
    plan = plan_of("IP()/UDP(dport=53)", "UDP.sport=1-100", pps=1000)
    source = Crafted(plan, 5000, batch_size=256)
    assert source.n_packets == 5000
    times = np.concatenate([batch.time_ns.copy() for batch in source])
    assert set(np.diff(times).tolist()) == {1_000_000}
    assert sum(int((b.l4_dport == 53).sum()) for b in source) == 5000
    assert {len(batch) for batch in source} == {256, 5000 % 256}
    source.close()
    source.close()


@pytest.mark.parametrize(
    ("template", "vary", "message"),
    [
        ("IP(/UDP()", (), "template 'IP(/UDP()'"),
        ("IP()/UPD()", (), "at character 6, 'UPD()': scapy has no layer UPD; did you mean UDP?"),
        ("IP()/UDP(dprt=1)", (), "at character 6, 'UDP(dprt=1)': there is no field dprt"),
        ("IP().show()", (), "no Attribute may stand in a template"),
        ("__import__('os')", (), "scapy has no layer __import__"),
        ("IP(id=RandShort())", (), "scapy has no layer RandShort; say --vary LAYER.FIELD=random"),
        ("[]", (), "no packet"),
        ("7", (), "a packet is wanted, this gives int"),
        ('IP(dst="10.0.0.0/8")', (), "more than 4,096 packets"),
        ("IP()/UDP(len=70000)", (), "scapy cannot build it"),
        ("IP()", ("IP.src",), "say LAYER.FIELD=VALUES"),
        ("IP()", ("UDP.sport=1",), "there is no layer UDP in a packet; there are Ether, IP"),
        ("IP()", ("IP:2.src=1.1.1.1",), "there is no 2 layers IP"),
        ("IP()", ("IP.sport=1",), "IP has no field sport; it has version, ihl"),
        ("IP()", ("IP.options=1",), "only numbers, addresses and texts can be varied"),
        ("IP()", ("IP.ttl=1-256",), "256 is beyond the field's 8 bits"),
        ("IP()", ("IP.ttl=9-1",), "9-1: runs backwards"),
        ("IP()", ("IP.ttl=x",), "'x' is no number"),
        ("IP()", ("IP.ttl=1-9+0",), "a step is a whole number, 1 or more"),
        ("IP()", ("IP.src=10.0.0.300",), "'10.0.0.300' is no IPv4 address"),
        ("IP()", ("IP.src=::/64",), "::/64: the field takes IPv4"),
        ("Ether()", ("Ether.src=1:2",), "'1:2' is no MAC address"),
        ("IP()", ("IP.src=@/nowhere",), "/nowhere: No such file or directory"),
        ('IP()/UDP()/DNS(qd=DNSQR(qname="a"))', ("DNSQR.qname=random",), "only bytes that"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(
    template: str, vary: tuple[str, ...], message: str
) -> None:
    with pytest.raises(XdpipeError) as caught:
        plan_of(template, *vary)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"flows": 8}, "--flows 8: there are 7 combinations of values"),
        ({"size": "64"}, "--size 64: the packet has 146 bytes with its checksum"),
    ],
)
def test_too_many_flows_and_too_small_a_size_are_refused(
    more: dict[str, object], message: str
) -> None:
    with pytest.raises(XdpipeError, match=message):
        plan_of("IP()/UDP()/bytes(100)", "UDP.sport=1-7", **more)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("63", "63 is no frame's size"),
        ("9217", "9217 is no frame's size"),
        ("big", "say imix, 64"),
        ("70-64", "70-64 runs backwards"),
        ("64:0", "weights are from 1 on"),
    ],
)
def test_sizes_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(XdpipeError, match=message):
        Sizes.parse(text)
