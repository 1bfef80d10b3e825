"""What was dear to make, kept: code that users' stages were compiled to, captures that were edited.

A shared object is code that runs as whoever loads it, so what another user could have written is
not used: the directory, each above it and what is in it must be ours or root's, and writable by
nobody else. What is no code is treated alike. Nothing depends on it: what cannot be read or written
is made anew.

A worker loads the user's file, and with it this, before it gives up privilege; so with `xdpipe run`
it is root who compiles and keeps, and the first of several workers does it for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_META = "meta.json"
_NEW = "new-"


class Room(NamedTuple):
    """A directory of the cache. Of what is kept there, the longest unused go.

    Attributes:
        name: of the directory.
        what: is kept there, for people.
        n_kept: how many at the most.
        n_bytes: how many at the most, of all together; but the latest stays, whatever it has.
        waits: for another process that makes something there, to use it if it is the same; else
            both make it.
    """

    name: str
    what: str
    n_kept: int
    n_bytes: int
    waits: bool


STAGES = Room("stages", "what stages compile to", 64, 1 << 30, waits=True)


@contextlib.contextmanager
def kept(
    key: str | None,
    make: Callable[[Path], dict[str, Any]],
    valid: Callable[[dict[str, Any]], bool] = lambda meta: True,
    room: Room = STAGES,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the directory in which something is, made unless it is kept; read it from there.

    Args:
        key: a name for all that has a say in what comes of it; None: there is none, do not keep it.
        make: writes files into an empty directory, and returns what else is to be kept, as JSON can
            hold it. What it raises goes on to the caller.
        valid: told that; whether it is still so.
        room: where it is kept.

    Yields:
        The directory, which may be gone afterwards, and what `make` returned.
    """
    found = None
    with contextlib.suppress(OSError):  # no room, for one
        found = _find(key, make, valid, room) if key is not None else None
    if found is not None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="xdpipe-") as directory:
        yield Path(directory), make(Path(directory))


def load(path: Path) -> ctypes.CDLL:
    """Load a shared object, of which the process keeps a copy; the file may go.

    From a memfd, so that it does not matter whether the file lies where nothing may be executed
    (mount(8), noexec). The dynamic linker knows a library by its name, so the descriptor, whose
    number is in the name, stays open.

    Raises:
        OSError: it cannot be loaded.
    """
    fd = os.memfd_create(f"xdpipe-{path.parent.name[:12]}", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(path.read_bytes())
        return ctypes.CDLL(f"/proc/self/fd/{fd}", mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError:
        os.close(fd)
        return ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)


def _find(
    key: str,
    make: Callable[[Path], dict[str, Any]],
    valid: Callable[[dict[str, Any]], bool],
    room: Room,
) -> tuple[Path, dict[str, Any]] | None:
    """Return what is kept, made if need be; None: nothing is kept here."""
    place = _directory(room)
    if place is None:
        return None
    entry = place / key
    told = _read(entry, valid)
    if told is not None:
        return entry, told
    with contextlib.ExitStack() as stack:
        if room.waits:
            stack.enter_context(_locked(place))
            told = _read(entry, valid)  # another may have made it meanwhile
            if told is not None:
                return entry, told
        with _making(place) as aside:
            told = _make(aside, make)
            if not room.waits:
                stack.enter_context(_locked(place))
            _remove(entry)
            aside.rename(entry)
        with contextlib.suppress(OSError):
            _clear(place, room)
    return entry, told


def _directory(room: Room) -> Path | None:
    """Return where it is kept; None if that is nowhere."""
    named = os.environ.get("XDPIPE_CACHE_DIR")
    if named:
        top = Path(named)
    elif os.geteuid() == 0:
        top = Path("/var/cache/xdpipe")
    else:
        try:
            home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        except KeyError:
            return None
        top = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "xdpipe"
    try:
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        (top / room.name).mkdir(mode=0o700, exist_ok=True)
        path = (top / room.name).resolve()
        unsafe = [each for each in path.parents if not _is_safe(each.lstat())]
        if not _is_ours(path.lstat()):
            unsafe.append(path)
    except OSError:
        return None
    if unsafe:
        _tell_once(f"{unsafe[0]} could be written by others, so {room.what} is not kept")
    return None if unsafe else path


_told: set[str] = set()


def _tell_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        print(f"xdpipe: {text}", file=sys.stderr)


def _is_ours(status: os.stat_result) -> bool:
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == os.geteuid() and not writable


def _is_safe(status: os.stat_result) -> bool:
    """Whether nobody but us and root can put something else in place of what is in a directory."""
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.geteuid()) and not others


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _read(entry: Path, valid: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    try:
        if not stat.S_ISDIR(entry.lstat().st_mode) or not _is_ours(entry.lstat()):
            return None
        meta: dict[str, Any] = json.loads((entry / _META).read_text())
        for name, digest in meta["files"].items():
            if not _is_ours((entry / name).lstat()) or _digest(entry / name) != digest:
                return None
        if not valid(meta["told"]):
            return None
        os.utime(entry)  # when it was last used
        told: dict[str, Any] = meta["told"]
        return told
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def _making(place: Path) -> Iterator[Path]:
    """Yield a new directory, gone afterwards unless it has got another name.

    It is locked as long as somebody writes there: what is left of a process that was killed is not.
    """
    aside = Path(tempfile.mkdtemp(dir=place, prefix=_NEW))
    fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        os.close(fd)


def _make(aside: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    told = make(aside)
    files = {}
    for path in aside.iterdir():
        path.chmod(0o600)
        files[path.name] = _digest(path)
    (aside / _META).write_text(json.dumps({"files": files, "told": told}))
    (aside / _META).chmod(0o600)
    return told


def _clear(place: Path, room: Room) -> None:
    """Remove what is too much, and what was never finished."""
    entries = []
    for path in place.iterdir():
        if path.name.startswith(_NEW):
            if not _is_locked(path):
                _remove(path)
        elif path.is_dir():
            entries.append(path)
    n_bytes = 0
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for n, path in enumerate(entries):
        n_bytes += sum(file.stat().st_size for file in path.iterdir())
        if n and (n >= room.n_kept or n_bytes > room.n_bytes):
            _remove(path)


def _is_locked(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
