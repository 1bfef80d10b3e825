"""One kind of packet of a recipe: its templates, for the variations that reach it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError
from xdpipe.traffic.anatomy import Anatomy, changed, layers
from xdpipe.traffic.field_kind import kind_of
from xdpipe.traffic.form import Form
from xdpipe.traffic.template import Varied
from xdpipe.traffic.variation import MOST_LISTED, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xdpipe.traffic.template import Template
    from xdpipe.traffic.variation import Variation

MOST_FORMS = 65536
"""Values that may each have a template of its own, or combinations of such."""
_TOO_LONG = 65600
"""Bytes: longer than any packet of IP in Ethernet."""


@dataclass
class Member:
    """A kind of packet.

    Attributes:
        name: to count it by.
        packet: as scapy has it, from Ethernet on.
        varied: its fields that variations reach, by the variation's number.
        choices: numbers of the variations for whose values it has templates of their own.
        templates: one, or one for each combination of values of `choices`, the last one fastest.
    """

    name: str
    packet: Any
    varied: dict[int, Varied]
    choices: tuple[int, ...] = ()
    templates: tuple[Template, ...] = ()

    @classmethod
    def of(cls, name: str, packet: Any, variations: Sequence[Variation]) -> Member:
        """Find the fields that variations reach, and read their values.

        Raises:
            XdpipeError: a layer has no such field, or values are none that it can have.
        """
        varied = {}
        for number, variation in enumerate(variations):
            found = [
                (k, layer)
                for k, layer in enumerate(layers(packet))
                if variation.layer in (type(layer).__name__, layer.name)
            ]
            if len(found) < variation.nth:
                continue
            at, layer = found[variation.nth - 1]
            names = [field.name for field in layer.fields_desc]
            if variation.field not in names:
                raise XdpipeError(
                    f"--vary {variation.text!r}: {variation.layer} has no field "
                    f"{variation.field}; it has {', '.join(names)}"
                )
            kind = kind_of(layer, variation.field)
            if kind is None:
                raise XdpipeError(
                    f"--vary {variation.text!r}: only numbers, addresses and texts can be varied"
                )
            values = variation.read(kind, layer.getfieldval(variation.field))
            values = _in_words(values, kind.size, variation)
            varied[number] = Varied(number, at, variation.field, kind, values)
        return cls(name, packet, varied)

    def unfixed(self) -> Iterator[int]:
        """Yield the variations that have no fixed place here, or change what is not known."""
        for number, varied in self.varied.items():
            if number in self.choices:
                continue
            lengths = {len(item) for item in varied.values.items if isinstance(item, bytes)}
            if len(lengths) > 1:
                yield number
                continue
            anatomy = Anatomy(changed(self.packet, self._setting({number: 0})))
            form = Form.of(anatomy, [varied], grows=False)
            if form is None or not _right(form.template, anatomy, [varied], 0):
                yield number

    def _setting(self, indexes: Mapping[int, int]) -> dict[tuple[int, str], Any]:
        """Return the fields of variations at these values, the others at their first ones."""
        setting = {}
        for number, varied in self.varied.items():
            value = varied.first if varied.values.noise else varied.values[indexes.get(number, 0)]
            setting[varied.layer, varied.name] = varied.kind.scapy(value)
        return setting

    def make(self, choices: Sequence[int], *, grows: bool, progress: Callable[[], None]) -> Member:
        """Return it with its templates.

        Args:
            choices: variations that have templates of their own for each value.
            grows: packets may be made longer.
            progress: called for each template.

        Raises:
            XdpipeError: scapy cannot build it, or it cannot be told how it changes.
        """
        mine = tuple(number for number in choices if number in self.varied)
        ranges = [range(self.varied[number].values.n) for number in mine]
        n = math.prod(map(len, ranges))
        if n > MOST_FORMS:
            raise XdpipeError(
                f"{self.name}: {n:,} packets of different forms; {MOST_FORMS:,} are the most "
                "(fields that stand at a fixed place may have any number of values)"
            )
        fixed = [varied for number, varied in self.varied.items() if number not in mine]
        templates = []
        form: Form | None = None
        for place, indexes in enumerate(itertools.product(*ranges)):
            setting = self._setting(dict(zip(mine, indexes, strict=True)))
            try:
                anatomy = Anatomy(changed(self.packet, setting))
            except Exception as error:  # scapy's, of any kind
                reason = " ".join(str(error).split())
                raise XdpipeError(f"{self.name}: scapy cannot build it: {reason}") from None
            if len(anatomy.data) > _TOO_LONG:
                raise XdpipeError(f"{self.name}: {len(anatomy.data):,} bytes are no packet")
            template = form.like(anatomy) if form is not None else None
            if template is None:
                form = Form.of(anatomy, fixed, grows=grows)
                template = form.template if form is not None else None
            tried = place in (0, n - 1)
            if template is None or (tried and not _right(template, anatomy, fixed, 5 * grows)):
                what = "its size" if grows else "these fields together"
                raise XdpipeError(
                    f"{self.name}: how the packet changes with {what} is more than its bytes, "
                    "16-bit lengths and Internet checksums; leave out --size, or a --vary"
                )
            templates.append(template)
            progress()
        return replace(self, choices=mine, templates=tuple(templates))


def _in_words(values: Values, size: int, variation: Variation) -> Values:
    """Fit values of more than 64 bits to what is counted in 64 bits."""
    if size <= 64 or values.items or values.noise:
        return values
    aligned = values.step == 1 and not values.n & (values.n - 1) and not values.start % values.n
    if variation.at_random and aligned and values.n > 1 << 62:
        return replace(values, noise=True)
    if values.start >> 64 == values.last >> 64:
        return values
    if values.n > MOST_LISTED:
        if values.start % (1 << 64):
            raise XdpipeError(
                f"--vary {variation.text!r}: goes beyond the last 64 bits of the address; "
                "begin where these are 0"
            )
        n = ((1 << 64) - 1) // values.step + 1
        return replace(values, n=min(n, values.n))
    return replace(values, items=tuple(values.start + values.step * k for k in range(values.n)))


def _right(template: Template, anatomy: Anatomy, varied: Sequence[Varied], more: int) -> bool:
    """Tell whether packets made of a template are those that scapy builds."""
    for turn in range(4):
        setting, words = {}, {}
        for each in varied:
            last = each.values.n - 1
            if each.values.noise:
                top = (1 << each.size) - 1
                number = each.rest | (each.moving & (0, 0xA5A5, top // 3, top)[turn])
                value: int | bytes = number
                setting[each.layer, each.name] = each.scapy(number)
            else:
                value = each.values[(0, last, last // 2, last // 3)[turn]]
                setting[each.layer, each.name] = each.kind.scapy(value)
            words[each.variation] = each.words(value)
        longer = more * turn
        try:
            built = anatomy.built(setting, longer)
        except Exception:
            return False
        if template.fill(words, longer) != built:
            return False
    return True
