"""A process that may have ended, and whose pid may be somebody else's by now."""

from __future__ import annotations

import fcntl
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


def _start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if there is none (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


HUGE_PAGE = 2 << 20
"""Bytes."""


_ENVIRONMENT = ("PATH", "LANG", "LC_", "TZ", "PYTHON", "VIRTUAL_ENV", "XDPIPE_CACHE_DIR")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
"""Environment for numpy, whose library for linear algebra starts a thread for each core at its
import, which spins for some 100 ms. No good to a worker, which has one core, and on the others'
besides; nor to a command, which computes nothing of that kind."""


def plain_environment() -> dict[str, str]:
    """Return what our processes get of the environment, which may hold secrets."""
    ours = {key: value for key, value in os.environ.items() if key.startswith(_ENVIRONMENT)}
    return ours | ONE_THREAD


def shared_memory(name: str, size: int, *, huge_pages: bool = False) -> int:
    """Make memory to share with a process that is not trusted; return its descriptor.

    Its size is sealed (memfd_create(2)): who shrinks memory that another has mapped kills the
    other by SIGBUS.

    Args:
        name: shown in /proc.
        size: bytes; with huge pages a multiple of HUGE_PAGE.
        huge_pages: of HUGE_PAGE bytes. Mapping them fails with ENOMEM where too few are free.

    Raises:
        OSError: the kernel has no huge pages.
    """
    kind = os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge_pages else 0
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | kind)
    os.ftruncate(fd, size)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@dataclass(frozen=True)
class Process:
    """A process by pid and start time, which together never come again."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has this pid now."""
        return cls(pid, _start_time(pid))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Undo dataclasses.asdict."""
        return cls(data["pid"], data["start_time"])

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.start_time != 0 and _start_time(self.pid) == self.start_time

    @property
    def rss_bytes(self) -> int:
        """Resident memory; 0 if it is gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGESIZE")

    def signal(self, number: int = signal.SIGTERM) -> bool:
        """Send it a signal; False if it is gone."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True
