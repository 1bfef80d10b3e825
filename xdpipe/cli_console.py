"""Where rich draws; importing it takes as long as all of a short command, so it comes late."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


def make_console(**options: Any) -> Console:
    """Return a console of rich's.

    Args:
        options: of rich.console.Console.
    """
    from rich.console import Console

    return Console(**options)


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done, where that is a terminal; yield what changes the text."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    with make_console(stderr=True).status(text) as status:
        yield status.update
