"""Lists of queues and cores as people write them."""

import os

import pytest

from xdpipe.errors import XdpipeError
from xdpipe.ranges import check_cores, format_ranges, online_cores, parse_ranges


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0-3", [0, 1, 2, 3]),
        ("0-3,6", [0, 1, 2, 3, 6]),
        ("6,0-1", [6, 0, 1]),
        ("5-5", [5]),
        (" 1 - 2 , 4 ", [1, 2, 4]),
    ],
)
def test_numbers_come_in_the_order_in_which_they_are_named(text: str, numbers: list[int]) -> None:
    assert parse_ranges(text) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': not a list of numbers; write it like 0-3,6"),
        ("x", "'x': not a list of numbers; write it like 0-3,6"),
        ("1,,2", "'1,,2': not a list of numbers; write it like 0-3,6"),
        ("-1", "'-1': not a list of numbers; write it like 0-3,6"),
        ("1-", "'1-': not a list of numbers; write it like 0-3,6"),
        ("1-2-3", "'1-2-3': not a list of numbers; write it like 0-3,6"),
        ("²", "'²': not a list of numbers; write it like 0-3,6"),
        ("3-1", "'3-1': the range 3-1 runs backwards; write 1-3"),
        ("0-3,2", "'0-3,2': 2 is named twice"),
        ("0-99999999", "'0-99999999': 99999999 is too large; the highest is 65535"),
    ],
)
def test_what_is_no_list_is_refused_with_how_to_write_one(text: str, message: str) -> None:
    with pytest.raises(XdpipeError) as raised:
        parse_ranges(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([0], "0"), ([3, 1, 2, 6, 2], "1-3,6"), ([0, 2, 4], "0,2,4")],
)
def test_the_short_form_names_each_once(numbers: list[int], text: str) -> None:
    assert format_ranges(numbers) == text


def test_the_cores_of_this_process_are_accepted() -> None:
    check_cores(sorted(os.sched_getaffinity(0)))


def test_a_core_that_does_not_exist_is_told_with_those_that_do() -> None:
    cores = online_cores()
    with pytest.raises(XdpipeError) as raised:
        check_cores([4096])
    assert str(raised.value) == (
        f"core 4096: no such core online; there are {len(cores)} ({format_ranges(cores)})"
    )


def test_a_core_outside_the_affinity_is_told_with_the_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xdpipe.ranges.online_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 3})
    check_cores([0, 3])
    with pytest.raises(XdpipeError, match=r"^core 1: outside the affinity .* which is 0,2-3;"):
        check_cores([0, 1])
