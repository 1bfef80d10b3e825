"""Write the tables of docs/reference.md from the code: `python docs/generate.py [--check]`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from xdpipe import stages
from xdpipe.batch import COLUMNS, ENUMS
from xdpipe.cli import main as cli
from xdpipe.core._core import ffi, lib
from xdpipe.ledger import VERDICTS
from xdpipe.stage import Stage

CONTEXT = click.Context(cli)
NEEDS = {
    **dict.fromkeys(("Count", "Histogram", "RateLimit", "Top"), "the columns that it is given"),
    "Sample": "per flow `flow_hash`",
}
"""Of stages whose arguments say what they require."""
REFERENCE = Path(__file__).parent / "reference.md"
COLUMNS_FILE = Path(__file__).parents[1] / "xdpipe" / "columns.py"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _names(table: object, n: int) -> Iterator[tuple[str, str, int]]:
    for i in range(n):
        entry = table[i]  # type: ignore[index]
        yield ffi.string(entry.name).decode(), ffi.string(entry.doc).decode(), entry.value


def columns() -> str:
    return _table(
        ["column", "dtype", "shape", "filled by", "meaning"],
        [
            [
                f"`{c.name}`",
                "text" if c.text else str(c.dtype),
                "n" if c.width == 1 else f"n, {c.width}",
                c.provider,
                c.doc,
            ]
            for c in COLUMNS.values()
        ],
    )


def flags() -> str:
    rows = ENUMS["flags"].items()
    return _table(["flag", "bit", "meaning"], [[f"`{n}`", f"{v:#x}", doc] for n, (v, doc) in rows])


def malformed() -> str:
    """Return what the values of the other columns with named values mean."""
    rows = [
        [f"`{column}`", f"`{name}`", str(value), doc]
        for column, names in ENUMS.items()
        if column != "flags"
        for name, (value, doc) in names.items()
    ]
    return _table(["column", "name", "value", "meaning"], rows)


def counters() -> str:
    rows = _names(lib.xp_counter_names, lib.xp_n_counters)
    return _table(["counter", "meaning"], [[f"`{name}`", doc] for name, doc, _ in rows])


def shipped_stages() -> str:
    rows = []
    for name in stages.__all__:
        stage = getattr(stages, name)
        if not issubclass(stage, Stage):
            continue  # what stages are given, such as Prefix
        first = stage.__doc__.splitlines()[0]
        own = ", ".join(f"`{counter}`" for counter in stage.counters)
        needs = ", ".join(f"`{column}`" for column in stage.requires) or NEEDS.get(name, "nothing")
        rows.append([f"`{name}`", first, needs, own])
    return _table(["stage", "what it does", "requires", "counters"], rows)


def verdicts() -> str:
    docs = {name: doc for name, doc, _ in _names(lib.xp_counter_names, lib.xp_n_counters)}
    return _table(["in the ledger", "meaning"], [[f"`{n}`", docs[c]] for n, c in VERDICTS.items()])


def commands() -> str:
    parts = []
    for name, command in cli.commands.items():
        arguments = [
            p.make_metavar(CONTEXT) for p in command.params if isinstance(p, click.Argument)
        ]
        options = [p for p in command.params if isinstance(p, click.Option)]
        parts.append(f"### {' '.join(['xdpipe', name, *arguments])}\n\n{command.help}")
        rows = [[f"`{option.opts[0]}`", option.help or "", _default(option)] for option in options]
        parts.append(_table(["option", "meaning", "default"], rows))
    return "\n\n".join(parts)


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    shown = option.show_default and not option.is_flag
    return f"`{option.default}`" if shown else ""


def generated(text: str) -> str:
    """Return the reference with what stands between its marks made anew."""
    for make in (commands, columns, flags, malformed, counters, shipped_stages, verdicts):
        begin, end = f"<!-- {make.__name__} -->\n", f"\n<!-- /{make.__name__} -->"
        head, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{REFERENCE}: the mark {begin.strip()} is missing")
        text = head + begin + "\n" + make() + "\n" + end + rest.partition(end)[2]
    return text


def typed_columns() -> str:
    """Return xdpipe/columns.py: the columns as attributes, for readers and type checkers."""
    wanted = "TYPE_CHECKING, Any" if any(c.text for c in COLUMNS.values()) else "TYPE_CHECKING"
    lines = [
        '"""The columns of a batch, for readers and type checkers; written by docs/generate.py."""',
        "", "from __future__ import annotations", "",
        f"from typing import {wanted}", "",
        "if TYPE_CHECKING:", "    import numpy as np", "    from numpy.typing import NDArray", "",
        "", "class BatchColumns:",
        '    """What a batch has by column; see xdpipe.batch.COLUMNS and docs/reference.md."""', "",
        "    if TYPE_CHECKING:",
    ]  # fmt: skip
    for c in COLUMNS.values():
        scalar = "Any" if c.text else f"np.{c.dtype}"
        lines.append(f"        {c.name}: NDArray[{scalar}]")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for file, shall_be in (
        (REFERENCE, generated(REFERENCE.read_text())),
        (COLUMNS_FILE, typed_columns()),
    ):
        if "--check" not in sys.argv:
            file.write_text(shall_be)
        elif file.read_text() != shall_be:
            raise SystemExit(f"{file.name} is out of date; run: python docs/generate.py")
