"""A Python file of the user's: imported, and where in it something went wrong."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


def import_file(path: Path, name: str) -> ModuleType:
    """Import a file, as `python FILE` would have it: modules beside it can be imported from it.

    Args:
        path: of the file, resolved.
        name: of the module, in sys.modules.

    Raises:
        XdpipeError: its name does not end as a Python file's does.
        BaseException: whatever the file raises; see where().
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise XdpipeError("not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    directory = str(path.parent)
    if directory in sys.path:
        sys.path.remove(directory)
    sys.path.insert(0, directory)
    spec.loader.exec_module(module)
    return module


def where(error: BaseException, path: Path) -> str:
    """Return file:line of the place in the user's file that an exception came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def reason(error: BaseException) -> str:
    """Return what an exception says: of one of ours all, else its kind and the first line."""
    if isinstance(error, XdpipeError):
        return str(error)
    said = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {said}".rstrip(": ")
