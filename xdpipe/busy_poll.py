"""Put off a link's interrupts while its sockets are busy-polled.

A driver whose interrupts go on receives by them all the same. With these two settings of the link
(Documentation/networking/napi.rst, "IRQ mitigation") its interrupts stay off for as long as
somebody polls, and come back by a timer when nobody does: when a worker hangs or has died.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError
from xdpipe.netns import open_sysfs

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "napi_defer_hard_irqs": 2,  # polls by the timer that find nothing, until interrupts are on
    "gro_flush_timeout": 200_000,  # the timer; ns
}
_NOTE = "interrupts.json"


class InterruptsOff:
    """The settings of a link, changed until `close`.

    What they were is written down as well: who finds the note of a supervisor that was killed puts
    it right (`put_back`).
    """

    def __init__(self, dev: str, run_dir: Path) -> None:
        """Change them.

        Args:
            dev: the interface, in the calling thread's network namespace.
            run_dir: the pipeline's directory.

        Raises:
            XdpipeError: the kernel has no such settings (before Linux 5.11), or not permitted.
        """
        self._run_dir = run_dir
        try:
            former = {name: _read(dev, name) for name in SETTINGS}
            (run_dir / _NOTE).write_text(json.dumps({"dev": dev, "former": former}))
            for name, value in SETTINGS.items():
                _write(dev, name, value)
        except OSError as error:
            put_back(run_dir)
            raise XdpipeError(
                f"{dev}: put off its interrupts: {error.strerror}; leave --busy-poll out"
            ) from error

    def close(self) -> None:
        """Change them back."""
        put_back(self._run_dir)


def put_back(run_dir: Path) -> None:
    """Give a link the settings that a pipeline's note says it had, and remove the note."""
    note = run_dir / _NOTE
    with contextlib.suppress(OSError, ValueError, KeyError):  # no note; the link is gone
        told = json.loads(note.read_text())
        for name, value in told["former"].items():
            _write(told["dev"], name, value)
    note.unlink(missing_ok=True)


def _read(dev: str, name: str) -> int:
    with os.fdopen(open_sysfs(f"class/net/{dev}/{name}", os.O_RDONLY)) as file:
        return int(file.read())


def _write(dev: str, name: str, value: int) -> None:
    with os.fdopen(open_sysfs(f"class/net/{dev}/{name}", os.O_WRONLY), "w") as file:
        file.write(str(value))
