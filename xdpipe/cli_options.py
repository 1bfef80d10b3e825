"""Kinds of options that several commands take."""

from __future__ import annotations

import math
from typing import Any

import click

from xdpipe.errors import XdpipeError
from xdpipe.ranges import parse_ranges


class Ranges(click.ParamType[list[int]]):
    """Numbers such as 0-3,6."""

    name = "ranges"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Return the numbers, or fail with what is wrong."""
        if isinstance(value, list):
            return value
        try:
            return parse_ranges(value)
        except XdpipeError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType[int]):
    """A whole number from 1 on, such as 1000000 or 1e6."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with what is wrong."""
        try:
            number = int(value)
        except ValueError:
            try:
                number = int(float(value)) if float(value).is_integer() else 0
            except (ValueError, OverflowError):
                number = 0
        if not 1 <= number < 1 << 62:
            self.fail(
                f"{value!r} is no whole number from 1 on, such as 1000000 or 1e6.", param, ctx
            )
        return number


class Finite(click.FloatRange):
    """A number in a range that is neither infinite nor none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number to count with.", param, ctx)
        return number


budget_option = click.option(
    "--budget-us",
    type=Finite(min=0),
    help="Count batches for which a stage takes longer; microseconds. Default: as the pipeline "
    "says, or 10000; a stage's own goes before.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
