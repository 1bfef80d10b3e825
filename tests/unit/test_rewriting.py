"""What stages wrote into packets, as text: exact, small, and undone by who reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpipe.verify.rewriting import apply, describe, first_different, is_valid

PACKET = bytes(range(64))


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (PACKET, ""),
        (b"\xff" + PACKET[1:], "0=ff"),
        (PACKET[:26] + b"\xc0\x00\x02\x07" + PACKET[30:], "26=c0000207"),
        # as near as 4 bytes: one piece, with what lies between as it was; farther: two
        (PACKET[:8] + b"\xff" + PACKET[9:12] + b"\xff" + PACKET[13:], "8=ff090a0bff"),
        (PACKET[:8] + b"\xff" + PACKET[9:13] + b"\xff" + PACKET[14:], "8=ff 13=ff"),
        (PACKET[:12] + b"\x81\x00\x00\x05" + PACKET[12:], "12-0+81000005"),
        (PACKET[:12] + PACKET[16:], "12-4+"),
        (PACKET[:60], "60-4+"),
        (PACKET + b"\x01", "64-0+01"),
        (b"", "0-64+"),
        (PACKET[:12] + b"\x81\x00" + PACKET[12:30] + b"\xff" + PACKET[31:],
         "12-19+81000c0d0e0f101112131415161718191a1b1c1dff"),
    ],
)  # fmt: skip
def test_a_change_is_told_by_place_and_bytes(after: bytes, text: str) -> None:
    assert describe(PACKET, after) == text
    assert apply(PACKET, text) == after
    assert is_valid(text) is bool(text)


def test_of_a_packet_that_was_much_changed_there_is_a_hash() -> None:
    before, after = bytes(257), b"\x01" * 257
    assert describe(before[:256], after[:256]) == "0=" + "01" * 256
    text = describe(before, after)
    assert text.startswith("257 bytes ")
    assert is_valid(text)
    assert apply(before, text) is None
    assert describe(before, after[:-1] + b"\x02") != text


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_it_can_be_undone_whatever_was_written(before: bytes, after: bytes) -> None:
    text = describe(before, after)
    assert (text == "") == (before == after)
    assert apply(before, text) in (after, None)
    assert is_valid(text) or not text


@given(st.binary(min_size=1, max_size=80), st.lists(st.tuples(st.integers(0, 79), st.binary())))
def test_equal_packets_have_equal_texts_and_others_have_others(
    before: bytes, writes: list[tuple[int, bytes]]
) -> None:
    packets = [before]
    for at, data in writes:
        packet = packets[-1]
        packets.append(packet[:at] + data + packet[at + len(data) // 2 :])
    texts = [describe(before, packet) for packet in packets]
    for a, text_a in zip(packets, texts, strict=True):
        for b, text_b in zip(packets, texts, strict=True):
            assert (a == b) == (text_a == text_b)


@pytest.mark.parametrize(
    ("a", "b", "place"),
    [(b"", b"", 0), (b"abc", b"abd", 2), (b"abc", b"ab", 2), (b"abc", b"abc", 3), (b"x", b"y", 0)],
)
def test_the_first_byte_that_differs(a: bytes, b: bytes, place: int) -> None:
    assert first_different(a, b) == first_different(b, a) == place


@pytest.mark.parametrize(
    "text", ["", " ", "x", "1=0", "1=00  2=00", "1=00 ", "=00", "1-+00", "12 bytes 00", "1=GG"]
)
def test_what_is_no_change_is_known(text: str) -> None:
    assert not is_valid(text)


def test_a_change_of_another_packet_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond the packet's 4 bytes"):
        apply(b"abcd", "3=0000")
