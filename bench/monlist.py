"""One and the same stage, written in each of the kinds that users have: a line for each.

It drops NTP requests for the monitor list (mode 7, request code 42), as the examples in the
documentation do. C is what the others are compared with, where it is there.
"""

from collections.abc import Callable
from functools import partial

from kinds import MonlistArray, MonlistPacket, monlist_jit

from xdpipe import CStage, Stage

KINDS: dict[str, Callable[[], Stage]] = {
    "array": MonlistArray,
    "jit": monlist_jit,
    "c": partial(CStage, "monlist.c", requires=("payload",), counters=("hits",)),
    "packet": MonlistPacket,
}
AIMS = {"jit": "≤ 1.5"}
"""Of the ratio to C."""
EVERY = 10
"""Each so many packets is a request that it drops."""
MONLIST = bytes.fromhex("1700032a00000000")


def traffic(packets: list[bytes]) -> list[bytes]:
    """Return UDP packets, some of which are requests for the monitor list."""
    head = bytes.fromhex(
        "02000000000102000000000208004500002400000000401100000a0000010a000002c000007b00100000"
    )
    request = head + MONLIST
    return [request if i % EVERY == 0 else packet for i, packet in enumerate(packets)]
