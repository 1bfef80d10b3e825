"""Sizes of packets: `imix`, one size, a list with weights, a range.

A size is that of the frame with its 4 bytes of checksum, as testers count (RFC 2544, 9.1: 64 to
1518), which no capture and no socket shows: a frame of 64 is 60 bytes there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

FCS = 4
IMIX = ((64, 7), (594, 4), (1518, 1))
"""The simple IMIX: of 12 frames 7, 4 and 1 of these sizes, with their checksum."""
SMALLEST, LARGEST = 64, 9216


@dataclass(frozen=True)
class Sizes:
    """The sizes that packets have in turn.

    Attributes:
        text: as given.
        lens: bytes of each, without the frame's checksum; those with weights are spread evenly.
    """

    text: str
    lens: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Sizes:
        """Read `imix`, `64`, `64,512,1518`, `64:7,594:4,1518:1` or `64-1518`.

        Raises:
            XdpipeError: it is none of these, or a size is not from SMALLEST to LARGEST.
        """
        if text == "imix":
            return cls(text, _spread(*zip(*IMIX, strict=True)))
        sizes: list[int] = []
        weights: list[int] = []
        for part in text.split(","):
            body, colon, weight = part.partition(":")
            low, dash, high = body.partition("-")
            first, last = _number(text, low), _number(text, high if dash else low)
            if last < first:
                raise XdpipeError(f"--size {text}: {body} runs backwards")
            for size in range(first, last + 1):
                if not SMALLEST <= size <= LARGEST:
                    raise XdpipeError(
                        f"--size {text}: {size} is no frame's size with its checksum: "
                        f"{SMALLEST} to {LARGEST} are"
                    )
                sizes.append(size)
                weights.append(_number(text, weight) if colon else 1)
        if not 0 < sum(weights) <= 1 << 20:
            raise XdpipeError(f"--size {text}: weights are from 1 on, and a million in all")
        return cls(text, _spread(sizes, weights))


def _number(text: str, word: str) -> int:
    if not (word.strip().isascii() and word.strip().isdecimal()):
        raise XdpipeError(f"--size {text}: say imix, 64, 64,512,1518, 64:7,594:4,1518:1 or 64-1518")
    return int(word)


def _spread(sizes: Sequence[int], weights: Sequence[int]) -> tuple[int, ...]:
    return tuple(sizes[k] - FCS for k in spread(weights))


def spread(weights: Sequence[int]) -> list[int]:
    """Return whose turn it is, as often as the weights say, as evenly as can be.

    Each turn goes to the one that is furthest behind its share, the first of them.

    Args:
        weights: of each; 0 or more, not all 0.

    Returns:
        Numbers of the weights; as many as the weights' sum, divided by what all have in common.
    """
    common = math.gcd(*weights)
    shares = [weight // common for weight in weights]
    if max(shares) == 1:
        return [k for k, share in enumerate(shares) if share]
    total = sum(shares)
    behind = [0] * len(shares)
    turns = []
    for _ in range(total):
        behind = [b + share for b, share in zip(behind, shares, strict=True)]
        turn = max(range(len(shares)), key=behind.__getitem__)
        behind[turn] -= total
        turns.append(turn)
    return turns
