"""What the command line says of a pipeline's code: `check --lint`, and before `run` starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from xdpipe.lint import Lint

FOUND = 3
"""The exit code of `check --lint` when there are findings."""


def tell(found: Lint) -> None:
    """Print findings, a line each, and how many there are."""
    for finding in found.findings:
        click.echo(str(finding))
    n = len(found.findings)
    told = f"{n} finding{'s' if n != 1 else ''}" if n else "nothing found"
    allowed = f", {found.n_allowed} allowed by comments" if found.n_allowed else ""
    click.echo(f"{told}{allowed}")


def warn(file: str) -> None:
    """Say on stderr what in a pipeline's code will hold it up, a line each."""
    from xdpipe.lint import lint

    try:
        found = lint(file)
    except XdpipeError:
        return  # the worker, which imports the file, says what is wrong with it
    except Exception as error:  # reading must not keep anything from running
        click.echo(
            f"xdpipe: warning: {file}: not linted: {type(error).__name__}: {error}", err=True
        )
        return
    for finding in found.findings:
        click.echo(f"xdpipe: warning: {finding}", err=True)
