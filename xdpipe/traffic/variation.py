"""What is varied from flow to flow: `LAYER.FIELD=VALUES`, as `--vary` takes it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from xdpipe.traffic.field_kind import FieldKind

MOST_LISTED = 1 << 20
"""Values that a list may have; a single range may have any number."""

_NAME = re.compile(r"(?P<layer>\w+)(?::(?P<nth>[1-9]\d*))?\.(?P<field>\w+)")
_RANDOM = "random"


@dataclass(frozen=True)
class Values:
    """The values that a field goes through.

    Attributes:
        start: of a range, the first one.
        step: of a range, from one to the next.
        n: how many; up to 2^128.
        items: of a list, all of them: numbers, or texts; empty for a range.
        noise: bits at random, as many as stand there.
    """

    n: int
    start: int = 0
    step: int = 1
    items: tuple[int | bytes, ...] = ()
    noise: bool = False

    def __getitem__(self, index: int) -> int | bytes:
        if self.items:
            return self.items[index]
        return self.start + self.step * index

    @property
    def last(self) -> int:
        """The last one of a range."""
        return self.start + self.step * (self.n - 1)


@dataclass(frozen=True)
class Variation:
    """One `--vary`.

    Attributes:
        text: as it was given.
        layer: name of the layer's class, such as IP.
        nth: which of the layers of that name, from 1, the outermost.
        field: name of the field.
        values: as given, to be read when the field is known.
        at_random: in an order that looks random, not one after the other.
    """

    text: str
    layer: str
    nth: int
    field: str
    values: str
    at_random: bool = False

    @classmethod
    def parse(cls, text: str) -> Variation:
        """Read `IP.src=10.0.0.0/16`, `IP:2.ttl=1-64`, `TCP.flags=S,SA`, `DNSQR.qname=@words.txt`.

        Raises:
            XdpipeError: it is not of this form.
        """
        name, equals, values = text.partition("=")
        match = _NAME.fullmatch(name.strip())
        values = values.strip()
        at_random = values.startswith(f"{_RANDOM}:")
        values = values.removeprefix(f"{_RANDOM}:") if at_random else values
        if not equals or match is None or not values:
            raise XdpipeError(
                f"--vary {text!r}: say LAYER.FIELD=VALUES, such as IP.src=10.0.0.0/16, "
                "UDP.sport=1024-65535, IP:2.ttl=1,64 or DNSQR.qname=@words.txt"
            )
        return cls(
            text, match["layer"], int(match["nth"] or 1), match["field"], values,
            at_random or values == _RANDOM,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Which field, as it was given."""
        return self.text.partition("=")[0].strip()

    def shuffled(self) -> Variation:
        """Return it with its values in an order that looks random."""
        return replace(self, at_random=True)

    def read(self, kind: FieldKind, now: object) -> Values:
        """Read the values, for a field of this kind.

        Args:
            kind: of the field.
            now: what the field holds in the template.

        Raises:
            XdpipeError: they are none that the field can have.
        """
        try:
            if kind.what == "text":
                return self._texts(kind, now)
            if self.values == _RANDOM:
                return Values(1 << kind.size)
            if self.values.startswith("@"):
                parts = [_range(word, kind) for word in _words(self.values[1:])]
            else:
                parts = [_range(word.strip(), kind) for word in self.values.split(",")]
            if len(parts) == 1:
                return parts[0]
            n = sum(part.n for part in parts)
            if n > MOST_LISTED:
                raise XdpipeError(f"{n:,} values in a list; {MOST_LISTED:,} are the most")
            return Values(n, items=tuple(part[k] for part in parts for k in range(part.n)))
        except XdpipeError as error:
            raise XdpipeError(f"--vary {self.text!r}: {error}") from None

    def _texts(self, kind: FieldKind, now: object) -> Values:
        if self.values == _RANDOM:
            if not kind.plain or not isinstance(now, bytes) or not now:
                raise XdpipeError("only bytes that the template has can be random")
            return Values(1 << 62, noise=True)
        words = _words(self.values[1:]) if self.values[0] == "@" else self.values.split(",")
        return Values(len(words), items=tuple(word.strip().encode() for word in words))


def _words(path: str) -> list[str]:
    """Return the lines of a file that are neither empty nor comments."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise XdpipeError(f"{path}: {reason}") from None
    words = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not words:
        raise XdpipeError(f"{path}: no words in it, one a line")
    if len(words) > MOST_LISTED:
        raise XdpipeError(f"{path}: {len(words):,} lines; {MOST_LISTED:,} are the most")
    return words


def _range(text: str, kind: FieldKind) -> Values:
    """Read a value, a range `A-B`, a network `A/N`; with `+STEP` behind the latter two."""
    body, plus, step_text = text.partition("+")
    step = 1
    if plus:
        if not step_text.isdecimal() or int(step_text) < 1:
            raise XdpipeError(f"{text!r}: a step is a whole number, 1 or more")
        step = int(step_text)
    if "/" in body and kind.what in ("ipv4", "ipv6"):
        try:
            network = ipaddress.ip_network(body, strict=False)
        except ValueError as error:
            raise XdpipeError(str(error)) from None
        first, last = int(network.network_address), int(network.broadcast_address)
        if network.max_prefixlen != kind.size:
            raise XdpipeError(f"{body}: the field takes IPv{4 if kind.size == 32 else 6}")
    else:
        low, dash, high = body.partition("-")
        first = kind.number(low.strip())
        last = kind.number(high.strip()) if dash else first
        if plus and not dash:
            raise XdpipeError(f"{text!r}: a step goes with a range, such as 0-100+10")
        if last < first:
            raise XdpipeError(f"{body}: runs backwards")
    return Values((last - first) // step + 1, first, step)
