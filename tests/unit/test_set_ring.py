"""Sets of addresses: declared, added to by stages, and on their way to the supervisor."""

import ipaddress
import random
from collections.abc import Iterator

import numpy as np
import pytest

from xdpipe import DropSet, Pipeline, Steering, XdpipeError
from xdpipe.core._core import lib
from xdpipe.set_command import parse, show
from xdpipe.set_ring import SetRing
from xdpipe.sets import MAPPED, KeySet
from xdpipe.stage_sets import Remembered, StageSet, stage_sets

Keys = list[tuple[int, int, bytes]]


@pytest.fixture
def ring() -> Iterator[SetRing]:
    ring = SetRing()
    yield ring
    ring.close()


def rows(*addresses: str) -> np.ndarray:
    packed = [ipaddress.ip_address(text).packed for text in addresses]
    packed = [MAPPED + each if len(each) == 4 else each for each in packed]
    return np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16)


def taken(ring: SetRing) -> Keys:
    return [key for keys in ring.take() for key in keys]


def prefixes(ring: SetRing) -> StageSet:
    return StageSet("blocked", 3, DropSet(prefixes=True), ring)


def test_what_is_added_comes_out_once(ring: SetRing) -> None:
    drop = StageSet("blocked", 1, DropSet(), ring)
    assert drop.add(rows("192.0.2.1", "2001:db8::1", "192.0.2.1")) == 2
    assert drop.add(rows("192.0.2.1")) == 0  # in the last 100 ms
    assert taken(ring) == [
        (1, 128, rows("192.0.2.1").tobytes()),
        (1, 128, rows("2001:db8::1").tobytes()),
    ]
    assert taken(ring) == []


def test_prefixes_are_cut(ring: SetRing) -> None:
    added = prefixes(ring).add(rows("192.0.2.201", "2001:db8:7:8::1"), bits4=25, bits6=47)
    assert added == 2
    assert [show((length, address)) for _, length, address in taken(ring)] == [
        "192.0.2.128/25",
        "2001:db8:6::/47",
    ]


@pytest.mark.parametrize("bits", [0, 1, 8, 31, 32])
def test_any_length_of_a_prefix_is_what_ipaddress_says(ring: SetRing, bits: int) -> None:
    rng = random.Random(bits)
    for _ in range(50):
        address = ipaddress.ip_address(rng.getrandbits(32))
        prefixes(ring).add(rows(str(address)), bits4=bits)
        network = ipaddress.ip_network((address, bits), strict=False)
        for _, length, packed in taken(ring):
            assert (length, packed[12:]) == (96 + bits, network.network_address.packed)


def test_a_full_ring_loses_and_counts(ring: SetRing) -> None:
    n = lib.XP_SET_RING + 100
    many = np.zeros((n, 16), np.uint8)
    many[:, :4] = np.arange(n, dtype=">u4").view(np.uint8).reshape(-1, 4)
    assert StageSet("blocked", 0, DropSet(), ring).add(many) == lib.XP_SET_RING
    assert ring.n_lost == 100
    assert len(taken(ring)) == lib.XP_SET_RING
    assert StageSet("blocked", 0, DropSet(), ring).add(many[-100:]) in range(101)


def test_a_worker_that_writes_nonsense_into_the_ring_does_no_harm(ring: SetRing) -> None:
    ring._map[: len(ring._map)] = b"\xff" * len(ring._map)
    for _ in range(3):
        for keys in ring.take():
            assert len(keys) <= 4096
            break


@pytest.mark.parametrize(
    ("addresses", "bits", "told"),
    [
        (np.zeros((2, 4), np.uint8), {}, r"uint8\[k, 16\] wanted"),
        (np.zeros(16, np.uint8), {}, r"uint8\[k, 16\] wanted"),
        (np.zeros((2, 16), np.uint32), {}, r"uint8\[k, 16\] wanted"),
        (np.zeros((2, 16), np.uint8), {"bits4": 24}, "declare it with prefixes=True"),
        (np.zeros((2, 16), np.uint8), {"bits4": 33}, "0 to 32 or 0 to 128"),
    ],
)
def test_what_is_no_address_is_told(
    ring: SetRing, addresses: np.ndarray, bits: dict[str, int], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        StageSet("blocked", 0, DropSet(), ring).add(addresses, **bits)


def test_over_a_capture_addresses_are_counted() -> None:
    sink = Remembered()
    sets = stage_sets({"a": DropSet(), "b": DropSet()}, sink)
    sets["b"].add(rows("192.0.2.1", "192.0.2.2"))
    sets["b"].add(rows("192.0.2.1"))
    assert sink.counts(["a", "b"]) == {"a": 0, "b": 2}


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ({"a": 1}, "write a dict of names and sets"),
        ({"a b": DropSet()}, "write a dict of names and sets"),
        ([DropSet()], "write a dict of names and sets"),
        ({"a": KeySet()}, "write a dict of names and sets"),
    ],
)
def test_sets_that_make_no_sense_are_told(sets: object, told: str) -> None:
    with pytest.raises(XdpipeError, match=told):
        Steering("udp", sets=sets)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"match": "both"}, {"capacity": 0}, {"ttl_s": 0}, {"ttl_s": -1}])
def test_a_set_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(XdpipeError, match=next(iter(wrong))):
        DropSet(**wrong)  # type: ignore[arg-type]


def test_sets_of_one_name_are_one_set() -> None:
    one = Steering("udp", sets={"a": DropSet()})
    assert list(Pipeline({"x": one, "y": one}, ports=("x", "y")).sets) == ["a"]
    other = Steering("udp", sets={"a": DropSet(ttl_s=1)})
    with pytest.raises(XdpipeError, match="declared in two ways"):
        Pipeline({"x": one, "y": other}, ports=("x", "y"))


def test_a_steering_with_sets_crosses_process_borders() -> None:
    steering = Steering("udp", guard=False, sets={"a": DropSet(prefixes=True, ttl_s=1.5)})
    assert Steering.from_dict(steering.to_dict()) == steering


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.1",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "192.0.2.0/31",
        "2001:db8::1",
        "::/0",
        "2001:db8::/32",
    ],
)
def test_addresses_and_prefixes_are_read_and_shown(text: str) -> None:
    assert show(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.0/", "10.0.0.0/33", "::1/129", "10.0.0.0/-1", "a", "10.0.0.0/1/1"],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no (address|length)"):
        parse(text)
