"""Compiled programs, kept: starting bcc and clang is most of what a start of a pipeline costs.

Kept in /var/cache/xdpipe (or $XDPIPE_CACHE_DIR), a file for each source and all else that has a say
in what comes of it. Only who may load programs gets so far as to compile, so the directory is
root's; one that others could write to is not used. A kept program passes the kernel's verifier like
any other. Nothing depends on the cache: what cannot be read or written is compiled anew.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xdpipe import bpf_compile
from xdpipe.bpf import require_privilege
from xdpipe.bpf_module import Compiled

_FORMAT = 1
_N_KEPT = 256
"""Files; the longest unused go. A filter is a file, and so is an operator's SSH session."""


def compiled(source: str, include: Path) -> Compiled:
    """Return what compile_source gives, from the cache if it is there.

    Args:
        source: C, with bcc's macros for maps.
        include: directory of its own headers.

    Raises:
        CompileError: clang refuses it.
        XdpipeError: bcc or the headers are missing; not permitted.
    """
    require_privilege()
    directory = _directory()
    if directory is None:
        return bpf_compile.compile_source(source, include)
    path = directory / f"{_key(source, include)}.json"
    kept = _read(path)
    if kept is None:
        kept = bpf_compile.compile_source(source, include)
        _write(path, kept)
    return kept


def _directory() -> Path | None:
    """Return where programs are kept; None if that is nowhere."""
    path = Path(os.environ.get("XDPIPE_CACHE_DIR", "/var/cache/xdpipe"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return path if ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def _key(source: str, include: Path) -> str:
    key = hashlib.sha256(f"{_FORMAT}\n{source}\0{platform.machine()} {platform.release()}".encode())
    for header in sorted(include.glob("*.h")):
        key.update(f"\0{header.name}\0".encode() + header.read_bytes())
    for file in _tools():
        with contextlib.suppress(OSError):
            status = file.stat()
            key.update(f"\0{file} {status.st_size} {status.st_mtime_ns}".encode())
    return key.hexdigest()


def _tools() -> Iterator[Path]:
    """Return files that change with the compiler and with the kernel's headers."""
    found = importlib.util.find_spec("bcc")
    if found is not None and found.origin:
        yield from sorted(Path(found.origin).parent.glob("*.py"))
    yield bpf_compile.INCLUDE / "linux/version.h"
    yield bpf_compile.INCLUDE / "linux/if_ether.h"


def _read(path: Path) -> Compiled | None:
    try:
        digest, _, text = path.read_text().partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            return None
        os.utime(path)  # when it was last used
        return Compiled.from_dict(json.loads(text))
    except (OSError, ValueError):
        return None


def _write(path: Path, kept: Compiled) -> None:
    text = json.dumps(kept.to_dict())
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        os.replace(file.name, path)
        used = {other: other.stat().st_mtime for other in path.parent.glob("*.json")}
        for other in sorted(used, key=used.__getitem__, reverse=True)[_N_KEPT:]:
            other.unlink()
