"""What takes long to make, kept below .vm/ by a hash of what it is made from."""

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The working tree."""
CACHE = Path(os.environ.get("XDPIPE_VM_CACHE") or ROOT / ".vm")


class VmError(Exception):
    """What the user can do something about: one line."""


def say(text: str) -> None:
    """Tell what goes on, on stderr: stdout belongs to what runs in the VM."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time do something; the kernel lets go where it is killed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that makes: {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, inputs: Iterable[str | Path], make: Callable[[Path], None]) -> Path:
    """Return the directory of a thing, made if it is not there or its inputs have changed.

    Args:
        name: of the thing; one is kept of each.
        inputs: what it depends on: files, by what is in them, and text.
        make: makes it in an empty directory. Interrupted, it leaves nothing that would be used.
    """
    digest = hashlib.sha256()
    for piece in inputs:
        data = piece.read_bytes() if isinstance(piece, Path) else piece.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    place = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if place.exists():
        return place
    with locked(name):
        if place.exists():
            return place
        part = CACHE / f"{name}.part"
        _remove(part)
        part.mkdir()
        say(f"making {name}, as it is not there or what it is made from has changed")
        began = time.monotonic()
        try:
            make(part)
        except BaseException:
            _remove(part)
            raise
        for old in CACHE.glob(f"{name}-" + "?" * 16):
            _remove(old)
        part.rename(place)
        say(f"made {name} in {time.monotonic() - began:.0f} s")
    return place


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
