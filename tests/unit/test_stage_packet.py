"""Stages that are called for each packet: bytes in place, columns, scapy, decisions, faults."""

from typing import Any

import numpy as np
import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from test_multi_buffer import cut, in_frames

from xdpipe import ABSENT, Batch, Packet, PacketStage, Stage
from xdpipe.batch import HEADROOM, MALFORMED
from xdpipe.chain import Chain
from xdpipe.stages import Headers, Http1, TcpStreams, Tls
from xdpipe.verdict import DROP, FORWARD, PASS, TX

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
PACKETS = [
    bytes(
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000 + i, dport=9) / bytes([i] * 9)
    )
    for i in range(6)
]


def batch_of(packets: list[bytes], ports: tuple[str, ...] = ("",)) -> Batch:
    batch = Batch(bytearray(1 << 16), 16, ports)
    batch.load(packets)
    batch.set_port(ports[0])
    return batch


def calling(function: Any, **members: Any) -> PacketStage:
    """Return a stage whose `packet` is a function of the packet."""
    members["packet"] = lambda self, p: function(p)
    stage: PacketStage = type("Calls", (PacketStage,), members)()
    return stage


def run(function: Any, packets: list[bytes] = PACKETS, **members: Any) -> Batch:
    batch = batch_of(packets)
    errors: list[Exception] = []
    chain = Chain(
        [Headers(), calling(function, **members)], batch, on_error=lambda _, e: errors.append(e)
    )
    chain.run()
    if errors:
        raise errors[0]
    return batch


def test_each_undecided_packet_is_seen_once_in_order() -> None:
    seen: list[int] = []

    class DropThird(Stage):
        def process(self, batch: Batch) -> None:
            batch.drop(np.arange(len(batch)) == 2)

    batch = batch_of(PACKETS)
    Chain([Headers(), DropThird(), calling(lambda p: seen.append(p.l4_sport))], batch).run()
    assert seen == [1000, 1001, 1003, 1004, 1005]


def test_all_packets_are_seen_by_who_asks_for_them() -> None:
    seen: list[bool] = []
    batch = batch_of(PACKETS)
    batch.drop(np.arange(6) < 4)
    stage = calling(lambda p: seen.append(p.undecided), all_packets=True)
    Chain([stage], batch).run()
    assert seen == [False] * 4 + [True] * 2


def test_columns_are_plain_values() -> None:
    def look(p: Packet) -> None:
        assert type(p.l4_dport) is int
        assert (p.l4_dport, p.l4_sport) == (9, 1000 + p.index)
        assert p.dst == bytes(10) + b"\xff\xff\x0a\x00\x00\x02"
        assert p.vlan_tci == (0, 0)
        assert (len(p), p.port) == (len(PACKETS[0]), "")
        assert p.has("UDP", "IPV4")
        assert not p.has("UDP", "TCP")
        assert (p.u8(23), p.u16(12), p.u32(26), p.u64(26)) == (
            17,
            0x800,
            0x0A000001,
            0x0A0000010A000002,
        )
        assert p.u16(p.payload + 8) == 0
        assert p.u16(p.payload + 8, missing=7) == 7
        assert p.u8(ABSENT, 300) == 44  # as a uint8 column would hold it
        assert p.u8(-1) == p.u8(1 << 70) == p.u8(-(1 << 70)) == 0
        p.mark = p.index + 1

    assert run(look).mark.tolist() == [1, 2, 3, 4, 5, 6]


def test_texts_and_lists_are_given_as_what_they_are() -> None:
    request = b"GET /index.html HTTP/1.1\r\nHost: Example.com\r\n\r\n"
    packet = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=80, flags="PA") / request)
    seen = []

    def look(p: Packet) -> None:
        seen.append(
            (p.http_host, p.text("http_host"), p.text("http_target"), p.numbers("tls_ciphers"))
        )

    batch = batch_of([packet, PACKETS[0]])
    errors: list[Exception] = []
    stages = [Headers(), TcpStreams(), Http1(), Tls(), calling(look)]
    Chain(stages, batch, on_error=lambda _, e: errors.append(e)).run()
    assert errors == []
    assert seen == [(b"example.com", "example.com", "/index.html", []), (b"", "", "", [])]


def test_what_is_no_column_is_told() -> None:
    for wrong, message in (
        (lambda p: p.paylod, "a packet has no 'paylod'"),
        (lambda p: setattr(p, "score", 3), "a batch has no such column; declare it"),
        (lambda p: p.text("payload"), "payload is no column of texts"),
        (lambda p: p.text("nothing"), "nothing is no column of texts"),
    ):
        with pytest.raises((AttributeError, ValueError), match=message):
            run(wrong)
    with pytest.raises(ValueError, match="read-only"):
        run(lambda p: setattr(p, "payload", 3))


def test_bytes_are_written_in_place() -> None:
    def write(p: Packet) -> None:
        p.data[p.payload] = 0xAB
        p.data[-2:] = b"xy"

    batch = run(write)
    for i, packet in enumerate(PACKETS):
        assert bytes(batch.packet(i)) == packet[:42] + b"\xab" + packet[43:-2] + b"xy"


def test_stores_keep_the_checksum_right() -> None:
    def write(p: Packet) -> None:
        assert p.put_u16(p.l4, 53, fix_checksum=True) == 1
        assert p.put_u8(p.payload, 1, fix_checksum=True) == 1
        assert p.put_u32(p.payload + 4, 0x01020304, fix_checksum=True) == 1
        assert p.put_u32(len(p) - 3, 0) == 0

    batch = run(write)
    for i in range(6):
        parsed = Ether(bytes(batch.packet(i)))
        assert parsed[UDP].sport == 53
        checksum = parsed[UDP].chksum
        del parsed[UDP].chksum
        assert Ether(bytes(parsed))[UDP].chksum == checksum


def test_decisions_touch_undecided_packets_and_say_so() -> None:
    def decide(p: Packet) -> None:
        verdict = (p.drop, p.tx, p.pass_)[p.index % 3]
        assert verdict() == 1
        assert verdict() == p.drop() == 0
        assert not p.undecided

    assert run(decide).verdict.tolist() == [DROP, TX, PASS] * 2


def test_forward_names_the_port() -> None:
    batch = batch_of(PACKETS[:4], ("a", "b", "c"))

    def forward(p: Packet) -> None:
        assert p.forward("abca"[p.index]) == 1
        assert p.forward("b") == 0

    Chain([calling(forward)], batch).run()
    assert batch.verdict.tolist() == [FORWARD] * 4
    assert batch.out_port.tolist() == [0, 1, 2, 0]
    batch = batch_of(PACKETS[:1], ("a", "b"))
    Chain([calling(lambda p: p.forward())], batch).run()
    assert batch.out_port.tolist() == [1]
    with pytest.raises(ValueError, match="forward to port 'x': the pipeline's ports are: one"):
        run(lambda p: p.forward("x"))


def test_a_fault_of_one_packet_is_counted_and_the_others_go_on() -> None:
    batch = batch_of(PACKETS)
    told: list[tuple[str, Exception]] = []

    def fail(p: Packet) -> None:
        if p.index in (1, 4):
            raise KeyError(p.index)
        p.drop()

    chain = Chain([calling(fail)], batch, on_error=lambda stage, e: told.append((stage, e)))
    chain.run()
    chain.run()
    [counts] = chain.read_counts()
    assert (counts["kind"], counts["errors"], counts["packets"]) == ("packet", 4, 12)
    assert [(stage, type(error)) for stage, error in told] == [("Calls", KeyError)]
    assert batch.verdict.tolist() == [DROP, 0, DROP, DROP, 0, DROP]


def test_outside_a_chain_a_fault_is_raised() -> None:
    def fail(p: Packet) -> None:
        raise KeyError(3)

    with pytest.raises(KeyError):
        calling(fail).process(batch_of(PACKETS))


def test_a_packet_that_is_kept_can_do_no_harm() -> None:
    kept: list[Packet] = []
    views: list[memoryview] = []

    def keep(p: Packet) -> None:
        kept.append(p)
        views.append(p.data)

    run(keep)
    with pytest.raises(ValueError, match="the packet is gone"):
        kept[0].drop()
    with pytest.raises(ValueError, match="the packet is gone"):
        _ = kept[0].l4_dport
    with pytest.raises(ValueError, match="the packet is gone"):
        kept[0].mark = 3
    with pytest.raises(ValueError, match="released"):
        views[0][0] = 1


def test_scapy_is_parsed_when_asked_for_and_written_back() -> None:
    query = bytes(
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=99, dport=53)
        / DNS(id=7, qd=DNSQR(qname="Example.com"))
    )  # fmt: skip
    seen = []

    def rewrite(p: Packet) -> None:
        assert p.scapy is p.scapy
        seen.append(p.scapy[DNSQR].qname)
        p.scapy[IP].ttl = 9
        p.scapy[DNS].id = 8
        del p.scapy[IP].chksum, p.scapy[UDP].chksum
        p.replace(p.scapy)
        assert p.scapy[IP].ttl == p.data[22] == 9

    batch = run(rewrite, [query])
    assert seen == [b"Example.com."]
    wanted = Ether(query)
    wanted[IP].ttl, wanted[DNS].id = 9, 8
    del wanted[IP].chksum, wanted[UDP].chksum
    assert bytes(batch.packet(0)) == bytes(wanted)
    assert batch.l4_dport.tolist() == [53]  # as many bytes: the columns stay


@pytest.mark.parametrize("new", [PACKETS[1][:20], PACKETS[1] + bytes(range(HEADROOM))])
def test_with_another_length_parsers_columns_say_nothing_any_more(new: bytes) -> None:
    batch = batch_of(PACKETS)

    def replace(p: Packet) -> None:
        if p.index == 1:
            p.fill_checksum()
            data = p.data
            p.replace(new)
            assert (len(p), len(p.data), p.head_len) == (len(new),) * 3
            with pytest.raises(ValueError, match="released"):
                data[0] = 1

    Chain([Headers(), calling(replace)], batch).run()
    for i, packet in enumerate(PACKETS):
        assert bytes(batch.packet(i)) == (new if i == 1 else packet)
    for name in ("l3", "l4", "payload"):
        assert getattr(batch, name)[1] == ABSENT
    for name in ("flags", "ip_version", "ip_proto", "payload_len", "checksum_due"):
        assert getattr(batch, name)[1] == 0
    before = batch.l4.tolist()
    Chain([Headers()], batch).run()
    assert batch.l4.tolist()[2:] == before[2:]
    assert batch.malformed.tolist() == [0, len(new) == 20 and MALFORMED["IP4_SHORT"], 0, 0, 0, 0]


def test_a_packet_grows_into_its_headroom() -> None:
    def add_tag(p: Packet) -> None:
        before = p.headroom
        p.replace(ETHER / Dot1Q(vlan=7) / Ether(bytes(p)).payload)
        assert p.headroom == before - 4

    batch = run(add_tag)
    Chain([Headers()], batch).run()
    assert batch.n_vlans.tolist() == [1] * 6
    assert batch.vlan_tci[:, 0].tolist() == [7] * 6
    assert batch.l4_sport.tolist() == [1000, 1001, 1002, 1003, 1004, 1005]


def test_what_does_not_fit_is_refused() -> None:
    most = 51 + HEADROOM
    with pytest.raises(
        ValueError, match=f"replace: {most + 1} bytes .* 51; there is room for {most}"
    ):
        run(lambda p: p.replace(bytes(p) + bytes(HEADROOM + 1)))
    with pytest.raises(ValueError, match="replace: 13 bytes; an Ethernet header alone has 14"):
        run(lambda p: p.replace(bytes(13)))


def test_a_packet_in_several_frames_is_read_and_written_whole() -> None:
    packet = bytes(ETHER / IP() / TCP(sport=5, dport=80) / bytes(range(256)))
    batch = in_frames([cut(packet, 60, 100), cut(PACKETS[0])])
    seen: list[Any] = []

    def look(p: Packet) -> None:
        seen.append((p.u8(59), p.u16(59), p.u32(98), p.u64(57), bytes(p.data) == packet))
        if len(p) < 100:
            return
        with pytest.raises(TypeError):
            p.data[0] = 1
        assert p.put_u16(99, 0xBEEF, fix_checksum=True) == 1
        with pytest.raises(ValueError, match="it came in several frames"):
            p.replace(bytes(p)[:-1])
        p.replace(bytes(p)[:-1] + b"\xee")

    errors: list[Exception] = []
    Chain([Headers(), calling(look)], batch, on_error=lambda _, e: errors.append(e)).run()
    assert errors == []
    assert seen[0] == (
        packet[59], int.from_bytes(packet[59:61]), int.from_bytes(packet[98:102]),
        int.from_bytes(packet[57:65]), True,
    )  # fmt: skip
    written = bytes(batch.packet(0))
    assert written[99:101] == b"\xbe\xef"
    assert written[-1] == 0xEE
    assert (written[:50], written[52:99], written[101:-1]) == (
        packet[:50], packet[52:99], packet[101:-1]
    )  # fmt: skip
    assert written[50:52] != packet[50:52]  # the checksum
    assert batch.n_frames.tolist() == [3, 1]
