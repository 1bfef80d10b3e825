"""Real programs around a pipeline: servers that are awaited, and what passes, by tcpdump."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hosts import Bench, until


@contextmanager
def server(bench: Bench, port: int, *command: str) -> Iterator[None]:
    """Run a server on the host, which listens on a TCP port before this goes on."""
    with bench.host.popen(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as program:

        def listens() -> bool:
            assert program.poll() is None, program.stderr and program.stderr.read()
            done = bench.host.run(
                ["ss", "-Htln", f"sport = :{port}"], capture_output=True, text=True, check=True
            )
            return bool(done.stdout)

        try:
            until(listens, f"{command[0]} listens")
            yield
        finally:
            program.kill()
            program.communicate()


@contextmanager
def tcpdump(bench: Bench, capture: Path, port: int) -> Iterator[None]:
    """Capture what the client sends and receives by a TCP port."""
    with bench.client.popen(
        ["tcpdump", "--immediate-mode", "-U", "-B", "65536", "-i", "c0", "-w", str(capture),
         f"tcp port {port}"],
        stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stderr is not None
        assert "listening" in program.stderr.readline()
        try:
            yield
        finally:
            program.kill()
            program.communicate()
