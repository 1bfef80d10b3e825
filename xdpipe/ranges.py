"""Read lists of numbers such as `0-3,6`, by which queues and cores are named."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from xdpipe.errors import XdpipeError

# No machine has more cores, and no NIC more queues; a slip of the finger shall not allocate
# gigabytes.
_HIGHEST = 65535


def parse_ranges(text: str) -> list[int]:
    """Return the numbers that `text` names, in its order: `0-3,6` gives 0, 1, 2, 3, 6.

    The order counts: the n-th queue goes to the n-th core.

    Raises:
        XdpipeError: not a list of numbers and ranges, a range that runs backwards, or a number
            twice.
    """
    numbers: list[int] = []
    seen: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not _is_number(first) or (dash and not _is_number(last)):
            raise XdpipeError(f"{text!r}: not a list of numbers; write it like 0-3,6")
        low, high = int(first), int(last) if dash else int(first)
        if high > _HIGHEST:
            raise XdpipeError(f"{text!r}: {high} is too large; the highest is {_HIGHEST}")
        if low > high:
            raise XdpipeError(
                f"{text!r}: the range {low}-{high} runs backwards; write {high}-{low}"
            )
        for number in range(low, high + 1):
            if number in seen:
                raise XdpipeError(f"{text!r}: {number} is named twice")
            seen.add(number)
            numbers.append(number)
    return numbers


def format_ranges(numbers: Iterable[int]) -> str:
    """Return the short form of a set of numbers: 0, 1, 2, 3, 6 give `0-3,6`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def online_cores() -> list[int]:
    """Return the cores that the kernel schedules on."""
    return parse_ranges(Path("/sys/devices/system/cpu/online").read_text().strip())


def check_cores(cores: Sequence[int]) -> None:
    """Check that each core exists and that this process may run on it.

    Raises:
        XdpipeError: a core that does not exist or is offline, or lies outside this process's
            affinity.
    """
    online = online_cores()
    allowed = os.sched_getaffinity(0)
    for core in cores:
        if core not in online:
            raise XdpipeError(
                f"core {core}: no such core online; "
                f"there are {len(online)} ({format_ranges(online)})"
            )
        if core not in allowed:
            raise XdpipeError(
                f"core {core}: outside the affinity of this process, which is "
                f"{format_ranges(allowed)}; start it without taskset, or widen its cpuset"
            )


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal()
