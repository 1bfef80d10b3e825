"""`xdpipe run` on one queue of an interface, its worker on core 1, as the benchmarks measure it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import fail

from xdpipe.link import Link
from xdpipe.netns import Namespace
from xdpipe.rundir import RunDir

PIPELINES = Path(__file__).resolve().parent / "pipelines"


class RunningPipeline:
    """A pipeline that was started; it need not be ready yet."""

    def __init__(
        self,
        namespace: Namespace,
        chain: str | Path,
        devs: tuple[str, ...] = ("h0",),
        mode: str = "auto",
        within: str = "",
        more: tuple[str, ...] = (),
    ) -> None:
        """Start.

        Args:
            namespace: that the interfaces lie in.
            chain: a file of bench/pipelines, or a path.
            devs: the interfaces, as `xdpipe run --dev` takes them.
            mode: `auto`, `zerocopy` or `copy`.
            within: cores that all of its processes have to stay on, as taskset(1) takes them;
                empty: what they choose.
            more: arguments for `xdpipe run`.
        """
        self._popen: subprocess.Popen[str] = namespace.popen(
            [*(["taskset", "--cpu-list", within] if within else []),
             sys.executable, "-P", "-m", "xdpipe", "run",
             str(chain if isinstance(chain, Path) else PIPELINES / f"{chain}.py"),
             *(word for dev in devs for word in ("--dev", dev)),
             "--cores", "1", "--mode", mode, "--json", *more],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with namespace:
            first = devs[0].rpartition("=")[2]
            self._run_dir = RunDir.of(ifindex=Link.find(first).index)

    def status(self) -> dict[str, Any] | None:
        """Return its live status; None while it starts."""
        answer: dict[str, Any] | None = self._run_dir.ask("status")
        return answer

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something is true."""
        while not ready():
            if self._popen.poll() is not None:
                fail("xdpipe run ended; see above")
            time.sleep(0.001)

    def wait_ready(self) -> dict[str, Any]:
        """Return its status as soon as it takes packets."""
        found: list[dict[str, Any]] = []

        def ready() -> bool:
            status = self.status()
            found.extend([status] if status is not None else [])
            return bool(found)

        self.wait(ready)
        return found[0]

    def end(self) -> dict[str, Any]:
        """End it as Ctrl-C does; return its final status."""
        self._popen.send_signal(signal.SIGINT)
        final: dict[str, Any] = json.loads(self._popen.communicate(timeout=60)[0])
        return final
