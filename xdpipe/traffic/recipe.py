"""A recipe: which packets are to be crafted, made ready for the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError
from xdpipe.traffic import expression
from xdpipe.traffic.anatomy import layers
from xdpipe.traffic.member import MOST_FORMS, Member
from xdpipe.traffic.plan import Plan, n_combinations
from xdpipe.traffic.sizes import spread
from xdpipe.traffic.variation import Variation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.traffic.sizes import Sizes


@dataclass(frozen=True)
class Ingredient:
    """A kind of packet by name.

    Attributes:
        name: to count it by.
        template: a scapy expression; or packets that it gave.
        weight: how often its turn comes.
    """

    name: str
    template: str | Sequence[object]
    weight: int = 1

    def packets(self) -> list[object]:
        """Return its scapy packets, from Ethernet on."""
        if isinstance(self.template, str):
            return expression.packets(self.template)
        return list(self.template)

    def named(self) -> list[tuple[str, object]]:
        """Return its packets by their names: with a number, where there are several."""
        made = self.packets()
        if len(made) == 1:
            return [(self.name, made[0])]
        return [(f"{self.name} #{k}", packet) for k, packet in enumerate(made, 1)]

    def forms(self) -> list[tuple[str, int]]:
        """Return the names of its packets, and their bytes."""
        return [(name, len(bytes(packet))) for name, packet in self.named()]  # type: ignore[call-overload]


@dataclass(frozen=True)
class Recipe:
    """What is to be crafted.

    Attributes:
        ingredients: kinds of packets.
        vary: what differs from flow to flow: `LAYER.FIELD=VALUES`.
        flows: how many combinations of values there are to be, packets going round over them;
            None: all that there are.
        sizes: of the packets; None: as the templates are.
        seed: values come in an order that looks random, made of it; None: one after the other.
        together: each packet once makes a flow, all with the same values: a datagram's fragments.
        pps: by which packets are dated; None: a microsecond from one to the next.
    """

    ingredients: tuple[Ingredient, ...]
    vary: tuple[str, ...] = ()
    flows: int | None = None
    sizes: Sizes | None = None
    seed: int | None = None
    together: bool = False
    pps: float | None = None

    def plan(self, progress: Callable[[int], None] = lambda n: None) -> Plan:
        """Make the templates, with scapy; return what the core makes packets of.

        Args:
            progress: told how many templates are made.

        Raises:
            XdpipeError: an expression, a variation or a number of flows that cannot be.
        """
        variations = [Variation.parse(text) for text in self.vary]
        if self.seed is not None:
            variations = [variation.shuffled() for variation in variations]
        members, weights = self._members(variations)
        choices = self._choices(members)
        n_made = 0

        def made() -> None:
            nonlocal n_made
            n_made += 1
            progress(n_made)

        grows = self.sizes is not None
        members = [member.make(choices, grows=grows, progress=made) for member in members]
        longest = max(len(t.data) for member in members for t in member.templates)
        shortest = min(len(t.data) for member in members for t in member.templates)
        if self.sizes is not None and max(self.sizes.lens) < shortest:
            raise XdpipeError(
                f"--size {self.sizes.text}: the packet has {longest + 4} bytes with its checksum"
            )
        total = n_combinations(members, variations)
        if self.flows is not None and self.flows > total:
            raise XdpipeError(
                f"--flows {self.flows:,}: there are {total:,} combinations of values; "
                "vary more, or further"
            )
        return Plan(self, members, spread(weights), variations, self.flows or total)

    def _members(self, variations: Sequence[Variation]) -> tuple[list[Member], list[int]]:
        members, weights = [], []
        seen: dict[str, None] = {}
        for ingredient in self.ingredients:
            for name, packet in ingredient.named():
                members.append(Member.of(name, packet, variations))
                weights.append(ingredient.weight)
                seen.update((type(layer).__name__, None) for layer in layers(packet))
        for number, variation in enumerate(variations):
            if not any(number in member.varied for member in members):
                which = f"{variation.nth} layers" if variation.nth > 1 else "layer"
                raise XdpipeError(
                    f"--vary {variation.text!r}: there is no {which} {variation.layer} in a "
                    f"packet; there are {', '.join(seen)}"
                )
        return members, weights

    def _choices(self, members: Sequence[Member]) -> list[int]:
        """Return the variations for whose values packets are built by scapy, each."""
        found = {number for member in members for number in member.unfixed()}
        for number, text in enumerate(self.vary):
            kinds = {
                (varied.kind.what, varied.kind.size, varied.values)
                for member in members
                for varied in filter(None, [member.varied.get(number)])
            }
            if len(kinds) > 1:
                raise XdpipeError(
                    f"--vary {text!r}: the field is not of the same kind in all packets"
                )
        for member in members:
            for number in found & set(member.varied):
                varied = member.varied[number]
                if varied.values.noise or varied.values.n > MOST_FORMS:
                    raise XdpipeError(
                        f"--vary {self.vary[number]!r}: changes the packet's form, and so can "
                        f"have {MOST_FORMS:,} values at the most, and none at random"
                    )
        return sorted(found)
