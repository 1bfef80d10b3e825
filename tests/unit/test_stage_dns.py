"""The stage Dns over UDP on crafted packets: columns, names, EDNS, faults, what is missing."""

import struct
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT
from test_headers_cut import fragment6, ip4, ip6
from test_multi_buffer import cut, in_frames

from dns_messages import (
    AAAA,
    EXAMPLE,
    HEADER,
    IN,
    POINTER,
    RESPONSE,
    ROOT,
    UDP,
    A,
    as_text,
    bits,
    check_cuts,
    datagram,
    message,
    opt,
    packet,
    question,
    random_name,
    record,
    rows,
    wire_labels,
)  # fmt: skip
from guard_page import GuardedBatch
from xdpipe import DROP
from xdpipe.batch import COLUMNS, Batch
from xdpipe.chain import Chain, ChainError
from xdpipe.errors import XdpipeError
from xdpipe.stages import Dns, Headers
from xdpipe.stages.dns import FLAGS, FOUND, MALFORMED, name_hash, wire_name

NOTHING = dict.fromkeys(Dns.provides, 0) | {"dns_name": "", "dns_found": set()}


BATCH = Batch(bytearray(1 << 20), 64)


def look(*packets: bytes, stage: Dns | None = None) -> list[dict[str, object]]:
    stage = stage or Dns()
    found = []
    for first in range(0, len(packets), BATCH.capacity):
        BATCH.load(packets[first : first + BATCH.capacity])
        Headers().process(BATCH)
        stage.process(BATCH)
        found += rows(BATCH)
    return found


def look_at(data: bytes, stage: Dns | None = None) -> dict[str, object]:
    """Look at a message that is a UDP payload to port 53."""
    [row] = look(packet(data), stage=stage)
    return row


def counted(*packets: bytes, ports: tuple[int, ...] = (53,)) -> dict[str, int]:
    """Return the counters that are not 0 after a chain has seen the packets."""
    batch = Batch(bytearray(1 << 20), 64)
    chain = Chain([Headers(), Dns(ports)], batch)
    batch.load(packets)
    chain.run()
    counters: dict[str, int] = chain.read_counts()[1]["counters"]
    return {name: n for name, n in counters.items() if n}


# What a message says


def test_a_query_fills_the_columns() -> None:
    row = look_at(message([question(b"\3wWw\7eXample\3COM\0", AAAA, 3)], flags=0x0130))
    assert row == NOTHING | {
        "dns_found": {"MESSAGE", "QUESTION"}, "dns_n_messages": 1, "dns_len": HEADER + 17 + 4,
        "dns_id": 0x1234, "dns_flags": 0x0130, "dns_n_questions": 1,
        "dns_name": "www.example.com", "dns_name_hash": name_hash("www.example.com"),
        "dns_n_labels": 3, "dns_type": AAAA, "dns_class": 3,
    }  # fmt: skip
    assert bits(0x0130, "dns_flags") == {"RD", "AD", "CD"}
    assert FLAGS["AD"] == 0x20


def test_a_response_fills_the_columns() -> None:
    data = message(
        [question()], [record(), record()], [record(EXAMPLE, 2, POINTER)],
        [record(), record(b"\2ns" + POINTER), opt(size=4096, ttl=0x01008000, data=b"\0\x0a\0\2xy")],
        flags=0x8583,
    )  # fmt: skip
    assert look_at(data) == NOTHING | {
        "dns_found": {"MESSAGE", "RESPONSE", "QUESTION", "EDNS"}, "dns_n_messages": 1,
        "dns_len": len(data), "dns_id": 0x1234, "dns_flags": 0x8583, "dns_rcode": 0x13,
        "dns_n_questions": 1, "dns_n_answers": 2, "dns_n_authority": 1, "dns_n_additional": 3,
        "dns_name": "example.com", "dns_name_hash": name_hash("example.com"),
        "dns_n_labels": 2, "dns_type": A, "dns_class": IN,
        "dns_udp_size": 4096, "dns_edns_flags": 0x8000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (0x0000, {"dns_opcode": 0, "dns_rcode": 0}),
        (0x2000, {"dns_opcode": 4}),
        (0xAC05, {"dns_opcode": 5, "dns_rcode": 5, "response": True}),
        (0x7800, {"dns_opcode": 15}),
        (0x8200, {"response": True, "truncated": True}),
        (0xFFFF, {"dns_opcode": 15, "dns_rcode": 15, "response": True, "truncated": True}),
    ],
)
def test_the_flags_of_the_header(flags: int, wanted: dict[str, int]) -> None:
    row = look_at(message([question()], flags=flags))
    assert row["dns_flags"] == flags
    assert (row["dns_opcode"], row["dns_rcode"]) == (
        wanted.get("dns_opcode", 0), wanted.get("dns_rcode", 0)
    )  # fmt: skip
    found = row["dns_found"]
    assert ("RESPONSE" in found) == wanted.get("response", False)  # type: ignore[operator]
    assert ("TRUNCATED" in found) == wanted.get("truncated", False)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ttl", "rcode", "version", "flags"),
    [
        (0, 3, 0, 0),
        (0x00008000, 3, 0, 0x8000),
        (0x0100_0000, 0x13, 0, 0),
        (0xFF00_0000, 0xFF3, 0, 0),
        (0x0101_4001, 0x13, 1, 0x4001),
        (0x00FF_0000, 3, 255, 0),
    ],
)
def test_edns_has_a_version_flags_and_more_of_the_rcode(
    ttl: int, rcode: int, version: int, flags: int
) -> None:
    row = look_at(message([question()], [], [], [opt(size=512, ttl=ttl)], flags=0x8183))
    assert "EDNS" in row["dns_found"]  # type: ignore[operator]
    assert row["dns_rcode"] == rcode
    assert (row["dns_udp_size"], row["dns_edns_version"]) == (512, version)
    assert row["dns_edns_flags"] == flags


def test_opt_may_stand_anywhere_in_the_additional_section() -> None:
    for place in range(3):
        additional = [record(), record(EXAMPLE)]
        additional.insert(place, opt())
        row = look_at(message([question()], [record()], [], additional))
        assert row["dns_found"] == {"MESSAGE", "QUESTION", "EDNS"}, place


def test_a_message_without_a_question_has_no_name() -> None:
    row = look_at(message([], [], [], [opt()], flags=0x8005))
    assert row["dns_found"] == {"MESSAGE", "RESPONSE", "EDNS"}
    assert (row["dns_name"], row["dns_name_hash"], row["dns_type"]) == ("", 0, 0)


def test_a_zone_transfer_without_a_question_is_walked() -> None:
    row = look_at(message([], [record(EXAMPLE)] * 3, flags=0x8400))
    assert row["dns_found"] == {"MESSAGE", "RESPONSE"}


def test_bytes_behind_the_last_record_are_told() -> None:
    row = look_at(message([question()], [record()]) + b"\0")
    assert row["dns_found"] == {"MESSAGE", "QUESTION", "TRAILING"}
    assert row["dns_malformed"] == 0


# Names

NAMES = [
    (b"\0", ".", 0),
    (b"\1a\0", "a", 1),
    (b"\1A\1b\0", "a.b", 2),
    (b"\3@[`\3{Zz\0", "@[`.{zz", 2),
    (b"\5_ldap\4_TCP\3dc-\0", "_ldap._tcp.dc-", 3),
    (b"\3a.b\3com\0", r"a\046b.com", 2),
    (b"\3a\\b\0", r"a\092b", 1),
    (b'\6 \t\x7f"!~\0', r"""\032\009\127"!~""", 1),
    (b"\2\0\0\1A\0", r"\000\000.a", 2),
    (b"\4\xc3\x84\xff\x80\0", r"\195\132\255\128", 1),
    (b"\1.\1.\0", r"\046.\046", 2),
    (b"\1\1\1\1\0", r"\001.\001", 2),
    (b"\x0f" + b"x" * 15 + b"\0", "x" * 15, 1),
    (b"\x20" + b"x" * 32 + b"\0", "x" * 32, 1),
    (b"\x21" + b"x" * 33 + b"\0", "x" * 33, 1),
    (b"\x2e" + b"x" * 46 + b"\1Y\0", "x" * 46 + ".y", 2),
    (b"\x3f" + b"Q" * 63 + b"\0", "q" * 63, 1),
    (b"\x10" + b"\x0f" * 16 + b"\0", r"\015" * 16, 1),
    (b"\1x" * 127 + b"\0", ".".join("x" * 127), 127),
    ((b"\x3f" + b"y" * 63) * 3 + b"\x3d" + b"z" * 61 + b"\0",
     ".".join(["y" * 63] * 3 + ["z" * 61]), 4),
    ((b"\x3f" + b"\xff" * 63) * 3 + b"\x3d" + b"\0" * 61 + b"\0",
     ".".join([r"\255" * 63] * 3 + [r"\000" * 61]), 4),
    (b"".join(b"\1%c" % c for c in b"1234567890abcdef") * 2 + b"\3ip6\4arpa\0",
     ".".join("1234567890abcdef" * 2) + ".ip6.arpa", 34),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "text", "n_labels"), NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("edns", [False, True])
def test_names_are_text_in_lower_case(wire: bytes, text: str, n_labels: int, edns: bool) -> None:
    row = look_at(message([question(wire, 16)], [], [], [opt()] * edns))
    assert row["dns_found"] == {"MESSAGE", "QUESTION"} | ({"EDNS"} if edns else set())
    assert (row["dns_name"], row["dns_n_labels"], row["dns_type"]) == (text, n_labels, 16)
    assert row["dns_name_hash"] == name_hash(text)
    assert wire_name(text) == wire.lower()


def test_names_of_every_size_at_a_guard_page() -> None:
    """Whatever follows the name, the text and the hash are its own; nothing beyond is read."""
    rng = Random(1)
    guarded = GuardedBatch(64)
    sizes = set()
    for _ in range(100):
        names = [random_name(rng, rng.choice([0, 0, 0.1])) for _ in range(64)]
        packets = [
            packet(message([question(name)], [], [], rng.choice([(), (opt(),)]))) for name in names
        ]
        batch = guarded.load(packets)
        Headers().process(batch)
        Dns().process(batch)
        assert (batch.dns_malformed == 0).all()
        texts = [as_text(name) for name in names]
        assert batch.text("dns_name") == texts
        assert batch.dns_name_hash.tolist() == [name_hash(text) for text in texts]
        assert batch.dns_n_labels.tolist() == [wire_labels(name) for name in names]
        sizes |= {len(name) for name in names}
    assert len(sizes) > 200


def test_the_hash_tells_names_apart() -> None:
    names = [f"{i:x}.example.com" for i in range(20_000)]
    names += [f"{'a' * i}.b" for i in range(1, 60)] + [f"a.{'b' * i}" for i in range(2, 60)]
    names += [r"a\046b", "a.b.", ".", r"\000", r"\000\000", r"\000.\000"]
    hashes = np.array([name_hash(name) for name in names], np.uint64)
    assert len(set(hashes.tolist())) == len(names) - 1  # "a.b" is there twice
    for bit in range(64):
        ones = int((hashes >> np.uint64(bit) & np.uint64(1)).sum())
        assert abs(ones - len(names) / 2) < 500, bit


def test_the_hash_of_a_name_in_any_case_is_one() -> None:
    assert name_hash("Example.COM") == name_hash("example.com.") == name_hash(r"\101xample.com")
    assert name_hash("example.com") != name_hash("example.org")
    assert name_hash("example.com") == 0x7BF254797CBF30F9  # who has stored some finds them again
    for name in (EXAMPLE, EXAMPLE.upper()):
        assert look_at(message([question(name)]))["dns_name_hash"] == name_hash("eXample.com")


def test_many_names_are_compared_at_once() -> None:
    BATCH.load([packet(message([question(name)])) for name in (EXAMPLE, b"\3org\0", b"\3ORG\0")])
    Headers().process(BATCH)
    Dns().process(BATCH)
    wanted = [name_hash("org"), name_hash("net")]
    assert np.isin(BATCH.dns_name_hash, wanted).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "each label has 1 to 63 bytes"),
        ("a..b", "each label has 1 to 63 bytes"),
        (".a", "each label has 1 to 63 bytes"),
        ("..", "each label has 1 to 63 bytes"),
        ("x" * 64, "each label has 1 to 63 bytes"),
        (".".join(["x" * 63] * 4), "257 bytes; 255 are the most"),
        ("a\\", "a backslash with nothing, or too little, behind"),
        (r"a\12", "a backslash with nothing, or too little, behind"),
        (r"a\256", r"'\\256' is at most \255"),
        ("bücher.example", r"'ü' is not ASCII: write its A-labels, xn--…, or \DDD"),
    ],
)
def test_what_is_no_name_is_told(name: str, why: str) -> None:
    with pytest.raises(XdpipeError) as error:
        name_hash(name)
    assert str(error.value) == f"DNS name {name!r}: {why}"


def test_a_dot_or_a_letter_behind_a_backslash_is_itself() -> None:
    assert wire_name(r"a\.b\\\c.d") == b"\5a.b\\c\1d\0"
    assert wire_name("a\\.") == b"\2a.\0"


def test_names_beyond_the_room_for_texts_have_their_hash_and_are_counted() -> None:
    longest = b"\x3f" + b"\xff" * 63
    name = longest * 3 + b"\x3d" + b"\xff" * 61 + b"\0"
    batch = Batch(bytearray(1 << 12), 1)
    chain = Chain([Headers(), Dns()], batch)
    batch.load([packet(message([question(name)]))])
    texts = []
    for _ in range(5):  # the room is given back only when the next batch comes
        chain.run()
        texts += batch.text("dns_name")
        assert batch.dns_name_hash[0] == name_hash(as_text(name))
        assert batch.dns_n_labels[0] == 4
    assert texts == [as_text(name)] * 4 + [""]
    assert chain.read_counts()[1]["counters"]["no_text"] == 1


# Faults

LONG = (b"\x3f" + b"x" * 63) * 3  # 192 bytes
FAULTS = {
    "no byte": (b"", "HEADER_SHORT"),
    "11 bytes": (message()[:11], "HEADER_SHORT"),
    "no question where one is counted": (message(counts=(1, 0, 0, 0)), "MISSING"),
    "no second question": (message([question()], counts=(2, 0, 0, 0)), "MISSING"),
    "no record where one is counted": (message([question()], counts=(1, 0, 1, 0)), "MISSING"),
    "no second record": (message([question()], [record()], counts=(1, 1, 0, 1)), "MISSING"),
    "name without an end": (message([b"\7example"]), "NAME_SHORT"),
    "name without an end, padded as names end": (message([b"\7examp\0\0"]), "NAME_SHORT"),
    "label over the end": (message([b"\x3fexample"]), "NAME_SHORT"),
    "record's name over the end": (message([question()], [b"\7exam"]), "NAME_SHORT"),
    "record's pointer cut": (message([question()], [b"\xc0"]), "NAME_SHORT"),
    "question's pointer cut": (message([b"\1a\xc0"]), "NAME_SHORT"),
    "name of 256": (message([question(LONG + b"\x3e" + b"x" * 62 + ROOT)]), "NAME_LONG"),
    "name of 256, odd": (message([question(LONG + b"\x3e" + b" " * 62 + ROOT)]), "NAME_LONG"),
    "name of 256 in short labels": (
        message([question(b"\1x" * 126 + b"\2xy" + ROOT)]), "NAME_LONG"
    ),
    "name of 257 in short labels": (message([question(b"\1x" * 128 + ROOT)]), "NAME_LONG"),
    "record's name of 256": (
        message([question()], [record(LONG + b"\x3e" + b"x" * 62 + ROOT)]), "NAME_LONG"
    ),
    "label type 01": (message([question(b"\1a\x41" + bytes(70))]), "LABEL_TYPE"),
    "label type 10": (message([question(b"\x80" + bytes(20))]), "LABEL_TYPE"),
    "record's label type": (message([question()], [record(b"\1a\x7f")]), "LABEL_TYPE"),
    "pointer ahead": (message([question(b"\1a\xc0\x20"), bytes(20)]), "POINTER_AHEAD"),
    "record's pointer ahead": (message([question()], [record(b"\xc0\xff")]), "POINTER_AHEAD"),
    "pointer to itself": (message([question(b"\xc0\x0c")]), "POINTER_LOOP"),
    "pointer into its own name": (message([question(b"\1a\xc0\x0c")]), "POINTER_LOOP"),
    "record's pointer to itself": (message([question()], [record(b"\xc0\x1d")]), "POINTER_LOOP"),
    "record's pointer into its own name": (
        message([question()], [record(b"\1a\xc0\x1d")]), "POINTER_LOOP"
    ),
    "pointer into the header": (message([question(b"\xc0\x0b")]), "POINTER_HEADER"),
    "record's pointer into the header": (
        message([question()], [record(b"\xc0\0")]), "POINTER_HEADER"
    ),
    "3 bytes of type and class": (message([question()[:-1]]), "QUESTION_SHORT"),
    "no type and class": (message([ROOT]), "QUESTION_SHORT"),
    "second question cut": (message([question(), question()[:-4]]), "QUESTION_SHORT"),
    "9 bytes of a record": (message([question()], [record(data=b"")[:-1]]), "RECORD_SHORT"),
    "name alone of a record": (message([question()], [POINTER]), "RECORD_SHORT"),
    "length beyond the end": (message([question()], [record(size=5)]), "RDATA_SHORT"),
    "length 65535": (message([question()], [record(size=65535)]), "RDATA_SHORT"),
    "OPT among answers": (message([question()], [opt()]), "OPT_SECTION"),
    "OPT in authority": (message([question()], [record()], [opt()]), "OPT_SECTION"),
    "OPT not at the root": (message([question()], [], [], [opt(POINTER)]), "OPT_NAME"),
    "OPT behind a label": (message([question()], [], [], [opt(EXAMPLE)]), "OPT_NAME"),
    "two OPT": (message([question()], [], [], [opt(), record(), opt()]), "OPT_TWICE"),
    "3 bytes of an option": (
        message([question()], [], [], [opt(data=b"\0\x0a\0")]), "OPT_OPTIONS"
    ),
    "option beyond its record": (
        message([question()], [], [], [opt(data=b"\0\x0a\0\3ab"), record()]), "OPT_OPTIONS"
    ),
    "second option beyond": (
        message([question()], [], [], [opt(data=b"\0\x0a\0\1a\0\x0a\0\1")]), "OPT_OPTIONS"
    ),
    "two questions": (message([question(), question()]), "MANY_QUESTIONS"),
    "65535 questions": (message([ROOT + bytes(4)] * 65535)[:1397], "MISSING"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_reason(name: str) -> None:
    data, reason = FAULTS[name]
    row = look_at(data)
    assert (row["dns_malformed"], reason) == (MALFORMED[reason], reason)
    assert row["dns_n_messages"] == 1
    found = row["dns_found"]
    assert "MALFORMED" in found  # type: ignore[operator]
    assert ("MESSAGE" in found) == (len(data) >= HEADER)  # type: ignore[operator]
    assert counted(packet(data))["malformed"] == 1
    assert counted(packet(data))[f"malformed_{reason.lower()}"] == 1


def test_every_reason_has_its_fault() -> None:
    assert {reason for _, reason in FAULTS.values()} == set(MALFORMED)


def test_what_stands_before_a_fault_is_told_and_nothing_behind() -> None:
    data = message([question()], [record(size=99)], [], [opt()], flags=0x8183)
    assert look_at(data) == NOTHING | {
        "dns_found": {"MESSAGE", "RESPONSE", "QUESTION", "MALFORMED"}, "dns_n_messages": 1,
        "dns_malformed": MALFORMED["RDATA_SHORT"], "dns_len": len(data), "dns_id": 0x1234,
        "dns_flags": 0x8183, "dns_rcode": 3, "dns_n_questions": 1, "dns_n_answers": 1,
        "dns_n_additional": 1, "dns_name": "example.com",
        "dns_name_hash": name_hash("example.com"), "dns_n_labels": 2, "dns_type": A,
        "dns_class": IN,
    }  # fmt: skip
    for data in (message([question()[:-1]]), message([question(b"\1a\xc0\x0c")])):
        row = look_at(data)
        assert row["dns_found"] == {"MESSAGE", "MALFORMED"}
        assert [row[f"dns_{c}"] for c in ("name", "name_hash", "n_labels", "type")] == ["", 0, 0, 0]


def test_several_questions_are_no_fault_of_mdns_and_of_other_opcodes() -> None:
    several = message([question(), question(POINTER)])
    stage = Dns((53, 5353))
    row, ordinary = look(packet(several, 5353, 5353), packet(several), stage=stage)
    assert row["dns_malformed"] == 0
    assert ordinary["dns_malformed"] == MALFORMED["MANY_QUESTIONS"]
    assert row["dns_n_questions"] == ordinary["dns_n_questions"] == 2
    notify = message([question(), question(POINTER)], flags=0x2000)
    assert look_at(notify)["dns_malformed"] == 0


@pytest.mark.parametrize("n_questions", [1, 2, 3, 511, 512, 513, 600])
def test_no_more_than_512_questions_and_records_are_looked_at(n_questions: int) -> None:
    for n_all in (511, 512, 513, 600):
        if n_all <= n_questions:
            continue
        n_records = n_all - n_questions
        bad = b"\xff" * 20  # stands where number 513 would
        data = message(
            [question(ROOT)] * min(n_questions, 512), [record(ROOT, data=b"")] * n_records,
            counts=(n_questions, n_records, 0, 0), flags=0x2000,
        )  # fmt: skip
        if n_all > 512:
            data = data[: HEADER + 5 * min(n_questions, 512) + 11 * max(512 - n_questions, 0)] + bad
        row = look_at(data)
        beyond = {"MANY_RECORDS"} if n_all > 512 else set()
        assert row["dns_found"] == {"MESSAGE", "QUESTION"} | beyond, n_all


# What is missing


def test_a_first_fragment_is_partial_and_nothing_in_it_malformed() -> None:
    data = message([question()], [record()] * 3, [], [opt()], flags=RESPONSE)
    whole = look_at(data)
    for less in range(1, len(data) + 1):
        udp = datagram(data, less=less)
        four, six = ip4(UDP, udp, fragment=0x2000), ip6(44, fragment6(UDP, 0, 1) + udp)
        for row in look(four, six):
            there = len(data) - less
            found = {"PARTIAL"}
            if there >= HEADER:
                found |= {"MESSAGE", "RESPONSE"}
            if there >= HEADER + len(question()):
                found |= {"QUESTION"}
            assert (row["dns_found"], row["dns_malformed"]) == (found, 0), less
            assert row["dns_len"] == len(data)
            if there >= HEADER:
                assert row["dns_n_additional"] == whole["dns_n_additional"]
            assert row["dns_name"] == ("example.com" if "QUESTION" in found else "")


def test_a_first_fragment_with_edns_in_it_tells_of_it() -> None:
    data = message([question()], [], [], [opt(), record()])
    [row] = look(ip4(UDP, datagram(data, less=3), fragment=0x2000))
    assert row["dns_found"] == {"MESSAGE", "QUESTION", "EDNS", "PARTIAL"}


def test_a_fault_in_a_first_fragment_is_one() -> None:
    data = message([question(b"\1a\xc0\x0c")], [record()])
    [row] = look(ip4(UDP, datagram(data, less=3), fragment=0x2000))
    assert row["dns_found"] == {"MESSAGE", "PARTIAL", "MALFORMED"}
    assert row["dns_malformed"] == MALFORMED["POINTER_LOOP"]


def test_a_later_fragment_is_no_message() -> None:
    data = message([question()])
    assert look(ip4(UDP, datagram(data), fragment=0x0002)) == [NOTHING]
    assert look(ip6(44, fragment6(UDP, 1, 0) + datagram(data))) == [NOTHING]


def test_an_atomic_fragment_is_whole() -> None:
    [row] = look(ip6(44, fragment6(UDP, 0, 0) + datagram(message([question()]))))
    assert row["dns_found"] == {"MESSAGE", "QUESTION"}


def test_of_a_packet_in_several_frames_the_first_is_read() -> None:
    data = message([question()], [record()] * 40, [], [opt()], flags=RESPONSE)
    whole = packet(data)
    payload = len(whole) - len(data)
    for at in (payload, payload + 11, payload + 12, payload + 29, payload + 300, len(whole) - 1):
        batch = in_frames([cut(whole, at)])
        start = int(batch.addr[0]) + at
        batch.memory[start : start + 100] = b"\xff" * 100  # not the packet's
        Headers().process(batch)
        Dns().process(batch)
        [row] = rows(batch)
        found = {"PARTIAL"}
        found |= {"MESSAGE", "RESPONSE"} if at >= payload + 12 else set()
        found |= {"QUESTION"} if at >= payload + 29 else set()
        assert (row["dns_found"], row["dns_malformed"]) == (found, 0), at
        assert row["dns_len"] == len(data)


def test_a_capture_cut_short_has_no_messages() -> None:
    """Headers calls such a packet malformed: what IP promises did not come."""
    assert look(packet(message([question()]))[:-1]) == [NOTHING]


# Which packets


def test_messages_go_to_a_port_or_come_from_it() -> None:
    data = message([question()])
    ports = [(40000, 53), (53, 40000), (53, 53), (5353, 5353), (40000, 5355), (54, 52), (13568, 1)]
    found = [row["dns_n_messages"] for row in look(*[packet(data, *pair) for pair in ports])]
    assert found == [1, 1, 1, 0, 0, 0, 0]
    stage = Dns((5353, 5355))
    found = [row["dns_n_messages"] for row in look(*[packet(data, *p) for p in ports], stage=stage)]
    assert found == [0, 0, 0, 1, 1, 0, 0]
    stage = Dns([1, 2, 3, 4, 5, 6, 7, 8])
    assert [row["dns_n_messages"] for row in look(
        *[packet(data, 40000, port) for port in range(10)], stage=stage
    )] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]  # fmt: skip


@pytest.mark.parametrize(
    "ports", [(), (0,), (65536,), (53, -1), ("53",), 53, "53", tuple(range(1, 10)), (53.0,), None]
)
def test_ports_that_cannot_be_are_refused(ports: object) -> None:
    with pytest.raises(XdpipeError) as error:
        Dns(ports)  # type: ignore[arg-type]
    assert str(error.value) == f"Dns: ports={ports!r}: 1 to 8 ports, such as (53,)"


def test_it_needs_headers_before_it() -> None:
    with pytest.raises(ChainError, match=r"add Headers\(\) before Dns"):
        Chain([Dns()], Batch(bytearray(4096), 1))


def test_what_is_no_dns_has_nothing_of_the_batch_before() -> None:
    dns = packet(message([question()], [], [], [opt()]))
    others = [
        b"", bytes(60), packet(message([question()]), 1, 2), ip4(1, bytes(20)),
        ip4(6, struct.pack(">2H", 1, 53) + bytes(8) + b"\x50" + bytes(7) + message([question()])),
    ]  # fmt: skip
    stage = Dns()
    for other in others:
        assert look(*[dns] * 8, stage=stage)[0]["dns_n_messages"] == 1
        assert look(*[other] * 8, stage=stage) == [NOTHING] * 8


def test_packets_that_are_decided_are_looked_at_and_stay_decided() -> None:
    BATCH.load([packet(message([question()]))])
    Headers().process(BATCH)
    BATCH.drop(np.array([True]))
    Dns().process(BATCH)
    assert (BATCH.verdict.tolist(), BATCH.dns_n_messages.tolist()) == ([DROP], [1])


def test_every_column_of_the_stage_is_looked_at() -> None:
    assert set(NOTHING) == {c.name for c in COLUMNS.values() if c.provider == "Dns"}


# Counters


def test_every_message_is_counted_as_what_it_is() -> None:
    query = packet(message([question()], [], [], [opt()]))
    assert counted(query, query) == {"messages": 2, "queries": 2, "edns": 2}
    answers = [packet(message([question()], flags=0x8000 | code)) for code in range(16)]
    bad_version = packet(message([question()], [], [], [opt(ttl=1 << 24)], flags=0x8000))
    assert counted(*answers, bad_version) == {
        "messages": 17, "responses": 17, "noerror": 1, "formerr": 1, "servfail": 1,
        "nxdomain": 1, "notimp": 1, "refused": 1, "other_rcode": 11, "edns": 1,
    }  # fmt: skip
    assert counted(
        packet(message([question()], flags=0x8200)), packet(message([question()]) + b"\0"),
        packet(message([question()], [record(ROOT, data=b"")] * 512)),
        ip4(UDP, datagram(message([question()]), less=1), fragment=0x2000),
        packet(b"x"), packet(message([question(), question()])),
    ) == {
        "messages": 6, "queries": 4, "responses": 1, "noerror": 1, "truncated": 1, "trailing": 1,
        "many_records": 1, "partial": 1, "malformed": 2, "malformed_header_short": 1,
        "malformed_many_questions": 1,
    }  # fmt: skip


def test_tcp_without_its_streams_is_counted_as_unread() -> None:
    segment = struct.pack(">2H", 1, 53) + bytes(8) + b"\x50" + bytes(7)
    assert counted(ip4(6, segment), ip4(6, segment + b"\0"), ip4(6, segment + bytes(9))) == {
        "tcp_unread": 2
    }


# Hostile input


@pytest.mark.parametrize("name", [name for name in FAULTS if len(FAULTS[name][0]) < 800])
def test_a_cut_message_says_what_the_whole_one_said_or_nothing(name: str) -> None:
    data = FAULTS[name][0]
    check_cuts(data)


def test_a_message_cut_anywhere_at_a_guard_page() -> None:
    check_cuts(message(
        [question()], [record(), record(EXAMPLE)], [record(b"\2ns" + POINTER, 2, b"\1a" + POINTER)],
        [record(), opt(data=b"\0\x0a\0\4abcd\0\3\0\0")], flags=RESPONSE,
    ))  # fmt: skip


def test_random_damage_is_never_read_too_far() -> None:
    rng = Random(2)
    guarded = GuardedBatch(64)
    whole = message(
        [question(b"\3www" + EXAMPLE)], [record(), record(b"\1x" + POINTER)], [record(EXAMPLE)],
        [opt(data=b"\0\x0a\0\4abcd"), record()], flags=RESPONSE,
    )  # fmt: skip
    reasons = set()
    for _ in range(400):
        packets = []
        for _ in range(64):
            data = bytearray(whole)
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(4, len(data))] = rng.choice(
                    [rng.randrange(256), 0, 1, 12, 41, 63, 64, 0xC0]
                )
            end = rng.choice([len(data), rng.randrange(len(data) + 1)])
            packets.append(packet(bytes(data[:end]) + rng.choice([b"", opt(), rng.randbytes(9)])))
        batch = guarded.load(packets)
        Headers().process(batch)
        Dns().process(batch)
        reasons.update(np.unique(batch.dns_malformed).tolist())
        has_fault = batch.dns_malformed != 0
        assert ((batch.dns_found & FOUND["MALFORMED"] != 0) == has_fault).all()
        assert (batch.dns_n_messages == 1).all()
    unlikely = {MALFORMED["NAME_LONG"], MALFORMED["MANY_QUESTIONS"]}
    assert reasons >= {0, *MALFORMED.values()} - unlikely


LABEL = st.binary(min_size=1, max_size=20)
NAME = st.lists(LABEL, max_size=6).map(
    lambda labels: b"".join(bytes([len(label)]) + label for label in labels) + ROOT
)


@settings(deadline=None, max_examples=300)
@given(
    name=NAME, id=st.integers(0, 65535), flags=st.integers(0, 65535), kind=st.integers(0, 65535),
    n_answers=st.integers(0, 5), n_additional=st.integers(0, 3), size=st.integers(0, 65535),
    ttl=st.integers(0, 2**32 - 1), has_opt=st.booleans(),
)  # fmt: skip
def test_what_scapy_builds_is_read_as_it_was_meant(
    name: bytes, id: int, flags: int, kind: int, n_answers: int, n_additional: int, size: int,
    ttl: int, has_opt: bool,
) -> None:  # fmt: skip
    answer = DNSRR(rrname=b"example.org.", type="A", rdata="192.0.2.1")
    extra = [DNSRR(rrname=b"ns.example.net.", type="TXT", rdata=b"x")] * n_additional
    if has_opt:
        version, z = ttl >> 16 & 255, ttl & 65535
        extra.append(DNSRROPT(rclass=size, extrcode=ttl >> 24, version=version, z=z))
    head = DNS(qd=None, qdcount=1, ancount=n_answers, nscount=0, arcount=len(extra))
    built = struct.pack(">2H", id, flags) + bytes(head)[4:HEADER]
    built += name + bytes(DNSQR(qname=".", qtype=kind))[1:]
    built += b"".join(map(bytes, [answer] * n_answers + extra))
    row = look_at(built)
    assert row["dns_malformed"] == 0
    assert (row["dns_id"], row["dns_flags"], row["dns_type"]) == (id, flags, kind)
    assert row["dns_name"] == as_text(name)
    assert row["dns_name_hash"] == name_hash(as_text(name))
    assert (row["dns_n_answers"], row["dns_n_additional"]) == (n_answers, len(extra))
    rcode = flags & 15 | (ttl >> 24 << 4 if has_opt else 0)
    assert row["dns_rcode"] == rcode
    if has_opt:
        assert (row["dns_udp_size"], row["dns_edns_flags"]) == (size, ttl & 65535)
        assert row["dns_edns_version"] == ttl >> 16 & 255
