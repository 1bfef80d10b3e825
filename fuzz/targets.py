"""The table of what is fuzzed: a chain of stages for each target, one line to be added."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdpipe.stage import NativeStage
from xdpipe.stages import Headers, SwapAddresses


@dataclass(frozen=True)
class Target:
    """A chain of native stages that inputs are run through.

    Attributes:
        stages: makes the chain, anew with each call. Give stages little memory: all of their
            state is put back before each run.
        port: the server's, in packets that the driver makes around payload (input.c).
        rewrites: the stages change packets. Else the driver demands that no byte changes.
        by_batch: what they say may depend on where batches end. Else the driver demands that it
            does not.
        headroom: bytes before a packet that the stages may use.
        tokens: what libFuzzer puts into inputs, beside what it finds itself.
    """

    stages: Callable[[], Sequence[NativeStage]]
    port: int = 80
    rewrites: bool = False
    by_batch: bool = False
    headroom: int = 0
    tokens: tuple[bytes, ...] = ()


TARGETS = {
    "headers": Target(lambda: [Headers()]),
    "swap_addresses": Target(lambda: [Headers(), SwapAddresses()], rewrites=True),
}

LEFT_OUT = {
    "Record": "what it copies to is shared with another process; it reads nothing of a packet",
}
"""Native stages that are not fuzzed, and why."""
