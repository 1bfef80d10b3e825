"""Sets of addresses as stages see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from xdpipe.sets import ADDRESS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from xdpipe.sets import KeySet

BITS4, BITS6 = 32, 128
_MAPPED_BITS = 96


class Sink(Protocol):
    """What takes the keys."""

    def put(
        self, number: int, addresses: NDArray[np.uint8], n: int, length4: int, length6: int
    ) -> int:
        """See SetRing.put."""
        ...


class StageSet:
    """One set of the pipeline's steering, to be added to.

    Args:
        name: of the set.
        number: of the set.
        declared: how it was declared.
        sink: what takes the keys.
    """

    def __init__(self, name: str, number: int, declared: KeySet, sink: Sink) -> None:
        self.name = name
        self._number = number
        self._prefixes = declared.prefixes
        self._sink = sink

    def add(self, addresses: NDArray[np.uint8], bits4: int = BITS4, bits6: int = BITS6) -> int:
        """Add addresses, or the prefixes that they are in; the XDP program knows them soon after.

        Nobody waits for that: it takes some milliseconds. An address that was added in the last
        100 ms is left out, so a stage may add whatever it sees.

        Args:
            addresses: uint8[k, 16], such as batch.src[mask].
            bits4: of a set of prefixes: length of those of IPv4 addresses.
            bits6: likewise of IPv6 addresses.

        Returns:
            How many were handed over; those that there is no room for are counted as lost.

        Raises:
            ValueError: no such array, or no such lengths.
        """
        array = np.ascontiguousarray(addresses)
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != ADDRESS_BYTES:
            raise ValueError(
                f"set {self.name}: {array.dtype}{list(array.shape)} given, uint8[k, 16] wanted, "
                "such as batch.src[mask]"
            )
        if not (0 <= bits4 <= BITS4 and 0 <= bits6 <= BITS6):
            raise ValueError(f"set {self.name}: prefixes have 0 to 32 or 0 to 128 bits")
        if not self._prefixes and (bits4, bits6) != (BITS4, BITS6):
            raise ValueError(f"set {self.name} holds addresses; declare it with prefixes=True")
        if not len(array):
            return 0
        return self._sink.put(self._number, array, len(array), _MAPPED_BITS + bits4, bits6)


def stage_sets(declared: Mapping[str, KeySet], sink: Sink) -> dict[str, StageSet]:
    """Return what stages have as `sets`."""
    return {
        name: StageSet(name, number, each, sink)
        for number, (name, each) in enumerate(declared.items())
    }


class Remembered:
    """Keys that nobody looks in, for a check over a capture: they are counted."""

    def __init__(self) -> None:
        self.keys: dict[int, set[bytes]] = {}

    def put(
        self, number: int, addresses: NDArray[np.uint8], n: int, length4: int, length6: int
    ) -> int:
        """Remember the addresses; return how many were not known."""
        known = self.keys.setdefault(number, set())
        before = len(known)
        known.update(row.tobytes() for row in addresses)
        return len(known) - before

    def counts(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many addresses each set was given."""
        return {name: len(self.keys.get(number, ())) for number, name in enumerate(names)}
