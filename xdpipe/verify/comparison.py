"""What is different between what was recorded and what became of the packets now."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xdpipe.capture import CaptureReader
from xdpipe.errors import XdpipeError
from xdpipe.verify import rewriting
from xdpipe.verify.summary import summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from xdpipe.verify.outcome import Outcome

_SHOWN_BYTES = 8


class CounterDifference(NamedTuple):
    """A counter that is not what it was; None: there is none any more."""

    name: str
    recorded: int
    now: int | None


class PacketDifference(NamedTuple):
    """A packet that something else became of.

    Attributes:
        number: as Wireshark counts, from 1.
        time_ns: of the capture, since 1970.
        summary: who to whom.
        recorded: verdict.
        now: verdict.
        rewriting: in words, how its bytes differ; None: they do not.
        byte: the first that differs, from 0, if that is known.
    """

    number: int
    time_ns: int
    summary: str
    recorded: str
    now: str
    rewriting: str | None
    byte: int | None


@dataclass
class Comparison:
    """Two outcomes of one capture.

    Attributes:
        recorded: what is to be.
        now: what is.
        packets: numbers of those that differ, from 0, in order.
        n_compared: packets that both know.
        counters: that differ.
        ignored: names of counters that differ and were to be ignored.
    """

    recorded: Outcome
    now: Outcome
    packets: NDArray[np.int64]
    n_compared: int
    counters: list[CounterDifference] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs but what was to be ignored."""
        return not len(self.packets) and not self.counters

    def first(self, capture: str | Path, most: int) -> Iterator[PacketDifference]:
        """Yield the first packets that differ, looked up in the capture.

        Args:
            capture: path of the file.
            most: how many at the most.
        """
        wanted = self.packets[:most].tolist()
        if not wanted:
            return
        with CaptureReader(capture) as reader:
            for number, packet in enumerate(reader):
                if number == wanted[0]:
                    yield self._difference(number, packet.time_ns, packet.data)
                    del wanted[0]
                if not wanted:
                    return

    def _difference(self, number: int, time_ns: int, packet: bytes) -> PacketDifference:
        was, now = self.recorded.rewritten.get(number, ""), self.now.rewritten.get(number, "")
        text, byte = (None, None) if was == now else _in_words(packet, was, now)
        return PacketDifference(
            number + 1, time_ns, summary(packet), self.recorded.verdict(number),
            self.now.verdict(number), text, byte,
        )  # fmt: skip

    def to_dict(self, capture: str | Path, most: int) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "equal": self.equal,
            "packets": len(self.recorded),
            "compared": self.n_compared,
            "different": len(self.packets),
            "verdicts": {"recorded": self.recorded.totals(), "now": self.now.totals()},
            "differences": [each._asdict() for each in self.first(capture, most)],
            "counters": [each._asdict() for each in self.counters],
            "ignored": self.ignored,
        }


def _in_words(packet: bytes, was: str, now: str) -> tuple[str, int | None]:
    """Say how two rewritings of a packet differ, and at which byte of what they left of it."""
    try:
        before, after = rewriting.apply(packet, was), rewriting.apply(packet, now)
    except ValueError as error:
        raise XdpipeError(f"the expectation is damaged: {error}; record it anew") from error
    if before is None or after is None:
        return f"left as {was or 'it came'}; now as {now or 'it came'}", None
    at = rewriting.first_different(before, after)
    recorded, is_now = before[at:][:_SHOWN_BYTES].hex(), after[at:][:_SHOWN_BYTES].hex()
    lens = "" if len(before) == len(after) else f"; {len(before)} bytes, now {len(after)}"
    return f"byte {at}: {recorded or 'its end'}, now {is_now or 'its end'}{lens}", at


def compare(
    recorded: Outcome,
    now: Outcome,
    *,
    ignore: Sequence[str] = (),
    among: NDArray[np.bool_] | None = None,
) -> Comparison:
    """Compare two outcomes of the same capture.

    Args:
        recorded: what is to be.
        now: what is.
        ignore: patterns (`*`, `?`) of counters that need not be the same.
        among: which packets are compared: bool[n]; None: all.

    Raises:
        XdpipeError: the captures have different numbers of packets; a pattern fits no counter.
    """
    if len(recorded) != len(now):
        raise XdpipeError(
            f"{len(recorded):,} packets were recorded, and {len(now):,} are there now; "
            "record it anew"
        )
    names = sorted({*recorded.names, *now.names})
    same_names = [
        np.array([names.index(name) for name in each.names], np.int64)[each.places]
        if len(each) else np.zeros(0, np.int64) for each in (recorded, now)
    ]  # fmt: skip
    different = same_names[0] != same_names[1]
    for number in recorded.rewritten.keys() | now.rewritten.keys():
        if recorded.rewritten.get(number) != now.rewritten.get(number):
            different[number] = True
    if among is not None:
        different &= among
    counters, ignored = _counters(recorded.counters, now.counters, ignore)
    n_compared = len(now) if among is None else int(among.sum())
    return Comparison(
        recorded, now, np.flatnonzero(different), n_compared, counters, ignored
    )  # fmt: skip


def _counters(
    recorded: Mapping[str, int], now: Mapping[str, int], ignore: Sequence[str]
) -> tuple[list[CounterDifference], list[str]]:
    names = list({**now, **recorded})  # in the chain's order
    for pattern in ignore:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise XdpipeError(f"--ignore-counter {pattern}: there is none; {_some(names)}")
    found: list[CounterDifference] = []
    ignored: list[str] = []
    for name in names:
        if recorded.get(name, 0) == now.get(name, 0):  # a version may come to count more
            continue
        if any(fnmatchcase(name, pattern) for pattern in ignore):
            ignored.append(name)
        else:
            found.append(CounterDifference(name, recorded.get(name, 0), now.get(name)))
    return found, ignored


def _some(names: Sequence[str]) -> str:
    """Name the counters of the stages that are the user's most likely: those at the end."""
    own = [name for name in names if "(" not in name][-8:]
    return f"there are {', '.join(own)} and others" if own else "there are no counters"
