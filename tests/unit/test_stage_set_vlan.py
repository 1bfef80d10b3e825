"""SetVlan: tags are changed, put in and taken out, in place, and never beyond the room there is."""

import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_packets import KINDS, MALFORMED, WAS, ether, ip4, udp
from scapy.compat import raw
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap
from test_checksum import as_a_nic
from test_multi_buffer import Queue, cut, in_frames
from test_tag_put_back import arrives, queue_with_hints

from guard_page import GuardedBatch
from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.batch import ABSENT, COLUMNS, Batch
from xdpipe.capture import CaptureReader
from xdpipe.check import check
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.pipeline import load_pipeline
from xdpipe.stages import Headers, SetVlan
from xdpipe.verdict import TX

HEAD = {"src": WAS["eth_src"], "dst": WAS["eth_dst"]}
Tag = tuple[int, int, int, int]  # TPID, priority, dei, VLAN


def behind() -> dict[str, tuple[int, bytes]]:
    """Return what may stand behind the tags: EtherType or length, and the rest."""
    packets: dict[str, Packet] = {
        kind: make(WAS)
        for kind, make in KINDS.items()
        if kind not in ("VLAN", "two tags", "IPv4 UDP, padded")
    }
    datas = {kind: raw(packet) for kind, packet in packets.items()}
    return {
        "LLC": (38, b"\x42\x42\x03" + bytes(35)),  # a length, and a spanning tree's hello
        **{kind: (int.from_bytes(d[12:14], "big"), d[14:]) for kind, d in datas.items()},
    }


BEHIND = behind()


def made(kind: str, *tags: Tag) -> bytes:
    """Return a packet with these tags, outer first, made by scapy."""
    eth_type, rest = BEHIND[kind]
    packet: Packet = Ether(**HEAD)
    types = [tpid for tpid, *_ in tags] + [eth_type]
    packet.type = types[0]
    for (tpid, prio, dei, vlan), following in zip(tags, types[1:], strict=True):
        layer = Dot1AD if tpid == 0x88A8 else Dot1Q
        packet /= layer(prio=prio, dei=dei, vlan=vlan, type=following)
    return raw(packet / Raw(rest))


C5, C7, S9 = (0x8100, 3, 0, 5), (0x8100, 0, 1, 7), (0x88A8, 7, 1, 4094)
TAGGED: list[tuple[Tag, ...]] = [(), (C5,), (S9,), (C5, C7), (S9, C5)]


@pytest.mark.parametrize(
    ("arguments", "becomes"),
    [
        ({"vid": 100}, lambda t: (t[0], t[1], t[2], 100)),
        ({"vid": 0}, lambda t: (t[0], t[1], t[2], 0)),
        ({"pcp": 4}, lambda t: (t[0], 4, t[2], t[3])),
        ({"pcp": 0}, lambda t: (t[0], 0, t[2], t[3])),
        ({"dei": True}, lambda t: (t[0], t[1], 1, t[3])),
        ({"dei": False}, lambda t: (t[0], t[1], 0, t[3])),
        ({"vid": 4094, "pcp": 7, "dei": 1}, lambda t: (t[0], 7, 1, 4094)),
    ],
)
@pytest.mark.parametrize("tags", TAGGED)
def test_fields_of_the_outer_tag_are_set(
    tags: tuple[Tag, ...], arguments: dict[str, Any], becomes: Any
) -> None:
    batch = parsed(made(kind, *tags) for kind in BEHIND)
    stage = SetVlan(**arguments)
    stage.process(batch)
    after = (becomes(tags[0]), *tags[1:]) if tags else ()
    assert bytes_of(batch) == [made(kind, *after) for kind in BEHIND]
    check_columns(batch)
    n_changed = len(BEHIND) if tags else 0
    assert counts(stage) == {
        "changed": n_changed, "left_alone": len(BEHIND) - n_changed, "no_room": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "tag"),
    [
        ({"vid": 5}, (0x8100, 0, 0, 5)),
        ({"vid": 4094, "pcp": 7, "dei": True, "tpid": 0x88A8}, (0x88A8, 7, 1, 4094)),
        ({"vid": 0, "pcp": 1}, (0x8100, 1, 0, 0)),
    ],
)
@pytest.mark.parametrize("tags", TAGGED)
def test_a_tag_is_pushed_before_the_others(
    tags: tuple[Tag, ...], arguments: dict[str, Any], tag: Tag
) -> None:
    batch = parsed(made(kind, *tags) for kind in BEHIND)
    stage = SetVlan(**arguments, push=True)
    stage.process(batch)
    fits = len(tags) < 2
    assert bytes_of(batch) == [made(kind, *((tag, *tags) if fits else tags)) for kind in BEHIND]
    check_columns(batch)
    assert counts(stage) == {
        "changed": len(BEHIND) * fits, "left_alone": len(BEHIND) * (not fits), "no_room": 0,
    }  # fmt: skip


@pytest.mark.parametrize("tags", TAGGED)
def test_the_outer_tag_is_popped(tags: tuple[Tag, ...]) -> None:
    batch = parsed(made(kind, *tags) for kind in BEHIND)
    stage = SetVlan(pop=True)
    stage.process(batch)
    assert bytes_of(batch) == [made(kind, *tags[1:]) for kind in BEHIND]
    check_columns(batch)
    assert counts(stage)["changed"] == (len(BEHIND) if tags else 0)


@pytest.mark.parametrize(
    ("arguments", "becomes", "new"),
    [
        ({"vid": 100}, lambda t: (t[0], t[1], t[2], 100), (0x8100, 0, 0, 100)),
        ({"vid": 7, "pcp": 2}, lambda t: (t[0], 2, t[2], 7), (0x8100, 2, 0, 7)),
        ({"vid": 7, "tpid": 0x88A8}, lambda t: (t[0], t[1], t[2], 7), (0x88A8, 0, 0, 7)),
    ],
)
@pytest.mark.parametrize("tags", TAGGED)
def test_a_tag_is_put_in_only_where_there_is_none_to_change(
    tags: tuple[Tag, ...], arguments: dict[str, Any], becomes: Any, new: Tag
) -> None:
    batch = parsed(made(kind, *tags) for kind in BEHIND)
    stage = SetVlan(**arguments, put=True)
    stage.process(batch)
    after = (becomes(tags[0]), *tags[1:]) if tags else (new,)
    assert bytes_of(batch) == [made(kind, *after) for kind in BEHIND]
    check_columns(batch)
    assert counts(stage) == {"changed": len(BEHIND), "left_alone": 0, "no_room": 0}


def test_all_offsets_move_and_nothing_else() -> None:
    batch = parsed([made("IPv4 UDP"), made("ARP")])
    offsets = [name for name, column in COLUMNS.items() if column.offset]
    assert {"l3", "l4", "payload"} <= set(offsets)
    moved = {"addr", "len", "head_len", "headroom", "vlan_tci", "n_vlans", "flags", *offsets}
    before = {name: getattr(batch, name).copy() for name in COLUMNS}
    SetVlan(5, push=True).process(batch)
    for name in COLUMNS:
        got, was = getattr(batch, name), before[name]
        if name in offsets and COLUMNS[name].provider == "Headers":
            assert got.tolist() == [at + 4 if at < ABSENT else at for at in was.tolist()], name
        elif name not in moved:
            np.testing.assert_array_equal(got, was, name)
    SetVlan(pop=True).process(batch)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(batch, name), before[name], name)


def test_offsets_before_a_tag_and_in_it_stay() -> None:
    """A column that nobody fills holds 0, for ever."""
    batch = parsed([made("IPv4 UDP", C5)])
    l3 = offset_column(batch, "l3")
    for at, pushed, popped in ((0, 0, 0), (11, 11, 11), (12, 16, 12), (15, 19, 15), (16, 20, 16),
                               (ABSENT - 4, ABSENT, ABSENT), (ABSENT, ABSENT, ABSENT),
                               (-5, -5, -5)):  # fmt: skip
        l3[0] = at
        SetVlan(5, push=True).process(batch)
        assert l3[0] == pushed
        SetVlan(pop=True).process(batch)
        assert l3[0] == popped


def offset_column(batch: Batch, name: str) -> np.ndarray:
    raw_column = lib.xp_batch_column(batch.c, COLUMNS[name].index)
    return np.frombuffer(ffi.buffer(raw_column, 4 * len(batch)), np.int32)


@pytest.mark.parametrize("headroom", [0, 1, 3, 4, 7, 8, 64])
def test_a_tag_takes_only_room_that_is_there(headroom: int) -> None:
    """Packets side by side: of the memory only the room before each may change."""
    packets = [made("IPv4 UDP"), made("IPv6 TCP"), made("ARP")]
    batch = Batch(bytearray(b"\xa5" * 4096), 4)
    batch.load(packets, headroom=headroom)
    Headers().process(batch)
    before = bytearray(batch.memory)
    first = batch.addr.copy()
    push = SetVlan(9, push=True)
    pushes = min(headroom // 4, 2)
    for _ in range(3):
        push.process(batch)
    tag = (0x8100, 0, 0, 9)
    assert bytes_of(batch) == [
        made(kind, *[tag] * pushes) for kind in ("IPv4 UDP", "IPv6 TCP", "ARP")
    ]
    for start, n in zip(first.tolist(), batch.len.tolist(), strict=True):
        at = start - 4 * pushes
        before[at : at + n] = batch.memory[at : at + n]
    assert batch.memory == before
    n = [pushes * 3, (3 - pushes) * 3 if pushes == 2 else 0, 0 if pushes == 2 else (3 - pushes) * 3]
    assert counts(push) == dict(zip(push.counters, n, strict=True))
    assert batch.headroom.tolist() == [headroom - 4 * pushes] * 3
    pop = SetVlan(pop=True)
    for _ in range(3):
        pop.process(batch)
    assert bytes_of(batch) == packets
    assert batch.headroom.tolist() == [headroom] * 3
    check_columns(batch)


def test_packets_that_were_placed_side_by_side_get_no_tag() -> None:
    packet = made("IPv4 UDP")
    memory = bytearray(packet * 4)
    batch = Batch(memory, 4)
    batch.place([len(packet) * i for i in range(4)], [len(packet)] * 4)
    Headers().process(batch)
    stage = SetVlan(5, push=True)
    stage.process(batch)
    assert memory == packet * 4
    assert counts(stage) == {"changed": 0, "left_alone": 0, "no_room": 4}


def test_a_room_that_is_told_wrongly_does_not_lead_before_the_memory() -> None:
    packet = made("IPv4 UDP")
    batch = Batch(bytearray(packet), 1)
    batch.place([0], [len(packet)], headroom=64)
    Headers().process(batch)
    stage = SetVlan(5, push=True)
    stage.process(batch)
    assert counts(stage)["no_room"] == 1
    assert bytes(batch.packet(0)) == packet


def test_a_third_tag_is_told_of_and_never_pushed() -> None:
    tags = (S9, C5, C7)
    packets = [made("IPv4 UDP", *tags), made("IPv4 UDP", C5, C7, S9, C5)]
    cut_short = [packets[0][:n] for n in (22, 23, 24, 25)]  # within the third tag
    batch = parsed(packets + cut_short)
    push = SetVlan(5, push=True)
    push.process(batch)
    assert counts(push)["left_alone"] == 6
    SetVlan(vid=1).process(batch)
    check_columns(batch)
    assert batch.vlan_tci[0].tolist() == [0xF001, 3 << 13 | 5]
    stage = SetVlan(pop=True)
    stage.process(batch)
    assert counts(stage) == {"changed": 2, "left_alone": 4, "no_room": 0}
    assert bytes_of(batch)[:2] == [made("IPv4 UDP", C5, C7), made("IPv4 UDP", C7, S9, C5)]
    assert batch.vlan_tci[:2].tolist() == [[3 << 13 | 5, 1 << 12 | 7], [1 << 12 | 7, 0xFFFE]]
    assert batch.n_vlans[:2].tolist() == [2, 2]
    assert batch.eth_type[:2].tolist() == [0x0800, 0x8100]
    assert batch.l3[:2].tolist() == [ABSENT, ABSENT]
    Headers().process(batch)
    assert batch.l3[:2].tolist() == [22, ABSENT]


def test_a_type_that_looks_like_a_tags_is_none_unless_it_stands_there() -> None:
    """The column may have it from elsewhere, as from a SNAP header."""
    batch = parsed([made("IPv4 UDP", C5, C7)])
    column = lib.xp_batch_column(batch.c, COLUMNS["eth_type"].index)
    np.frombuffer(ffi.buffer(column, 2), np.uint16)[0] = 0x8100
    SetVlan(pop=True).process(batch)
    assert bytes(batch.packet(0)) == made("IPv4 UDP", C7)
    assert (batch.n_vlans[0], batch.eth_type[0]) == (1, 0x8100)
    assert batch.vlan_tci[0].tolist() == [1 << 12 | 7, 0]


def test_only_undecided_packets_with_the_mark() -> None:
    batch = parsed([made("IPv4 UDP", C5)] * 3)
    batch.drop(np.array([True, False, False]))
    batch.mark[:] = [4, 4, 5]
    for stage in (SetVlan(9, only=4), SetVlan(8, push=True, only=4), SetVlan(pop=True, only=5)):
        stage.process(batch)
    assert [batch.len[i] for i in range(3)] == [len(made("IPv4 UDP", C5)) + n for n in (0, 4, -4)]
    assert batch.vlan_tci[:, 0].tolist() == [3 << 13 | 5, 8, 0]
    check_columns(batch)


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize(
    "arguments",
    [{"vid": 1}, {"vid": 1, "push": True}, {"pop": True}, {"vid": 1, "put": True}],
    ids=str,
)
def test_malformed_packets_are_left_alone(kind: str, arguments: dict[str, Any]) -> None:
    batch = GuardedBatch(1).load([MALFORMED[kind]])
    Headers().process(batch)
    stage = SetVlan(**arguments)
    stage.process(batch)
    assert bytes(batch.packet(0)) == MALFORMED[kind]
    assert counts(stage) == {"changed": 0, "left_alone": 1, "no_room": 0}


@pytest.mark.parametrize(
    "arguments", [{"vid": 1}, {"vid": 1, "push": True}, {"pop": True}], ids=str
)
@pytest.mark.parametrize("tags", [(), (C5,), (S9, C5), (S9, C5, C7)])
def test_nothing_is_read_or_written_beyond_a_packet(
    tags: tuple[Tag, ...], arguments: dict[str, Any]
) -> None:
    whole = made("IPv4 UDP", *tags)
    guarded = GuardedBatch(1)
    for n in range(len(whole) + 1):
        batch = guarded.load([whole[:n]])
        Headers().process(batch)
        SetVlan(**arguments).process(batch)
    for at in range(1, len(whole)):
        several = in_frames([cut(whole, at)])
        start, queue = int(several.addr[0]), several.queue  # type: ignore[attr-defined]
        queue.memory[start + at : start + at + 99] = b"\xa5" * 99
        before = bytes(queue.memory[start - 256 : start - 4])
        Headers().process(several)
        SetVlan(**arguments).process(several)
        assert queue.memory[start + at : start + at + 99] == b"\xa5" * 99
        assert queue.memory[start - 256 : start - 4] == before
        assert bytes(several.packet(0))[-10:] == whole[-10:]


# Frames: what is sent, and where the frame is found again.


def sent_and_back(queue: Queue) -> list[bytes]:
    """Send, take the frames back; check that none is lost; return what was sent."""
    lib.xp_dispatch(queue.worker)
    sent = queue.sent()
    lib.xp_take_back(queue.worker)
    lib.xp_refill(queue.worker)
    assert len(queue.fill) == queue.n_frames
    return sent


@pytest.mark.parametrize("at", [(), (60,), (50, 70)], ids=["whole", "two", "three"])
def test_what_grew_or_shrank_is_sent_so_and_its_frame_comes_back(at: tuple[int, ...]) -> None:
    for arguments, was, becomes in (
        ({"vid": 7, "dei": True, "push": True}, (), (C7,)),
        ({"vid": 7, "dei": True, "push": True}, (C5,), (C7, C5)),
        ({"pop": True}, (C5,), ()),
        ({"pop": True}, (S9, C5), (C5,)),
    ):
        queue = Queue()
        queue.worker.default_verdict = TX
        for _ in range(3):
            queue.arrives(cut(made("IPv4 UDP", *was), *at))
        assert lib.xp_receive(queue.worker) == 3
        Headers().process(queue.batch)
        SetVlan(**arguments).process(queue.batch)  # type: ignore[arg-type]
        assert sent_and_back(queue) == [made("IPv4 UDP", *becomes)] * 3


def test_a_frame_has_room_for_many_tags_and_its_own_bytes_are_kept() -> None:
    """Were Headers to look again each time, a tag could go before every other."""
    queue = Queue()
    queue.worker.default_verdict = TX
    lib.xp_batch_tells_tx_times(queue.batch.c)
    packet = made("IPv4 UDP")
    queue.arrives([packet])
    assert lib.xp_receive(queue.worker) == 1
    frame = int(queue.batch.addr[0]) // 2048 * 2048
    push = SetVlan(5, push=True)
    n_vlans = lib.xp_batch_column(queue.batch.c, COLUMNS["n_vlans"].index)
    Headers().process(queue.batch)
    for _ in range(60):
        np.frombuffer(ffi.buffer(n_vlans, 1), np.uint8)[0] = 0
        push.process(queue.batch)
    changed = (256 - 40) // 4
    assert counts(push) == {"changed": changed, "left_alone": 0, "no_room": 60 - changed}
    assert queue.memory[frame : frame + 40] == bytes(40)
    queue.batch.want_tx_time(np.array([True]), 77)
    lib.xp_dispatch(queue.worker)
    desc = queue.tx.kernel_takes()
    address, length = int(desc["addr"]), int(desc["len"])  # type: ignore[index]
    sent = bytes(queue.memory[address : address + length])
    assert sent == packet[:12] + b"\x81\x00\x00\x05" * changed + packet[12:]
    struct.pack_into("=Q", queue.memory, address - lib.XP_TX_METADATA + 8, 123)
    queue.completion.kernel_puts(address)
    lib.xp_take_back(queue.worker)
    assert (queue.batch.sent_tag.tolist(), queue.batch.sent_time_ns.tolist()) == ([77], [123])


@pytest.mark.parametrize("offload", [0, 1])
@pytest.mark.parametrize(
    ("arguments", "was", "becomes"),
    [({"vid": 7, "dei": 1, "push": True}, (), (C7,)), ({"pop": True}, (C5,), ())],
)
def test_a_checksum_that_is_due_is_right_all_the_same(
    arguments: dict[str, Any], was: tuple[Tag, ...], becomes: tuple[Tag, ...], offload: int
) -> None:
    queue = Queue()
    queue.worker.default_verdict = TX
    queue.port.tx_checksum = offload
    right = made("IPv4 UDP", *was)
    at = len(right) - len(raw(udp(WAS) / Raw(bytes(99)))) + 6
    queue.arrives([right[:at] + b"\xab\xcd" + right[at + 2 :]])
    assert lib.xp_receive(queue.worker) == 1
    Headers().process(queue.batch)
    queue.batch.fill_checksum(np.array([True]))
    SetVlan(**arguments).process(queue.batch)
    lib.xp_dispatch(queue.worker)
    if not offload:
        assert queue.sent() == [made("IPv4 UDP", *becomes)]
        return
    desc = queue.tx.kernel_takes()
    address, length = int(desc["addr"]), int(desc["len"])  # type: ignore[index]
    assert as_a_nic(queue.memory, address, length) == made("IPv4 UDP", *becomes)


# A tag that the NIC took out: test_tag_put_back has it priority 3, VLAN 5.


@pytest.mark.parametrize("inner", [(), (C7,), (S9, C7)])
@pytest.mark.parametrize(
    ("arguments", "outer"),
    [
        ({"vid": 9}, ((0x8100, 3, 0, 9),)),
        ({"pcp": 0, "dei": 1}, ((0x8100, 0, 1, 5),)),
        ({"pop": True}, ()),
        ({"vid": 4094, "pcp": 7, "dei": 1, "tpid": 0x88A8, "push": True}, (S9, C5)),
    ],
    ids=str,
)
def test_a_tag_that_the_nic_took_out_is_the_outer_one(
    inner: tuple[Tag, ...], arguments: dict[str, Any], outer: tuple[Tag, ...]
) -> None:
    queue = queue_with_hints()
    arrives(queue, [made("IPv4 UDP", *inner)])
    assert lib.xp_receive(queue.worker) == 1
    Headers().process(queue.batch)
    stage = SetVlan(**arguments)
    stage.process(queue.batch)
    check_columns(queue.batch)
    if len(outer) == 2 and inner:  # three tags, or four
        assert counts(stage)["left_alone"] == 1
        outer = (C5,)
    else:
        assert counts(stage)["changed"] == 1
    assert sent_and_back(queue) == [made("IPv4 UDP", *outer, *inner)]


def test_two_tags_have_room_or_none_is_put_in() -> None:
    queue = queue_with_hints()
    arrives(queue, [made("IPv4 UDP")])
    assert lib.xp_receive(queue.worker) == 1
    Headers().process(queue.batch)
    room = lib.xp_batch_column(queue.batch.c, COLUMNS["headroom"].index)
    np.frombuffer(ffi.buffer(room, 2), np.uint16)[0] = 7
    stage = SetVlan(9, push=True)
    stage.process(queue.batch)
    assert counts(stage)["no_room"] == 1
    assert sent_and_back(queue) == [made("IPv4 UDP", C5)]


@pytest.mark.parametrize("batch_size", [1, 3, 512])
def test_check_writes_what_it_has_become(tmp_path: Path, batch_size: int) -> None:
    """Packets whose length is a multiple of what they are aligned to as well."""
    file, capture, written = (tmp_path / name for name in ("p.py", "in.pcap", "out.pcap"))
    file.write_text(
        "from xdpipe import TX, Pipeline\n"
        "from xdpipe.stages import Headers, SetVlan\n"
        "pipeline = Pipeline('', [Headers(), SetVlan(6, push=True),\n"
        "                         SetVlan(5, pcp=3, push=True)], default=TX)\n"
    )
    rests = [raw(ip4(WAS) / udp(WAS) / Raw(bytes([n]) * n)) for n in range(150)]
    wrpcap(str(capture), [raw(ether(WAS))[:12] + b"\x08\0" + rest for rest in rests])
    result = check(load_pipeline(file), capture, write={TX: str(written)}, batch_size=batch_size)
    counters = [stage["counters"] for stage in result["stages"][1:]]
    assert counters == [{"changed": 150, "left_alone": 0, "no_room": 0}] * 2
    with CaptureReader(written) as reader:
        got = [(packet.wire_len, packet.data) for packet in reader]
    head = raw(Ether(**HEAD) / Dot1Q(prio=3, vlan=5) / Dot1Q(vlan=6, type=0x0800))
    assert got == [(len(head + rest), head + rest) for rest in rests]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "SetVlan: nothing to do; give vid, pcp or dei, push or pop"),
        ({"vid": 4095}, "vid=4095: 0 to 4094"),
        ({"vid": -1}, "vid=-1"),
        ({"vid": "5"}, "vid='5'"),
        ({"pcp": 8}, "pcp=8: 0 to 7"),
        ({"dei": 2}, "dei=2: True or False"),
        ({"put": True, "pcp": 3}, "put=True: say the new tag's vid"),
        ({"put": True, "push": True, "vid": 5}, "one of them"),
        ({"push": True}, "push=True: say the new tag's vid"),
        ({"push": True, "pcp": 1}, "say the new tag's vid"),
        ({"pop": True, "vid": 5}, "pop=True takes a tag out: no vid"),
        ({"pop": True, "push": True, "vid": 5}, "push=True, pop=True and put=True: one of them"),
        (
            {"vid": 5, "push": True, "tpid": 0x9100},
            "tpid=37120: with push=True or put=True, 0x8100",
        ),
        ({"vid": 5, "tpid": 0x88A8}, "with push=True"),
        ({"vid": 5, "only": 1.5}, "only=1.5: a mark"),
    ],
)
def test_what_cannot_be_is_one_clear_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(XdpipeError) as raised:
        SetVlan(**given)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tags_come_and_go_as_often_as_wanted() -> None:
    batch = parsed([made("IPv6 UDP")] * 8)
    deeds = itertools.product([SetVlan(5, pcp=3, push=True), SetVlan(pop=True)], repeat=6)
    tags: list[list[Tag]] = [[]]
    for deed in itertools.chain.from_iterable(deeds):
        deed.process(batch)
        if deed._values["deed"] == lib.XP_SET_VLAN_PUSH:
            tags[0] = [C5, *tags[0]][:2]
        else:
            tags[0] = tags[0][1:]
        assert bytes(batch.packet(7)) == made("IPv6 UDP", *tags[0])
    check_columns(batch)
