"""One and the same stage, written in each of the kinds that users have: a line for each.

It drops NTP requests for the monitor list (mode 7, request code 42), as the examples in the
documentation do. C is what the others are compared with, where it is there.
"""

from collections.abc import Callable

from xdpipe import Batch, Stage


class ArrayMonlist(Stage):
    """In numpy, over columns."""

    requires = ("payload",)
    counters = ("monlist",)

    def process(self, batch: Batch) -> None:
        mode = batch.u8(batch.payload) & 0x07
        code = batch.u8(batch.payload + 3)
        self.count("monlist", batch.drop((mode == 7) & (code == 42)))


KINDS: dict[str, Callable[[], Stage]] = {
    "array": ArrayMonlist,
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
