"""The C compiler that is there: for stages in C, and to link what numba compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = ("gcc", "cc", "clang")
_TIMEOUT_S = 50
"""A worker that says nothing for a minute is given up."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler.

    Attributes:
        path: of the program.
        identity: what changes with its version.
    """

    path: str
    identity: str

    def run(self, args: Sequence[str], directory: Path) -> tuple[bool, str]:
        """Run it; return whether it succeeded, and what it said.

        Args:
            args: what it is told.
            directory: where it runs, and may leave temporary files.

        Raises:
            XdpipeError: it cannot be run.
        """
        try:
            done = subprocess.run(
                [self.path, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", check=False, timeout=_TIMEOUT_S, cwd=directory,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C",
                     "TMPDIR": str(directory)},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise XdpipeError(f"{self.path}: {error}") from error
        return done.returncode == 0, done.stderr


def find_compiler() -> Compiler | None:
    """Return the C compiler that is on the path; None: there is none."""
    for name in _NAMES:
        path = shutil.which(name)
        if path is not None:
            real = Path(path).resolve()
            status = real.stat()
            return Compiler(path, f"{real} {status.st_size} {status.st_mtime_ns}")
    return None
