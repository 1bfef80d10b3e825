"""What the core is told to make packets of: templates, and how values follow one another.

Values step side by side: packet i has the i-th value of each variation. Where that would come back
to a combination that was there already while others have not been, one variation goes one further
(see `_axes`), so that all combinations come once before any comes again, and meanwhile each
variation goes round its own values: whatever number of packets is made, no value comes more than
once more often than another of the same field, but for that one step.

Those at random share one number, that of the combination, whose order is shuffled.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.core._core import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpipe.batch import Batch
    from xdpipe.traffic.member import Member
    from xdpipe.traffic.recipe import Recipe
    from xdpipe.traffic.template import Template
    from xdpipe.traffic.variation import Values, Variation

START_NS = 1_767_225_600 * 10**9
"""When the first packet of a recipe is dated: 2026-01-01, so that the same recipe gives the same
file."""
GAP_NS = 1000.0
"""From packet to packet, where no pace is asked for."""
_MOST = 1 << 62
"""What is counted in 64 bits stays below it."""


def n_combinations(members: Sequence[Member], variations: Sequence[Variation]) -> int:
    """Return how many combinations of values there are."""
    values = _values(members, variations)
    return min(math.prod(each.n for each in values), _MOST)


def _values(members: Sequence[Member], variations: Sequence[Variation]) -> list[Values]:
    return [
        next(m.varied[k].values for m in members if k in m.varied) for k in range(len(variations))
    ]


class Plan:
    """Templates and variations in the core's memory, and how far it is.

    Args:
        recipe: what it was made of.
        members: kinds of packets, with their templates.
        turns: whose turn it is: numbers of members, again and again.
        variations: of the recipe.
        n_flows: combinations that are used.

    Attributes:
        names: of the members.
        n_templates: of all members.
        n_flows: as given.
        hold: packets in a row that are of one flow.
        n_once: packets after which all has come once: members, sizes and flows.
    """

    def __init__(
        self,
        recipe: Recipe,
        members: Sequence[Member],
        turns: Sequence[int],
        variations: Sequence[Variation],
        n_flows: int,
    ) -> None:
        self.names = [member.name for member in members]
        self.members = list(members)
        self.n_flows = min(n_flows, _MOST)
        self.recipe = recipe
        self._kept: list[Any] = []
        """Memory that the core's structures point to."""
        c = self._c = self._new("struct xp_craft *")
        c.seed = (recipe.seed or 0) & (1 << 64) - 1
        c.time_ns = START_NS
        c.gap_ns = 1e9 / recipe.pps if recipe.pps else GAP_NS
        self.hold = hold = len(turns) if recipe.together else 1
        c.hold = hold
        c.n_flows = self.n_flows
        self._fill_templates(members, len(variations))
        self._fill_variations(members, variations)
        c.turns = self._array("uint32_t", turns)
        once = self.n_flows * hold
        _axis(c.turn, len(turns), 1 if recipe.together else once)
        if recipe.sizes is not None:
            lens = recipe.sizes.lens
            c.sizes = self._array("uint32_t", lens)
            _axis(c.size, len(lens), min(once * len(turns), _MOST))
            c.size.shuffled, c.size.key = recipe.seed is not None, self._key("size")
            once = max(once, len(lens))
        self.n_once = max(once, len(turns))
        self.n_templates = sum(len(member.templates) for member in members)

    def _new(self, kind: str, n: int | None = None) -> Any:
        memory = ffi.new(kind) if n is None else ffi.new(kind, n)
        self._kept.append(memory)
        return memory

    def _array(self, kind: str, values: Sequence[int] | np.ndarray[Any, Any]) -> Any:
        memory = ffi.new(f"{kind}[]", list(values))
        self._kept.append(memory)
        return memory

    def _key(self, what: str) -> int:
        """Return 64 bits for what is shuffled: other ones for each seed and purpose."""
        text = f"{self.recipe.seed or 0} {what}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())

    def _fill_templates(self, members: Sequence[Member], n_variations: int) -> None:
        c = self._c
        templates = [template for member in members for template in member.templates]
        c.templates = rows = self._new("struct xp_craft_template[]", len(templates))
        for row, template in zip(rows, templates, strict=True):
            self._fill_template(row, template)
        c.members = self._members = self._new("struct xp_craft_member[]", len(members))
        moves = np.zeros((len(members), n_variations), np.uint32)
        first = 0
        for number, member in enumerate(members):
            self._members[number].template = first
            first += len(member.templates)
            stride = 1
            for choice in reversed(member.choices):
                moves[number, choice] = stride
                stride *= member.varied[choice].values.n
        c.choices = self._array("uint32_t", moves.ravel())

    def _fill_template(self, row: Any, template: Template) -> None:
        links: list[tuple[int, bool]] = []
        row.data = data = ffi.new("uint8_t[]", template.data)
        self._kept.append(data)
        row.len = len(template.data)
        row.n_places, row.n_sums = len(template.places), len(template.sums)
        row.n_lengths = len(template.lengths)
        row.places = places = self._new("struct xp_craft_place[]", row.n_places)
        for to, place in zip(places, template.places, strict=True):
            to.at, to.shift, to.mask = place.at, place.shift, place.mask
            to.variation, to.word = place.variation, place.word
            to.link, to.n_links = len(links), len(place.links)
            links += place.links
        row.lengths = lengths = self._new("struct xp_craft_length[]", row.n_lengths)
        for to, at in zip(lengths, template.lengths, strict=True):
            to.at, to.was = at, int.from_bytes(template.data[at : at + 2])
        row.sums = sums = self._new("struct xp_craft_sum[]", row.n_sums)
        for to, each in zip(sums, template.sums, strict=True):
            to.at, to.base, to.weight = each.at, each.base, each.weight
            to.never_zero = each.never_zero
            to.link, to.n_links = len(links), len(each.links)
            links += each.links
        row.links = made = self._new("struct xp_craft_link[]", len(links))
        for to, (number, swapped) in zip(made, links, strict=True):
            to.sum, to.swapped = number, swapped

    def _fill_variations(self, members: Sequence[Member], variations: Sequence[Variation]) -> None:
        c = self._c
        values = _values(members, variations)
        c.n_variations = len(values)
        c.variations = rows = self._new("struct xp_craft_variation[]", len(values))
        numbers: list[list[int]] = []  # of the variations of each axis
        together = [k for k, v in enumerate(variations) if v.at_random and not values[k].noise]
        for k, each in enumerate(values):
            if not each.noise and k not in together:
                numbers.append([k])
        if together:
            numbers.append(together)
        c.n_axes = len(numbers)
        c.axes = axes = self._new("struct xp_craft_axis[]", max(len(numbers), 1))
        before = 1
        for place, mine in enumerate(numbers):
            n = math.prod(values[k].n for k in mine)
            axis = axes[place]
            axis.shuffled = mine is together
            axis.too_many = n > _MOST
            axis.key = self._key("flows")
            n = min(n, _MOST)
            _axis(axis, n, before)
            before = min(before * n, _MOST)
            divisor = 1
            for k in mine:
                rows[k].axis = place
                rows[k].divisor = min(divisor, _MOST)
                divisor *= values[k].n
        for k, row in enumerate(rows):
            self._fill_values(row, k, values[k], members)

    def _fill_values(
        self, row: Any, number: int, values: Values, members: Sequence[Member]
    ) -> None:
        varied = next(member.varied[number] for member in members if number in member.varied)
        row.key = number + 1
        row.n = 0 if values.n >= 1 << 64 else values.n
        row.words = 1
        row.divisor = row.divisor or 1
        if any(number in member.choices for member in members):
            row.kind = lib.XP_CRAFT_CHOICE
        elif values.noise:
            row.kind = lib.XP_CRAFT_NOISE
        elif values.items:
            row.kind = lib.XP_CRAFT_TABLE
            words = [varied.words(item) for item in values.items]
            row.words = len(words[0])
            table = np.array(words, np.uint64)
            row.table = ffi.from_buffer("uint64_t[]", table)
            self._kept.append((table, row.table))
        else:
            row.kind = lib.XP_CRAFT_RANGE
            row.start = values.start & (1 << 64) - 1
            row.step = values.step
            # a range of more than 64 bits moves in its last word only

    def seek(self, packet: int) -> None:
        """Go to a packet by its number, from 0."""
        lib.xp_craft_seek(self._c, packet)

    def fill(self, batch: Batch, most: int) -> int:
        """Fill a batch with the next packets, at most so many; return how many."""
        return int(lib.xp_craft(self._c, batch.c, most))

    @property
    def n_bytes(self) -> int:
        """Bytes of the packets made so far."""
        return int(self._c.n_bytes)

    @property
    def n_longer(self) -> int:
        """Packets made so far that are longer than was asked for, since their template is."""
        return int(self._c.n_longer)

    def n_made(self) -> dict[str, int]:
        """Return how many packets were made of each member."""
        return {
            name: int(member.n_made) for name, member in zip(self.names, self._members, strict=True)
        }


def _axis(axis: Any, n: int, before: int) -> None:
    """Set up an axis to step beside others.

    Of two numbers that step side by side through a and b values, the same pairs come again after
    lcm(a, b) steps. There the second one goes one further, gcd(a, b) times in all: as differences
    of the two modulo gcd(a, b) are then all there, so are all a * b pairs, and it begins anew.

    Args:
        axis: struct xp_craft_axis.
        n: its values.
        before: combinations of those before it.
    """
    axis.n = n
    axis.period = min(math.lcm(before, n), _MOST * 2)
    axis.shifts = math.gcd(before, n)
