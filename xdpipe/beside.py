"""Modules beside a user's file can be imported from it, as `python FILE` would have it."""

import sys
from pathlib import Path


def look_beside(path: Path) -> None:
    """Have the directory of a file be the first that modules are looked for in."""
    directory = str(path.parent)
    if directory in sys.path:
        sys.path.remove(directory)
    sys.path.insert(0, directory)
