"""Giving up privilege: what parses hostile bytes must have none."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
from pathlib import Path

from xdpipe.errors import XdpipeError

# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *args: int) -> int:
    values = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]]
    return int(_libc.prctl(option, *values))


def _fail(what: str) -> None:
    code = ctypes.get_errno()
    raise XdpipeError(f"{what}: {os.strerror(code)}")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent's thread ends.

    Args:
        parent: its pid as the parent knows it; if it is gone already, this process ends now.
    """
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        _fail("prctl PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Undo die_with_parent."""
    if _prctl(_PR_SET_PDEATHSIG, 0):
        _fail("prctl PR_SET_PDEATHSIG")


def renounce() -> None:
    """Set no_new_privs and empty the bounding set: what is had is all there will ever be.

    Threads and processes that are started afterwards inherit both (capabilities(7), prctl(2)).
    """
    capability = 0
    while _prctl(_PR_CAPBSET_READ, capability) >= 0:  # EINVAL behind the last one
        _prctl(_PR_CAPBSET_DROP, capability)  # without CAP_SETPCAP the set stays, powerless
        capability += 1
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1):
        _fail("prctl PR_SET_NO_NEW_PRIVS")


def find_user(name: str) -> pwd.struct_passwd | None:
    """Return the user that a worker becomes; None where we may not change who we are.

    Raises:
        XdpipeError: there is no such user, or it is root.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise XdpipeError(f"no user {name!r}; name one that exists with --user") from None
    if entry.pw_uid == 0:
        raise XdpipeError(f"user {name!r}: a worker is never root; name another with --user")
    return entry


def drop_all(entry: pwd.struct_passwd | None) -> None:
    """Give up every capability for good, and become another user; after `renounce`.

    Changing the user empties the permitted and effective sets of all threads (capabilities(7)).
    The parent's death still kills this process; changing the user would forget that.

    Args:
        entry: whom to become; None: stay who we are.

    Raises:
        XdpipeError: there are child processes, which would keep what they have.
    """
    parent = os.getppid()
    if any(path.read_text().strip() for path in Path("/proc/self/task").glob("*/children")):
        raise XdpipeError("the file starts processes when imported; they would stay privileged")
    if entry is not None:
        with contextlib.suppress(PermissionError):  # root without CAP_SETUID stays who it is
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing):
        _fail("capset")
    die_with_parent(parent)
