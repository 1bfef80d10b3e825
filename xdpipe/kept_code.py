"""Code that users' stages were compiled to, kept: compiling is most of what their start costs.

A shared object is code that runs as whoever loads it, so what another user could have written is
not used: the directory, each above it and what is in it must be ours or root's, and writable by
nobody else. Nothing depends on it: what cannot be read or written is compiled anew.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_N_KEPT = 64
"""Stages; the longest unused go."""
_META = "meta.json"


@contextlib.contextmanager
def kept(
    key: str | None,
    make: Callable[[Path], dict[str, Any]],
    valid: Callable[[dict[str, Any]], bool] = lambda meta: True,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the directory in which a stage's code is, made unless it is kept; load it from there.

    Args:
        key: a name for all that has a say in what comes of it; None: there is none, do not keep it.
        make: writes files into an empty directory, and returns what else is to be kept, as JSON can
            hold it. What it raises goes on to the caller.
        valid: told that; whether it is still so.

    Yields:
        The directory, which may be gone afterwards, and what `make` returned.
    """
    found = None
    with contextlib.suppress(OSError):  # no room, for one
        found = _find(key, make, valid) if key is not None else None
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
    key: str, make: Callable[[Path], dict[str, Any]], valid: Callable[[dict[str, Any]], bool]
) -> tuple[Path, dict[str, Any]] | None:
    """Return what is kept, made if need be; None: nothing is kept here."""
    place = _directory()
    if place is None:
        return None
    entry = place / key
    told = _read(entry, valid)
    if told is None:
        with _locked(place):
            told = _read(entry, valid)  # another may have made it meanwhile
            if told is None:
                told = _make(place, entry, make)
    return entry, told


def _directory() -> Path | None:
    """Return where code is kept; None if that is nowhere."""
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
        (top / "stages").mkdir(mode=0o700, exist_ok=True)
        path = (top / "stages").resolve()
        unsafe = [each for each in path.parents if not _is_safe(each.lstat())]
        if not _is_ours(path.lstat()):
            unsafe.append(path)
    except OSError:
        return None
    if unsafe:
        _tell_once(f"{unsafe[0]} could be written by others, so what stages compile to is not kept")
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


def _make(place: Path, entry: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    aside = Path(tempfile.mkdtemp(dir=place, prefix="new-"))
    try:
        told = make(aside)
        files = {}
        for path in aside.iterdir():
            path.chmod(0o600)
            files[path.name] = _digest(path)
        (aside / _META).write_text(json.dumps({"files": files, "told": told}))
        (aside / _META).chmod(0o600)
        _remove(entry)
        aside.rename(entry)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    with contextlib.suppress(OSError):
        used = {other: other.stat().st_mtime for other in place.iterdir() if other.is_dir()}
        for other in sorted(used, key=used.__getitem__, reverse=True)[_N_KEPT:]:
            _remove(other)
    return told


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
